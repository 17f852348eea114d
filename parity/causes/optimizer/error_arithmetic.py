"""Numbers that know how far rounding may have moved them, to first order: (value, error in units of rounding)."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.recording.recording import Array

# Two computations are compared, each of which rounds; and the other may do the same operations in another order.
_COMPARED = 4.0
UNIT = 2.0**-53


class Rounded:
    """Arrays of values, and of the errors that their float64 computation may have, in units of 2^-53."""

    __array_priority__ = 1000

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        self.value: Array = np.asarray(value, np.float64)
        self.error: Array = np.asarray(error, np.float64)

    @property
    def slack(self) -> Array:
        """How far another float64 computation of the same formula may be from this one."""
        return np.asarray(_COMPARED * UNIT * self.error)

    def __neg__(self) -> Rounded:
        return Rounded(-self.value, self.error)

    def __add__(self, other: Any) -> Rounded:
        a, b = self, of(other)
        value = a.value + b.value
        return Rounded(value, a.error + b.error + abs(value))

    def __sub__(self, other: Any) -> Rounded:
        return self + (-of(other))

    def __mul__(self, other: Any) -> Rounded:
        a, b = self, of(other)
        value = a.value * b.value
        return Rounded(value, a.error * abs(b.value) + abs(a.value) * b.error + abs(value))

    def __truediv__(self, other: Any) -> Rounded:
        a, b = self, of(other)
        value = a.value / b.value
        return Rounded(value, (a.error + abs(value) * b.error) / abs(b.value) + abs(value))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Rounded:
        return of(other) - self

    def __rtruediv__(self, other: Any) -> Rounded:
        return of(other) / self

    def sqrt(self) -> Rounded:
        """The square root."""
        value = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            # At zero the derivative is infinite, and the root of the error is the error.
            carried = np.where(value > 0, self.error / (2 * value), np.sqrt(self.error / UNIT))
        return Rounded(value, carried + value)

    def where(self, condition: Any, other: Any) -> Rounded:
        """This where ``condition``, else ``other``."""
        b = of(other)
        return Rounded(np.where(condition, self.value, b.value), np.where(condition, self.error, b.error))

    def maximum(self, other: Rounded) -> Rounded:
        """The larger, element by element."""
        return Rounded(np.maximum(self.value, other.value), np.maximum(self.error, other.error))


def of(number: Any) -> Rounded:
    """An exact number, or one that knows its error."""
    return number if isinstance(number, Rounded) else Rounded(number)


def power(base: Any, exponent: int) -> Rounded:
    """A power, whose own function is good to a few units."""
    value = np.asarray(base, np.float64) ** exponent
    return Rounded(value, (4.0 + exponent) * abs(value))
