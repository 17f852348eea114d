"""What a replay is fed: trees of arrays in the dtypes JAX computes in, batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity._errors import PortError
from parity._words import count
from parity.recording.recording import Array, Recording

Parts = tuple[int, ...]
# JAX has 64-bit whole numbers in its 64-bit mode only; a port is given the same kind in both precisions.
_NARROWER = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}


def numbers(tree: Any, dtype: np.dtype[Any]) -> Any:
    """A tree of NumPy arrays: floating ones in ``dtype``, whole numbers in 32 bits, others as they are.

    Raises:
        PortError: a whole number does not fit.
    """
    return jax.tree.map(lambda leaf: _narrowed(leaf, dtype), tree)


def cast(tree: Any, dtype: np.dtype[Any]) -> Any:
    """The same on JAX's default device."""

    def placed(leaf: Any) -> Any:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
        return leaf if is_key else jnp.asarray(_narrowed(leaf, dtype))

    return jax.tree.map(placed, tree)


def _narrowed(leaf: Any, dtype: np.dtype[Any]) -> Array:
    array = np.asarray(leaf)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(dtype, copy=False)
    narrow = _NARROWER.get(array.dtype)
    if narrow is None:
        return array
    limits = np.iinfo(narrow)
    beyond = array[(array < limits.min) | (array > limits.max)]
    if beyond.size:
        raise PortError(
            f"integer overflow: {int(beyond.flat[0])} in the recorded {array.dtype} data does not fit {limits.dtype}, "
            "which JAX computes in. Make it smaller in the program, or give it as a floating number"
        )
    return array.astype(narrow)


@dataclasses.dataclass(frozen=True, eq=False)
class Feed:
    """Batches, and which of them each step is fed.

    Attributes:
        batches: trees ``(inputs, targets)`` of NumPy arrays.
        parts: of each batch, the rows of its backward passes.
        order: shape ``(steps,)``, the batch of each step.
    """

    batches: tuple[Any, ...]
    parts: tuple[Parts, ...]
    order: Array

    @property
    def uniform(self) -> bool:
        """Whether one program can run all steps: batches have the same shapes and the same passes."""
        first = jax.tree.structure(self.batches[0]), _shapes(self.batches[0]), self.parts[0]
        rest = zip(self.batches, self.parts, strict=True)
        return all((jax.tree.structure(batch), _shapes(batch), parts) == first for batch, parts in rest)

    def of_steps(self, steps: Array) -> Feed:
        """For these steps alone, with the batches that they need."""
        places, order = np.unique(self.order[steps], return_inverse=True)
        return Feed(tuple(self.batches[p] for p in places), tuple(self.parts[p] for p in places), order)


def _shapes(batch: Any) -> list[Any]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def recorded(recording: Recording, dtype: np.dtype[Any]) -> Feed:
    """What the recorded steps were fed."""
    batches = tuple(numbers((batch.inputs, batch.targets), dtype) for batch in recording.batches)
    return Feed(batches, tuple(batch.parts for batch in recording.batches), np.asarray(recording.batch_of_step))


def own(given: Sequence[Any], recording: Recording, dtype: np.dtype[Any]) -> Feed:
    """What a port feeds itself that brings batches, one for each step.

    Raises:
        PortError: it has batches for more steps than PyTorch made, or fewer.
    """
    # The same arrays for several steps are one batch.
    place_of: dict[tuple[int, ...], int] = {}
    batches: list[Any] = []
    parts: list[Parts] = []
    order: list[int] = []
    for step, pair in enumerate(_pairs(given, recording.steps)):
        passes = recording.batches[recording.batch_of_step[step]].parts
        key = (*(id(leaf) for leaf in jax.tree.leaves(pair)), *passes)
        if key not in place_of:
            place_of[key] = len(batches)
            batches.append(numbers(pair, dtype))
            count = rows(pair)
            parts.append(passes if count == sum(passes) else (count,))
        order.append(place_of[key])
    return Feed(tuple(batches), tuple(parts), np.array(order))


def _pairs(batches: Sequence[Any], steps: int) -> list[tuple[Any, Any]]:
    given = list(batches)
    if len(given) != steps:
        raise PortError(
            f"the port has batches for {count(len(given), 'step')}, and PyTorch made {steps}. Give one "
            "(inputs, targets) a step; where one is missing in every epoch, the last, smaller batch may be dropped or "
            "kept on one side only"
        )
    for step, pair in enumerate(given):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PortError(f"batch {step} of the port is no pair (inputs, targets), but a {type(pair).__name__}")
    return [(pair[0], pair[1]) for pair in given]


def rows(batch: Any) -> int:
    """The rows of a batch, from its first array that has any."""
    return next((int(np.shape(leaf)[0]) for leaf in jax.tree.leaves(batch) if np.ndim(leaf)), 1)
