"""What figures are relative to: a tensor's largest element over all steps, where it is more than rounding.

A tensor that no element of which its own rounding bound tells from zero, such as the gradient of a bias before a
BatchNorm, is zero to rounding. Nothing is relative to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.recording.recording import Array

# What underflow may take from a float64 number: XLA sets to zero what is below the smallest normal number, PyTorch does
# not, and bounds, which XLA works out in float64, cannot see it. As many of the smallest normal number as there are
# units in a last place: what is larger is accurate to its own (J. Demmel, SIAM J. Sci. Stat. Comput. 5, 1984).
UNDERFLOW = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)


def distance(a: Array, b: Array) -> Array:
    """Return element-wise distances in float64: inf where one of two is not finite, NaN where neither is."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(np.isfinite(a) != np.isfinite(b), np.inf, np.abs(a - b))


def largest(values: Array) -> float:
    """Return the largest of the distances that are not NaN; 0 where there is none."""
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else 0.0


def is_zero(values: Array, bound: Array) -> bool:
    """Whether a bound tells no element from zero. An infinite bound tells nothing, and allows only zero itself."""
    with np.errstate(invalid="ignore"):
        return bool((np.abs(values) <= np.where(np.isfinite(bound), bound, 0.0) + UNDERFLOW).all())


def size(exact: Array, bound: Array) -> float | None:
    """Return the largest finite element; ``None`` where there is none, or where all is zero to rounding."""
    if is_zero(exact, bound):
        return None
    return float(np.abs(exact).max(initial=0.0, where=np.isfinite(exact))) or None


def to(size: float | None, error: float, exact: Array, bound: Array) -> float | None:
    """Return the size that a run's error is relative to; ``None`` where the run has no digit of the tensor.

    So it is where the run's own bound allows zero everywhere, and zero would be as near as what the run has. The bound
    alone does not decide: in a deep model it may be wide, and the run still accurate.
    """
    if size is None or (error >= size and is_zero(exact, bound)):
        return None
    return size


def ratio(value: float, size: float | None) -> float | None:
    """Return a distance in units of ``size``; ``None`` where there is nothing to be relative to."""
    return None if size is None else value / size


def spacing(size: float, dtype: np.dtype[Any]) -> float:
    """Return one unit in the last place of a number of this size, in ``dtype``."""
    info = np.finfo(dtype)
    # NumPy's own spacing of the largest numbers is infinite, with a warning: the next one is not there.
    _, exponent = np.frexp(float(np.asarray(min(size, float(info.max)), dtype)))
    return max(float(np.ldexp(float(info.eps), int(exponent) - 1)), float(info.smallest_subnormal))


def ulps(distance: float, size: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return a distance in units in the last place of ``size``; ``None`` where there is nothing to be relative to."""
    return None if size is None else distance / spacing(size, dtype)
