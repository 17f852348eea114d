"""Where one side loses accuracy that the other keeps, though each is within its own worst case.

A bound is derived from the port's own operations, and an unstable one among them has a wide bound: a variance taken as
``mean(x**2) - mean(x)**2`` far from zero may be off by more than its value. The other side is the witness that float32
can do better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from parity.recording.recording import Array

# The chance at which independent roundings, as large as the other side's, are as far off (Higham and Mary, 2019).
_FAILURE_PROBABILITY = 1e-9


class Loss(NamedTuple):
    """What a side lost: root mean squares of both sides' errors, relative to the tensor's largest element."""

    side: str
    own: float
    other: float
    row: int


def find(
    torch: Array, jax: Array, exact: Array, size: float, dtype: np.dtype[np.floating], *, by_row: bool = False
) -> Loss | None:
    """Find the side that lost half of its digits where the other's errors are far smaller; else ``None``.

    Args:
        torch, jax: a tensor's values on both sides, a row a step or a part of one.
        exact: the float64 values.
        size: the tensor's largest element.
        dtype: of both sides.
        by_row: whether the errors of a row are likely to be one error, as a gradient's are, which all follow from the
            loss's. They are one witness then.
    """
    finite = np.isfinite(torch) & np.isfinite(jax) & np.isfinite(exact)
    count = int(finite.sum())
    witnesses = int(finite.any(1).sum()) if by_row else count
    if not witnesses:
        return None
    sides = {"torch": torch, "jax": jax}
    errors = {
        side: np.subtract(values, exact, out=np.zeros(exact.shape), where=finite) / size
        for side, values in sides.items()
    }
    own = {side: math.sqrt(float((error**2).sum()) / count) for side, error in errors.items()}
    half = math.sqrt(float(np.finfo(dtype).eps))
    level = _level(witnesses)
    for side, other in (("jax", "torch"), ("torch", "jax")):
        # Errors of rounding are of the unit's size at least, however lucky a side was.
        least = float(np.finfo(dtype).eps) / 2
        if own[side] > half and own[side] > level * max(own[other], least):
            row = int(np.flatnonzero((np.abs(errors[side]) > half).any(1))[0])
            return Loss(side, own[side], own[other], row)
    return None


def _level(count: int) -> float:
    """Return the ratio of two sides' root mean square errors that chance alone hardly ever exceeds.

    The ratio of the squares has the F distribution; and one error of all may exceed their deviation so many times.
    """
    by_chance = 1 / float(special.fdtri(count, count, _FAILURE_PROBABILITY))
    return max(math.sqrt(by_chance), math.sqrt(2 * math.log(2 * count / _FAILURE_PROBABILITY)))


def describe(loss: Loss) -> str:
    """Describe the loss in words."""
    name, other = ("JAX", "PyTorch") if loss.side == "jax" else ("PyTorch", "JAX")
    return (
        f"Loss of accuracy: {name}'s errors are {loss.own:.2g} of the tensor's largest element, {other}'s are "
        f"{loss.other:.2g}. The float64 runs agree, so both are the same program. But {name}'s operations magnify "
        "rounding. Look for the difference of two nearly equal numbers, such as a variance taken as "
        "mean(x²) − mean(x)²."
    )
