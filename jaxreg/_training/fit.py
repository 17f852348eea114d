"""``fit``: check what was asked, choose a plan, run it, say what happened."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxreg import _forked
from jaxreg._arrays import as_array, as_known, as_weights
from jaxreg._calls import UserTerms, check_loss
from jaxreg._errors import ArgumentError
from jaxreg._memory import name_exhausted_memory
from jaxreg._nn.linear import Linear
from jaxreg._nn.linear_params import named
from jaxreg._nn.losses import mse_loss
from jaxreg._plans import batches as _batches
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Data
from jaxreg._precision import full_precision, is_full
from jaxreg._statistics.sufficient import SufficientStatistics
from jaxreg._training import least_squares_gap
from jaxreg._training.plan_choice import choose
from jaxreg._training.result import FitResult, Trace
from jaxreg._types import HostArray, Params, PyTree, RestState
from jaxreg._validation import LARGEST_COUNT
from jaxreg.torch_random import Generator

RECORDABLE = ("gradients", "weights")
# Steps of which everything is kept unless it is said which; a hundred million losses in float32 are 400 MB.
MAX_KEPT_STEPS = 100_000_000
_EMPTY_TRACE = Trace()


@name_exhausted_memory
def fit(
    model: nnx.Module,
    inputs: ArrayLike | SufficientStatistics,
    targets: ArrayLike | None = None,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = mse_loss,
    batch_size: int | None = None,
    shuffle: Generator | jax.Array | None = None,
    drop_last: bool = False,
    global_generator: bool = False,
    plan: str = "auto",
    weights: ArrayLike | None = None,
    record: Collection[str] = (),
    at: ArrayLike | Sequence[int] | None = None,
    precision: str | None = None,
) -> FitResult:
    """Train ``model`` on all rows, ``epochs`` times, as one compiled program.

    It is the loop of the PyTorch tutorials (forward, loss, ``zero_grad``, ``backward``, ``step``) with no Python in it.
    A second call with the same shapes, model structure, optimizer and loss compiles nothing. Inputs and targets are
    converted to the dtype of the model's parameters first, as a PyTorch user would write it.

    There are three plans, one training. *Stepwise* is the loop itself: any module, loss and Optax optimizer, in the
    model's own dtype. For one linear layer in float32 or float64, :func:`mse_loss` and the whole batch, the loop sees
    of the data only a small matrix, which one pass over them gives. *Compressed* takes the steps of any optimizer on
    that matrix, in float64; so it does where epochs take the same batches of float32 rows, without ``shuffle``, each of
    which is then looked at once. *Spectral* has each step of :func:`jaxreg.sgd` at constant settings in closed form: a
    million millions of epochs cost what one costs, and so do the losses of any steps. Their results are those of the
    loop in exact arithmetic, rounded once, and so not bit for bit those of a loop in float32, whose rounding errors
    they do not make. One that diverges is followed step by step from where it overflows.

    With ``batch_size``, a step takes the next batch of ``DataLoader(TensorDataset(inputs, targets), batch_size,
    shuffle=..., drop_last=...)``: the same rows in the same order, epoch after epoch, and a smaller batch at the end
    with the loss of its own rows only.

    Inside ``jax.jit``, ``jax.vmap`` or ``jax.grad``, over data, weights, initial parameters or settings, it is the
    loop: the other plans ask on the way whether numbers overflow, which is not known then.

    Args:
        model: a Flax NNX module, called as ``model(inputs)``. It is not changed.
        inputs: shape ``(rows, ...)``, at least one row; shape ``(rows, in_features)`` for :class:`jaxreg.Linear`. Or
            :class:`SufficientStatistics`, alone.
        targets: whatever shape ``loss`` wants beside the predictions; ``(rows, out_features)`` for a linear layer.
        optimizer: any Optax transformation, :func:`jaxreg.sgd` for PyTorch's. A step hands it ``value``, ``grad`` and
            ``value_fn`` too, for line searches and plateaus, and ``obj_fn`` and ``grad_fn``. With ``optax.lookahead``
            the trained model gets the slow parameters; with ``schedule_free`` it gets those that gradients are taken
            at, as the loop has them.
        epochs: number of passes over all rows; at least 0.
        loss: ``loss(predictions, targets)`` to a scalar.
        batch_size: rows of a step, at least 1; ``None`` for all rows in every step.
        shuffle: what draws the order of the rows, anew each epoch. A :class:`jaxreg.torch_random.Generator` draws what
            PyTorch's ``DataLoader(..., shuffle=True, generator=...)`` would, and is left as PyTorch's would be. A JAX
            key gives epoch ``e``, counted from 0, the order ``jax.random.permutation(jax.random.fold_in(key, e),
            rows)``. ``None`` keeps the order that they have.
        drop_last: leave out a smaller batch at the end; where that is all there is, no step is made, as in PyTorch.
        global_generator: ``False`` if the Generator is the one handed to the loader as ``generator=``; ``True`` if it
            stands for the global one, seeded with ``torch.manual_seed``, which a loader without ``generator=`` draws
            from in another way.
        plan: ``"stepwise"``, ``"compressed"``, ``"spectral"``, or ``"auto"`` for the fastest one that can serve.
        weights: of each row's squared error, shape ``(rows,)``; handed to ``loss`` as ``weights=``, whose mean is then
            the weighted one. Numbers of at least 0, not all of them 0, as far as they are known; NaN spreads.
        record: what to keep of every step: any of ``"gradients"``, ``"weights"``. The losses are always kept.
        at: the steps to keep the loss and the records of, counted from 0; ``None`` for all of them.
        precision: precision of matrix products that name none: JAX's own setting where the user made one, else full
            float32 on every backend.

    Returns:
        A :class:`FitResult`. A training that diverges is no error: its losses show inf and NaN, as PyTorch's would
        (from statistics alone: what float32 makes of numbers that large is not followed).

    Raises:
        ArgumentError: an argument that cannot be used, or a plan that cannot serve; the message says why.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import jaxreg
        >>> x = jnp.linspace(-1, 1, 20).reshape(-1, 1)
        >>> model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd(0.1), epochs=500)
        >>> print(f"{result.model.kernel[0, 0]:.3f} {result.model.bias[0]:.3f}")
        2.000 1.000
        >>> result.steps, result.plan
        (500, 'spectral')

        As many epochs as one likes, and the losses of some of them:

        >>> result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd(1e-9), epochs=10**12, at=[0, 10**9])
        >>> [f"{loss:.4f}" for loss in result.losses]
        ['4.5793', '0.2182']

        In batches, in the order of PyTorch's ``DataLoader(..., batch_size=8, shuffle=True)`` after
        ``torch.manual_seed(0)``:

        >>> generator = jaxreg.torch_random.Generator(0)
        >>> result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd(0.1), epochs=100, batch_size=8,
        ...                     shuffle=generator, global_generator=True)
        >>> result.steps, result.losses.shape
        (300, (300,))

    Source: `torch/utils/data/dataloader.py` and `sampler.py`, ``RandomSampler`` and ``BatchSampler``.
    """
    _check_choices(record, epochs, optimizer)
    check_model(model)
    source, rows = as_source(inputs, targets, weights)
    check_loss(loss, has_weights=weights is not None)
    batches = _batches.check(rows, batch_size, shuffle, drop_last, global_generator)
    steps = int(epochs) * batches.steps
    request = Request(
        model=model,
        source=source,
        optimizer=optimizer,
        loss=loss,
        epochs=int(epochs),
        batches=batches,
        record=frozenset(record),
        at=as_steps(at, steps),
        lowered=not is_full(precision),
    )
    chosen = choose(plan, request)
    request.check_memory(keeps_every_step=chosen.keeps_every_step)
    with full_precision(precision), UserTerms(targets):
        outcome = chosen.run(request)
    trace = Trace(_plain_tree(outcome.gradients), _plain_tree(outcome.weights)) if record else _EMPTY_TRACE
    trained = functools.partial(_with, _shell(model), outcome.params, outcome.rest)
    watch = least_squares_gap.watch(request, outcome)
    return FitResult(trained, outcome.losses, trace, chosen.name, steps, request.at, watch)


def _plain_tree(kept: PyTree) -> PyTree:
    return nnx.to_pure_dict(kept) if isinstance(kept, nnx.State) else kept


def _shell(model: nnx.Module) -> nnx.Module:
    """Return a shallow copy, which keeps the model's attributes as they are now."""
    if type(model) not in (Linear, nnx.Linear):
        return copy.copy(model)
    # What copy.copy does, in a tenth of its time.
    made = object.__new__(type(model))
    made.__dict__.update(model.__dict__)
    return made


