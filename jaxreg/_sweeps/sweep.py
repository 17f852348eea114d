"""``sweep``: many trainings over the same data, in one compiled program."""

from __future__ import annotations

import copy
import inspect
import itertools
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxreg._arrays import as_array, as_known
from jaxreg._calls import UserTerms, check_loss
from jaxreg._errors import ArgumentError
from jaxreg._memory import name_exhausted_memory
from jaxreg._nn.linear import Linear
from jaxreg._nn.losses import mse_loss
from jaxreg._optim import sgd
from jaxreg._optim.settings import Settings
from jaxreg._plans.batches import Batches
from jaxreg._plans.request import Request
from jaxreg._precision import full_precision, is_full
from jaxreg._statistics.sufficient import SufficientStatistics
from jaxreg._sweeps import run, vectorized
from jaxreg._sweeps.sweep_result import SweepResult
from jaxreg._training import plan_choice
from jaxreg._training.fit import as_source, as_steps, check_epochs, check_model, check_optimizer
from jaxreg._types import AnyArray, HostArray, Params
from jaxreg._validation import is_number

# Settings of a training that are none of the optimizer's.
_TRAINING_SETTINGS = ("seed", "targets")
_NAMED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@name_exhausted_memory
def sweep(
    model: nnx.Module,
    inputs: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    settings: Mapping[str, object] | Iterable[Mapping[str, object]],
    epochs: int,
    optimizer: Callable[..., optax.GradientTransformation] = sgd.sgd,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = mse_loss,
    weights: ArrayLike | None = None,
    at: ArrayLike | Sequence[int] | None = None,
    plan: str = "auto",
    precision: str | None = None,
) -> SweepResult:
    """Train once for each of many settings, on all rows, as one compiled program that reads the data for all of them.

    The plans are those of :func:`jaxreg.fit`, and so are the results of each training. Where there are several devices
    and their number divides that of the trainings, each device takes its share of them.

    Args:
        model: as for :func:`jaxreg.fit`; its weights are the start of each training that names no ``seed``.
        inputs: shape ``(rows, ...)``.
        targets: as for :func:`jaxreg.fit`; left out where ``settings`` hold them.
        settings: a dictionary of lists, for each combination of their values, as in scikit-learn's ``ParameterGrid``;
            or a list of dictionaries, for one training each. The names are those of the optimizer's arguments, and
            ``"seed"``, for initial weights drawn anew as ``jaxreg.Linear(..., rngs=nnx.Rngs(seed))`` draws them
            (``None`` for the model's own), and
            ``"targets"``, for other targets of the same shape.
        epochs: steps of each training; at least 0.
        optimizer: makes an Optax transformation of its settings: :func:`jaxreg.sgd`, ``optax.adam``, or any function.
        loss: ``loss(predictions, targets)`` to a scalar.
        weights: of each row's squared error, shape ``(rows,)``.
        at: the steps to keep the losses of, counted from 0; ``None`` for the last one.
        plan: as for :func:`jaxreg.fit`.
        precision: as for :func:`jaxreg.fit`.

    Returns:
        A :class:`SweepResult`, which prints as a table.

    Raises:
        ArgumentError: an argument that cannot be used, or a plan that cannot serve; the message says why.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import jaxreg
        >>> x = jnp.linspace(-1, 1, 20).reshape(-1, 1)
        >>> model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> grid = {"learning_rate": [0.01, 0.1, 1.0], "momentum": [0.0, 0.9]}
        >>> result = jaxreg.sweep(model, x, 2 * x + 1, settings=grid, epochs=50)
        >>> result
        SweepResult(6 trainings of 50 steps, plan 'spectral')
        learning_rate  momentum        loss
                  0.1         0  3.5223e-04
                    1       0.9  3.3856e-03
                  0.1       0.9  1.5600e-02
                 0.01       0.9  2.9688e-02
                 0.01         0  8.5312e-01
                    1         0  3.9419e+00
        >>> result.model().kernel[...].shape
        (1, 1)
    """
    check_model(model)
    check_epochs(epochs)
    if not callable(optimizer):
        raise ArgumentError(
            "optimizer must be a function that makes an Optax transformation of the settings, such as jaxreg.sgd or "
            f"optax.adam, got {type(optimizer).__name__}, which is made already"
        )
    if not isinstance(settings, Iterable):
        raise ArgumentError(f"settings must be a dictionary of lists or a list of dictionaries, got {settings!r}")
    each = _listed(settings, optimizer)
    which, choices = _targets(each, targets)
    data, rows = as_source(inputs, choices[0], weights)
    for other in choices[1:]:
        if other.shape != choices[0].shape:
            raise ArgumentError(f"targets must have one shape, got {choices[0].shape} and {other.shape}")
    if isinstance(data, SufficientStatistics):
        raise ArgumentError("statistics hold one set of targets; a sweep needs inputs and targets themselves")
    check_loss(loss, has_weights=data.weights is not None)
    own = [{name: value for name, value in one.items() if name not in _TRAINING_SETTINGS} for one in each]
    # What is no number, a schedule say, decides the plan, whichever training has it.
    deciding = next((one for one in own if not all(map(_is_plain, one.values()))), own[0])
    made = optimizer(**deciding)
    check_optimizer(made)
    request = Request(
        model=model,
        source=data,
        optimizer=made,
        loss=loss,
        epochs=int(epochs),
        batches=Batches.full(rows),
        record=frozenset(),
        at=as_steps([epochs - 1][: int(epochs)] if at is None else at, int(epochs)),
        lowered=not is_full(precision),
        trainings=len(each),
    )
    chosen = plan_choice.choose(plan, request, run.RUNNERS)
    request.check_memory(keeps_every_step=chosen.keeps_every_step)
    with full_precision(precision), UserTerms(targets):
        starts = _starts(request, [one.get("seed") for one in each])
        params, rest, losses = run.run(chosen.name, request, run.SweepSpec(own, optimizer, starts, which, choices))
    return SweepResult(tuple(each), losses, params, chosen.name, int(epochs), request.at, copy.copy(model), rest)


