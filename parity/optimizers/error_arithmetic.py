"""Numbers that know how far rounding may have moved them, to first order: (value, error in units of rounding)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from parity._types import Array
from parity.optimizers.arithmetic import Arithmetic, Mask

# Two computations are compared, each of which rounds; and the other may do the same operations in another order.
_COMPARED_FACTOR = 4.0
UNIT_ROUNDOFF = 2.0**-53


class Rounded:
    """Arrays of values, and of the errors that their float64 computation may have, in units of 2^-53."""

    # NumPy leaves operations with its arrays to this class.
    __array_ufunc__ = None

    def __init__(self, value: float | Array, error: float | Array = 0.0) -> None:
        self.value: Array = np.asarray(value, np.float64)
        self.error: Array = np.asarray(error, np.float64)

    @property
    def slack(self) -> Array:
        """Return how far another float64 computation of the same formula may be from this one."""
        return np.asarray(_COMPARED_FACTOR * UNIT_ROUNDOFF * self.error)

    def with_slack(self, more: float | Array) -> Rounded:
        """Return the same, which another computation may be further from by so much."""
        return Rounded(self.value, self.error + np.asarray(more) / (_COMPARED_FACTOR * UNIT_ROUNDOFF))

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __add__(self, other: Number) -> Rounded:
        a, b = self, of(other)
        value = a.value + b.value
        return Rounded(value, a.error + b.error + abs(value))

    def __sub__(self, other: Number) -> Rounded:
        return self + (-of(other))

    def __mul__(self, other: Number) -> Rounded:
        a, b = self, of(other)
        value = a.value * b.value
        return Rounded(value, a.error * abs(b.value) + abs(a.value) * b.error + abs(value))

    def __truediv__(self, other: Number) -> Rounded:
        a, b = self, of(other)
        value = a.value / b.value
        return Rounded(value, (a.error + abs(value) * b.error) / abs(b.value) + abs(value))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Number) -> Rounded:
        return of(other) - self

    def __rtruediv__(self, other: Number) -> Rounded:
        return of(other) / self

    def __gt__(self, other: float) -> Array:
        return self.value > other

    def sqrt(self) -> Rounded:
        """Return the square root."""
        value = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            # At zero the derivative is infinite, and the root of the error is the error.
            carried = np.where(value > 0, self.error / (2 * value), np.sqrt(self.error / UNIT_ROUNDOFF))
        return Rounded(value, carried + value)

    def where(self, condition: Mask, other: Number) -> Rounded:
        """Return this where ``condition``, else ``other``."""
        b = of(other)
        return Rounded(np.where(condition, self.value, b.value), np.where(condition, self.error, b.error))

    def maximum(self, other: Rounded) -> Rounded:
        """Return the larger, element by element."""
        return Rounded(np.maximum(self.value, other.value), np.maximum(self.error, other.error))


Number: TypeAlias = float | Array | Rounded


def of(number: Number) -> Rounded:
    """Return a number as one that knows its error; a plain one is exact."""
    return number if isinstance(number, Rounded) else Rounded(number)


# A power by the C library is good to two units; one worked out in another way, to about as many as its exponent.
_POWER_UNITS, _OTHER_POWER_UNITS = 2.0, 4.0


def python_power(base: float | Array, exponent: int | Array) -> Rounded:
    """Return a power as Python computes it."""
    value = np.asarray(base, np.float64) ** exponent
    return Rounded(value, _POWER_UNITS * abs(value))


def power(base: float | Array, exponent: int | Array) -> Rounded:
    """Return a power, in whatever way the other side computes it."""
    value = np.asarray(base, np.float64) ** exponent
    return Rounded(value, (_OTHER_POWER_UNITS + exponent) * abs(value))


def _lerp(start: Rounded, end: Rounded, weight: float | Array) -> Rounded:
    # The form whose error does not grow from step to step; the error of PyTorch's form is within what slack allows.
    return (1 - of(weight)) * start + of(weight) * end


WITH_ERRORS: Arithmetic[Rounded] = Arithmetic(
    Rounded.sqrt, Rounded.maximum, lambda mask, first, second: first.where(mask, second), _lerp
)