def _with(model: nnx.Module, params: Params, rest: RestState) -> nnx.Module:
    """Return a model like this one, of its parameters in the order of their names and the rest of its state."""
    if _is_plain_layer(model):
        return _layer_with(model, params)
    graph, old, untouched = nnx.split(model, nnx.Param, ...)
    params = jax.tree.unflatten(jax.tree.structure(old), jax.tree.leaves(params))
    return nnx.merge(graph, params, untouched if rest is None else rest)


# Attributes of layers that were looked at and hold no other state: to look takes four times as long as all the rest.
_PLAIN_ATTRIBUTES: set[tuple[str, ...]] = set()


def _is_plain_layer(model: nnx.Module) -> bool:
    """Return whether kernel and bias are all the state there is, in variables that hold arrays and nothing else."""
    if type(model) not in (Linear, nnx.Linear):
        return False
    attributes = tuple(model.__dict__)
    if attributes not in _PLAIN_ATTRIBUTES:
        nodes = model.__dict__.get("_pytree__nodes", {})
        if {name for name, is_node in nodes.items() if is_node} != {"_pytree__state", "kernel", "bias"}:
            return False
        _PLAIN_ATTRIBUTES.add(attributes)
    return all(
        type(variable) is nnx.Param and not variable.get_metadata().get("ref")
        for variable in (model.kernel, model.bias)
        if variable is not None
    )


