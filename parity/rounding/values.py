"""What the walk carries: a value, what rounding can do to it, and what every rule needs to say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import ArrayLike, DTypeLike, Scalar
from parity.rounding.formats import Format, gamma, likely_gamma, widest
from parity.rounding.jaxprs import ClosedJaxpr, Equation, Jaxpr, dtype_of

# Traced or not. Numbers from the program's text stay NumPy's, so that their values are known: see known_number.
Array: TypeAlias = jax.Array
# Twice the unit roundoff of the float64 in which bounds are worked out.
_OWN_RELATIVE_ERROR = 2.0**-52
_FLOAT64_LIMITS = np.finfo(np.float64)
# Normal in every format.
_LEAST_NORMAL_NUMBER = 1e-4


def floating(dtype: DTypeLike) -> bool:
    """Return whether values of a dtype are rounded; keys of random generators are not numbers at all."""
    return bool(jnp.issubdtype(dtype, np.floating))


class Value:
    """The exact value (float64 if floating) and how far the computed one may be from it.

    Attributes:
        value: the exact value.
        error: same shape, float64; for integers and bools 0 or infinity. None: exactly the value.
        origin: how the value came about, where a rule needs to know.
    """

    __slots__ = ("_floor", "error", "origin", "value")

    def __init__(
        self,
        value: Array,
        error: Array | None = None,
        floor: Callable[[], Array] | Array | None = None,
        origin: Any = None,
    ) -> None:
        self.value = value
        self.error = error
        self.origin = origin
        self._floor = floor

    @property
    def floating(self) -> bool:
        return floating(self.value.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def has_floor(self) -> bool:
        return self._floor is not None

    def uncertain(self) -> Array:
        """Return where an integer or a bool could be another."""
        return jnp.zeros(self.shape, bool) if self.error is None else self.error > 0

    def floor(self) -> Array:
        """Return what the computed value cannot be below, whatever the rounding: squares stay non-negative, say."""
        least = self.value if self.error is None else self.value - self.error
        if self._floor is None:
            return least
        # Worked out only where a root, a logarithm or a division asks.
        known: Array = self._floor() if callable(self._floor) else self._floor
        self._floor = known
        return jnp.maximum(jnp.where(jnp.isnan(least), -jnp.inf, least), known)


@dataclasses.dataclass(frozen=True)
class Context:
    """The format and the choices a bound is taken with; with a seed, errors are not carried but drawn and added."""

    format: Format
    narrow: bool
    probabilistic: Any
    walk: Callable[[Context, Any, Sequence[Value], Sequence[Value]], list[Value]]
    seed: Any = None

    def at(self, dtype: DTypeLike) -> Format:
        """Return the format in which results of a dtype are rounded: a program may narrow by itself."""
        if not self.narrow or not floating(dtype) or np.dtype(dtype).itemsize == 8:
            return self.format
        return widest(self.format, dtype)

    def format_of(self, eqn: Equation) -> Format:
        """Return the format in which an equation's first result is rounded."""
        return self.at(dtype_of(eqn.outvars[0]))

    def gamma(self, count: Scalar, form: Format, terms: Scalar | None = None) -> Scalar:
        """Return what ``count`` roundings can do, relative, or what they do but for one chance in 1e9."""
        if self.seed is not None:
            # The root mean square of as many independent roundings, each of a partial sum as large as all terms.
            return jnp.sqrt(jnp.asarray(count, np.float64)) * form.unit
        if self.probabilistic is False:
            return gamma(count, form.unit)
        likely = likely_gamma(count, form.unit, count if terms is None else terms)
        return jnp.where(self.probabilistic, likely, gamma(count, form.unit))

    def error(self, x: Value, form: Format | None = None) -> Array:
        """Return the error as an array; an exact number too small to be normal may be taken for zero."""
        if x.error is not None:
            return x.error
        form = form or self.format
        number = known_number(x.value)
        if number is not None and not 0 < abs(number) < _LEAST_NORMAL_NUMBER:
            return jnp.zeros(x.shape)
        size = jnp.abs(x.value)
        return jnp.where(size < form.tiny, size, 0.0)

    def constant(self, given: ArrayLike, dtype: DTypeLike) -> Value:
        """Return a number from the program's text, which the format may not hold exactly."""
        if not floating(dtype):
            return Value(cast(Array, given if hasattr(given, "shape") else np.asarray(given, dtype)))
        if isinstance(given, (np.ndarray, np.generic, float, int)):
            given = np.asarray(given, np.float64)
            if _plain(given):
                return Value(cast(Array, given))
        value = lax.convert_element_type(given, np.float64)
        form = self.at(dtype)
        # A program that asks for its dtype's largest number, or a part of it, means the format's.
        huge = jnp.isfinite(value) & (jnp.abs(value) > 1e300)
        value = jnp.where(huge & (form.largest < 1e300), value / _FLOAT64_LIMITS.max * form.largest, value)
        off = jnp.abs(representable(value, form) - value)
        # Likewise for its dtype's epsilon and smallest number, where either meaning must be covered.
        off = jnp.where(
            jnp.abs(value) == _FLOAT64_LIMITS.eps, jnp.maximum(off, 2 * form.unit - _FLOAT64_LIMITS.eps), off
        )
        off = jnp.where(jnp.abs(value) == _FLOAT64_LIMITS.tiny, jnp.maximum(off, form.tiny), off)
        return Value(value, jnp.where(jnp.isnan(off), 0.0, off))

    def constants(self, jaxpr: Jaxpr | ClosedJaxpr) -> list[Value]:
        """Return the arrays that a closed jaxpr brings along."""
        if not isinstance(jaxpr, ClosedJaxpr):
            return []
        return [self.constant(c, dtype_of(v)) for c, v in zip(jaxpr.consts, jaxpr.jaxpr.constvars, strict=True)]

    def flags(self, inputs: Sequence[Value], shape: tuple[int, ...]) -> Array | None:
        """Return where a result that is no floating number could be another."""
        return union([x.error for x in inputs], shape)

    def drawn(self, x: Value) -> Value:
        """Return a result off by all of its error, up or down as the bits of the number and the seed will have it."""
        if x.error is None or not x.floating:
            return Value(x.value, origin=x.origin)
        bits = lax.bitcast_convert_type(jnp.asarray(x.value, np.float64), np.uint64)
        # Equal numbers are rounded alike, as they are in a machine (the finalizer of MurmurHash3).
        bits = (bits ^ self.seed ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        sign = jnp.where(bits >> np.uint64(63) == 0, -1.0, 1.0)
        off = jnp.where(jnp.isfinite(x.error), x.error, 0.0)
        return Value(x.value + sign * off, origin=x.origin)

    def reported(self, x: Value) -> Array:
        """Return the bound as it is handed out: an exact number may still have to be held by the format."""
        if x.floating:
            return self.error(x)
        return jnp.where(x.uncertain(), jnp.inf, 0.0) if hasattr(x.value, "shape") else jnp.zeros(())

    def finish(self, value: Array, carried: Array, own: Array, form: Format, certain: Array | None = None) -> Array:
        """Return the error of a result: what is carried, what is new, infinity where it may overflow or is no number.

        ``certain`` says where an infinite value is infinite whatever the rounding. One divided by zero is not: zeros
        lose their sign where a program is written another way.
        """
        error = carried + own
        # Rounding to nearest keeps the largest number up to half a unit beyond it.
        safe = jnp.abs(value) + carried < form.largest * (1 + form.unit / 2)
        error = jnp.where(safe & ~jnp.isnan(error), error, jnp.inf)
        if certain is not None:
            error = jnp.where(jnp.isinf(value) & certain, 0.0, error)
        return error

    def rounding(self, value: Array, carried: Array, count: Scalar, form: Format, of: Array | None = None) -> Array:
        """Return the error that ``count`` roundings of a result add: relative, and absolute where it is near zero.

        They are roundings of the result's size, or ``of`` something larger in which a function's error is measured.
        """
        size = jnp.abs(value) + carried if of is None else of
        flushed = jnp.where(jnp.abs(value) - carried < 2 * form.tiny, form.tiny, 0.0)
        return jnp.where(size == 0, 0.0, gamma(count, form.unit) * size + flushed)


# What an operation makes of pairs of value and bound.
BoundRule: TypeAlias = Callable[[Context, Equation, list[Value]], list[Value]]


def known_number(value: object) -> float | None:
    """Return a number from the program's text; ``None`` for an array of JAX's, whose values may not be known yet."""
    return float(value) if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else None


def representable(value: Array, form: Format) -> Array:
    """Return the nearest number of the format, ties to even; zero where it would not be normal."""
    mantissa, exponent = jnp.frexp(value)
    scale = 1 / form.unit
    nearest = jnp.ldexp(jnp.round(mantissa * scale) / scale, exponent)
    nearest = jnp.where(jnp.isfinite(value), nearest, value)
    return jnp.where(jnp.abs(value) < form.tiny, 0.0, nearest)


def gap(a: Array, b: Array | float) -> Array:
    """Return |a - b|, zero where both are the same infinity; infinite where either is no number."""
    off = jnp.where(a == b, 0.0, jnp.abs(a - b))
    return jnp.where(jnp.isnan(off), jnp.inf, off)


def ends(x: Array, error: Array) -> tuple[Array, Array]:
    """Return the interval about ``x``, a little wider than exact, since it is itself worked out in float64."""
    reach = jnp.where(error > 0, error * (1 + _OWN_RELATIVE_ERROR) + _OWN_RELATIVE_ERROR * jnp.abs(x), 0.0)
    return x - reach, x + reach


def union(errors: Sequence[Array | None], shape: tuple[int, ...]) -> Array | None:
    """Return flags of several inputs taken together; None where all are certain."""
    known = [jnp.broadcast_to(jnp.where(e > 0, jnp.inf, 0.0), shape) for e in errors if e is not None]
    if not known:
        return None
    total = known[0]
    for error in known[1:]:
        total = jnp.maximum(total, error)
    return total


def _plain(value: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Return whether every format holds the numbers exactly: few bits, of moderate size, or infinite."""
    if value.size > 64:
        return False
    mantissa, exponent = np.frexp(value)
    few = (mantissa * 128 == np.round(mantissa * 128)) & (exponent > -13) & (exponent < 16)
    return bool(np.all(few | (value == 0) | np.isinf(value) | np.isnan(value)))
