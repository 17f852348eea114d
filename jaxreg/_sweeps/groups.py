"""``fit_groups``: one small regression for each group of rows, all of them one compiled program."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxreg._arrays import as_array, as_known, as_weights
from jaxreg._calls import UserTerms, check_loss
from jaxreg._errors import ArgumentError
from jaxreg._memory import name_exhausted_memory
from jaxreg._nn.losses import mse_loss
from jaxreg._plans.batches import Batches
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Data
from jaxreg._precision import full_precision, is_full
from jaxreg._sweeps import run
from jaxreg._sweeps.groups_result import GroupsResult
from jaxreg._sweeps.vectorized import repeat
from jaxreg._traced import is_tracer
from jaxreg._training import plan_choice
from jaxreg._training.fit import as_steps, check_epochs, check_model, check_optimizer
from jaxreg._types import AnyArray, HostArray, Optimizer

# How much larger than the groups' own rows what is laid out for them may be, before they are parted by size.
_MAX_PADDED_SHARE = 2.0


@dataclasses.dataclass(frozen=True)
class _Same:
    """Makes an optimizer that is there already."""

    optimizer: Optimizer

    def __call__(self) -> Optimizer:
        return self.optimizer


@name_exhausted_memory
def fit_groups(
    model: nnx.Module,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    groups: ArrayLike | Sequence[object] | None = None,
    loss: Callable[..., jax.Array] = mse_loss,
    weights: ArrayLike | None = None,
    at: ArrayLike | Sequence[int] | None = None,
    plan: str = "auto",
    precision: str | None = None,
) -> GroupsResult:
    """Train a model of its own on each group of rows (per shop, per gene), all of them at once.

    Each training is the one that :func:`jaxreg.fit` makes of the group's rows alone, from the weights of ``model``.
    Groups may be of any sizes: shorter ones are filled up with rows of weight 0, and where that would take much more
    room than the rows themselves, groups of like size make a program each. Where there are several devices and their
    number divides that of the groups, each takes its share of them.

    Args:
        model: as for :func:`jaxreg.fit`.
        inputs: shape ``(groups, rows, ...)``; or with ``groups``, shape ``(rows, ...)``.
        targets: the same, ``(groups, rows, out_features)`` or ``(rows, out_features)``.
        optimizer: as for :func:`jaxreg.fit`.
        epochs: steps of each training; at least 0.
        groups: each row's group, any labels that NumPy can sort, such as names or numbers.
        loss: ``loss(predictions, targets, weights=...)`` to a scalar.
        weights: of each row's squared error, of the shape of the rows.
        at: the steps to keep the losses of, counted from 0; ``None`` for the last one.
        plan: as for :func:`jaxreg.fit`.
        precision: as for :func:`jaxreg.fit`.

    Returns:
        A :class:`GroupsResult`, which prints as a table.

    Raises:
        ArgumentError: an argument that cannot be used, or a plan that cannot serve; the message says why.

    Example:
        >>> import numpy as np
        >>> from flax import nnx
        >>> import jaxreg
        >>> x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(-1, 1)
        >>> shop = np.array(["east", "west", "east"] * 4)
        >>> y = np.where(shop[:, None] == "east", 2 * x, 1 - x)
        >>> model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> result = jaxreg.fit_groups(model, x, y, groups=shop, optimizer=jaxreg.sgd(0.1), epochs=30)
        >>> result
        GroupsResult(2 groups, 30 steps, plan 'spectral')
        group  rows        loss
         east     8  5.2267e-03
         west     4  1.1936e-02
        >>> print(f"{result.model('west').kernel[0, 0]:.2f}")
        -0.83
    """
    check_model(model)
    check_epochs(epochs)
    check_optimizer(optimizer)
    labels, sizes, parts = _parted(inputs, targets, weights, groups)
    asked = as_steps([epochs - 1][: int(epochs)] if at is None else at, int(epochs))
    results: list[run.SweepOutcome] = []
    name = plan
    for members, data in parts:
        check_loss(loss, has_weights=data.weights is not None)
        first = Data(data.inputs[0], data.targets[0], None if data.weights is None else data.weights[0])
        request = Request(
            model=model,
            source=first,
            optimizer=optimizer,
            loss=loss,
            epochs=int(epochs),
            batches=Batches.full(len(first.inputs)),
            record=frozenset(),
            at=asked,
            lowered=not is_full(precision),
        )
        # One plan for all groups: the one that the first of them takes.
        chosen = plan_choice.choose(name, request, run.RUNNERS)
        name = chosen.name
        request = dataclasses.replace(request, trainings=len(members))
        request.check_memory(keeps_every_step=chosen.keeps_every_step)
        spec = run.SweepSpec(
            settings=[{}] * len(members),
            make=_Same(optimizer),
            starts=repeat(request.split[1], len(members)),
            which=np.arange(len(members), dtype=np.int32),
            choices=[],
            groups=data,
        )
        with full_precision(precision), UserTerms(targets):
            results.append(run.run(name, request, spec))
    order = np.argsort(np.concatenate([members for members, _ in parts]))
    params, rest, losses = jax.tree.map(lambda *leaves: _joined(leaves, order), *results)
    return GroupsResult(labels, sizes, losses, params, name, int(epochs), asked, copy.copy(model), rest)


def _joined(leaves: Sequence[AnyArray], order: HostArray) -> AnyArray:
    """Return the leaves of all parts, in the order of the groups."""
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)[order]


def _parted(
    inputs: object, targets: object, weights: object, groups: object
) -> tuple[HostArray, HostArray, list[tuple[HostArray, Data]]]:
    """Return labels, sizes, and the groups' rows side by side, in as many parts as the sizes ask for."""
    given = {"inputs": inputs, "targets": targets, **({} if weights is None else {"weights": weights})}
    arrays = {name: as_weights(x) if name == "weights" else as_array(name, x) for name, x in given.items()}
    axes = 1 if groups is not None else 2
    for name, array in arrays.items():
        if array.ndim < axes + (name != "weights") or array.shape[:axes] != arrays["inputs"].shape[:axes]:
            wanted = "(rows, ...), one group a row" if axes == 1 else "(groups, rows, ...)"
            shapes = ", ".join(f"{n} {tuple(a.shape)}" for n, a in arrays.items())
            raise ArgumentError(f"inputs and targets must have shape {wanted} and as many rows, got {shapes}")
    if 0 in arrays["inputs"].shape[:axes]:
        raise ArgumentError(f"there are no rows to train on: inputs have shape {tuple(arrays['inputs'].shape)}")
    if groups is None:
        count, rows = arrays["inputs"].shape[:2]
        data = Data(arrays["inputs"], arrays["targets"], arrays.get("weights"))
        return np.arange(count), np.full(count, rows), [(np.arange(count), data)]
    of_row = _labels_of(groups)
    if of_row.shape != arrays["inputs"].shape[:1]:
        raise ArgumentError(f"groups must hold one label a row, {arrays['inputs'].shape[0]}, got shape {of_row.shape}")
    labels, number, sizes = np.unique(of_row, return_inverse=True, return_counts=True)
    if not any(map(is_tracer, arrays.values())):
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
    return labels, sizes, list(_padded(arrays, number, sizes))