def _listed(settings: object, optimizer: Callable[..., object]) -> list[dict[str, object]]:
    """Return one dictionary for each training, its names and values checked as far as they can be."""
    if isinstance(settings, Mapping):
        lists = [_values_of(name, value) for name, value in settings.items()]
        each = [dict(zip(settings, values, strict=True)) for values in itertools.product(*lists)]
    elif isinstance(settings, Iterable) and not isinstance(settings, np.ndarray | jax.Array):
        each = [_one(one) for one in settings]
    else:
        raise ArgumentError(f"settings must be a dictionary of lists, or a list of dictionaries, got {settings!r}")
    for one in each:
        one.update({name: _known(name, value) for name, value in one.items() if name != "targets"})
    if not each:
        raise ArgumentError("settings are empty: give a dictionary of lists, or a list of dictionaries")
    if any(one.keys() != each[0].keys() for one in each):
        raise ArgumentError("settings must all have the same names")
    try:
        known = inspect.signature(optimizer).parameters
    except (TypeError, ValueError):
        raise ArgumentError(
            f"optimizer must be a function of the settings, such as jaxreg.sgd, got {optimizer!r}"
        ) from None
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        unknown = [name for name in each[0] if name not in known and name not in _TRAINING_SETTINGS]
        if unknown:
            raise ArgumentError(f"settings may be {', '.join([*known, *_TRAINING_SETTINGS])}, got {unknown[0]!r}")
    missing = [n for n, p in known.items() if p.default is p.empty and p.kind in _NAMED_KINDS and n not in each[0]]
    if missing:
        raise ArgumentError(f"settings lack {missing[0]}, without which the optimizer cannot be made")
    if optimizer is sgd.sgd:
        for one in each:
            sgd.check(Settings(**{name: value for name, value in one.items() if name not in _TRAINING_SETTINGS}))
    return each


def _is_plain(value: object) -> bool:
    return is_number(value) or isinstance(value, bool | np.bool_)


def _one(settings: object) -> dict[str, object]:
    if not isinstance(settings, Mapping):
        raise ArgumentError(
            "settings must be a dictionary of lists or a list of dictionaries (of a pandas frame its "
            f'.to_dict("records")), got {settings!r} in the list'
        )
    return dict(settings)


def _values_of(name: str, value: object) -> list[object]:
    """Return the values that a setting takes: those of a sequence, or along the first axis of an array."""
    if isinstance(value, Sequence | range):
        return [value] if isinstance(value, str) else list(value)
    if not hasattr(value, "__array__") or not np.ndim(value) or hasattr(value, "columns"):
        return [value]
    return list(as_array(name, value if name == "targets" else as_known(name, value)))


def _known(name: str, value: object) -> object:
    """Return a setting's value, as a plain number where one array holds it."""
    if type(value) in (float, int) or not hasattr(value, "__array__") or isinstance(value, np.generic):
        return value
    return as_array(name, as_known(name, value)).item() if np.ndim(value) == 0 else value


def _targets(each: list[dict[str, object]], targets: object) -> tuple[HostArray, list[AnyArray]]:
    """Return which targets each training has, and those that there are."""
    if "targets" not in each[0]:
        if targets is None:
            raise ArgumentError("targets are missing: give them as an argument or among the settings")
        return np.zeros(len(each), np.int32), [as_array("targets", targets)]
    if targets is not None:
        raise ArgumentError("targets came twice, as an argument and among the settings")
    found: dict[int, int] = {}
    which = np.array([found.setdefault(id(one["targets"]), len(found)) for one in each], np.int32)
    choices = list({id(one["targets"]): one["targets"] for one in each}.values())
    for number, one in enumerate(each):
        one["targets"] = int(which[number])
    return which, [as_array("targets", choice) for choice in choices]


def _starts(request: Request, seeds: list[object]) -> Params:
    """Return the parameters that each training starts from, a tree like the model's with a leading axis."""
    has_seed = np.array([seed is not None for seed in seeds])
    own = vectorized.repeat(request.split[1], len(seeds))
    if not has_seed.any():
        return own
    drawn_from = [0 if seed is None else _as_seed(seed) for seed in seeds]
    model = request.model
    if type(model) is not Linear:
        raise ArgumentError(f'settings have a "seed", from which only a jaxreg.Linear is drawn, got {type(model)}')

    def drawn(seed: jax.Array) -> Params:
        layer = Linear(
            model.in_features,
            model.out_features,
            use_bias=model.use_bias,
            param_dtype=model.param_dtype,
            rngs=nnx.Rngs(jax.random.key(seed)),
        )
        return nnx.state(layer, nnx.Param)

    different, back = np.unique(drawn_from, return_inverse=True)
    states = jax.jit(jax.vmap(drawn))(jnp.asarray(different))
    return jax.tree.map(
        lambda new, old: jnp.where(has_seed.reshape(-1, *[1] * (old.ndim - 1)), new[back], old), states, own
    )


def _as_seed(seed: object) -> int:
    """Return a seed that JAX takes."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ArgumentError(f"seed must be an integer, or None for the model's own weights, got {seed!r}")
    if not -(2**63) <= int(seed) < 2**63:
        raise ArgumentError(f"seed must be an integer of 64 bits, got {seed!r}")
    return int(seed)