def _layer_with(model: nnx.Module, params: Params) -> nnx.Module:
    """Return what ``nnx.merge`` makes of a layer's parts, in a tenth of the time."""
    made = _shell(model)
    held = made.__dict__
    held["_pytree__state"] = type(held["_pytree__state"])()
    for name, value in named(params).items():
        held[name] = nnx.Param.from_metadata(value, held[name].get_metadata())
    return made


def _check_choices(record: object, epochs: object, optimizer: object) -> None:
    is_known = (
        isinstance(record, Collection)
        and not isinstance(record, str | jax.Array | np.ndarray)
        and all(item in RECORDABLE for item in record)
    )
    if not is_known:
        raise ArgumentError(f'record must be a collection of any of {RECORDABLE}, such as ("weights",), got {record!r}')
    check_epochs(epochs)
    check_optimizer(optimizer)


def check_optimizer(optimizer: object) -> None:
    """Refuse what is no Optax transformation."""
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise ArgumentError(
            f"optimizer must be an Optax transformation such as jaxreg.sgd(0.01), got {type(optimizer).__name__}"
        )
    if type(optimizer).__hash__ is None:
        raise ArgumentError(
            "optimizer must have a hash, by which a second call finds the program compiled, and "
            f"{type(optimizer).__name__} has none; keep the hash of object, as a dataclass does with eq=False"
        )


def check_epochs(epochs: object) -> None:
    """Refuse what is not a number of passes over the data."""
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 0:
        raise ArgumentError(f"epochs must be an integer of at least 0, got {epochs!r}")
    if epochs > LARGEST_COUNT:
        raise ArgumentError(f"epochs must be at most {LARGEST_COUNT:,}, up to which float64 counts, got {epochs:,}")


def check_model(model: object) -> None:
    """Refuse what is no module, or has nothing to train."""
    _forked.check()
    if not isinstance(model, nnx.Module):
        raise ArgumentError(f"model must be a flax.nnx.Module such as jaxreg.Linear, got {type(model).__name__}")
    if type(model) not in (Linear, nnx.Linear) and not jax.tree.leaves(nnx.state(model, nnx.Param)):
        raise ArgumentError(f"model has no parameters to train: {type(model).__name__} holds no flax.nnx.Param")


def as_source(inputs: object, targets: object, weights: object) -> tuple[Data | SufficientStatistics, int]:
    """Return the data or the statistics that stand for them, and the number of rows."""
    if isinstance(inputs, SufficientStatistics):
        if targets is not None or weights is not None:
            raise ArgumentError("statistics stand for inputs, targets and weights; give them alone")
        return inputs, inputs.rows
    if targets is None:
        raise ArgumentError("targets are missing; only jaxreg.SufficientStatistics stand for inputs and targets")
    data = Data(
        as_array("inputs", inputs),
        as_array("targets", targets),
        None if weights is None else as_weights(weights),
    )
    given = [leaf for leaf in data if leaf is not None]
    if any(leaf.ndim == 0 for leaf in given):
        name = next(name for name, leaf in data._asdict().items() if leaf is not None and leaf.ndim == 0)
        raise ArgumentError(f"{name} must have a leading axis of rows, got a scalar")
    rows = [leaf.shape[0] for leaf in given]
    if len(set(rows)) > 1:
        names = " and ".join(name for name, leaf in data._asdict().items() if leaf is not None)
        raise ArgumentError(f"{names} must have the same number of rows, got {' and '.join(map(str, rows))}")
    if rows[0] == 0:
        raise ArgumentError("inputs and targets have no rows; a mean over nothing is NaN")
    if data.targets.size == 0:
        raise ArgumentError(f"targets of shape {data.targets.shape} hold no numbers; a mean over nothing is NaN")
    return data, rows[0]


def as_steps(at: object, steps: int) -> HostArray | None:
    """Return the steps to keep something of, in the order asked for."""
    if at is None:
        if steps > MAX_KEPT_STEPS:
            raise ArgumentError(
                f"losses of {steps:,} steps are too many to keep; say which with at=, such as "
                "at=np.geomspace(1, steps, 100).astype(int) - 1"
            )
        return None
    asked = np.asarray(as_array("at", as_known("at", at)))
    if asked.ndim != 1 or not (asked.size == 0 or np.issubdtype(asked.dtype, np.integer)):
        raise ArgumentError(f"at must be a sequence of step numbers, got {at!r}")
    if asked.size and not (asked.min() >= 0 and asked.max() < steps):
        raise ArgumentError(f"at must hold steps from 0 to {steps - 1:,}, got {asked.min():,} to {asked.max():,}")
    return asked.astype(np.int64)