def _labels_of(groups: object) -> HostArray:
    """Return each row's label, of a kind that can be sorted."""
    labels = as_known("groups", groups)
    if isinstance(labels, jax.Array) and jnp.issubdtype(labels.dtype, jax.dtypes.prng_key):
        raise ArgumentError("groups must hold labels, got an array of keys")
    labels = np.asarray(labels)
    masked = np.ma.getmaskarray(groups) if isinstance(groups, np.ma.MaskedArray) else False
    missing = np.flatnonzero(_is_missing(labels) | masked)
    if missing.size:
        raise ArgumentError(f"groups have a missing label at row {missing[0]}; name it, or leave the row out")
    if labels.dtype.kind != "O":
        return labels
    kinds = sorted({type(label).__name__ for label in labels.ravel().tolist()})
    if len(kinds) > 1 and set(kinds) - {"int", "float", "bool"}:
        raise ArgumentError(f"groups must hold labels of one kind, which can be sorted, got {' and '.join(kinds)}")
    return labels


def _is_missing(labels: HostArray) -> HostArray:
    if labels.dtype.kind in "fcMm":
        return np.isnan(labels) if labels.dtype.kind in "fc" else np.isnat(labels)
    if labels.dtype.kind != "O":
        return np.zeros(labels.shape, bool)
    names = ("NoneType", "NAType", "NaTType")
    lost = [type(x).__name__ in names or (isinstance(x, float) and x != x) for x in labels.ravel().tolist()]
    return np.reshape(lost, labels.shape)


def _padded(arrays: dict[str, AnyArray], number: HostArray, sizes: HostArray) -> Iterator[tuple[HostArray, Data]]:
    """Yield groups of like size, their rows side by side and filled up with rows of weight 0."""
    longest = np.full(len(sizes), sizes.max())
    if longest.sum() > _MAX_PADDED_SHARE * sizes.sum():
        longest = 2 ** np.ceil(np.log2(sizes)).astype(np.int64)
    order = np.argsort(number, kind="stable")
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for length in np.unique(longest):
        members = np.flatnonzero(longest == length)
        places = np.arange(length)[None]
        filled = places < sizes[members][:, None]
        rows = order[np.where(filled, first[members][:, None] + places, 0)]
        inputs, targets = (_blank(arrays[name][rows], filled) for name in ("inputs", "targets"))
        weights = np.ones(rows.shape, np.float32) if "weights" not in arrays else arrays["weights"][rows]
        plain = bool(filled.all()) and "weights" not in arrays
        yield members, Data(inputs, targets, None if plain else _blank(weights, filled))


def _blank(rows: AnyArray, filled: HostArray) -> AnyArray:
    """Return the rows, zero where there are none."""
    where: Callable[..., AnyArray] = np.where if isinstance(rows, np.ndarray) else jnp.where
    return where(filled.reshape(*filled.shape, *[1] * (rows.ndim - 2)), rows, rows.dtype.type(0)).astype(rows.dtype)
