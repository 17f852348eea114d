"""Rules for arithmetic and for elementary functions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from parity.rounding.accuracy import ACCURACY, accuracy, size
from parity.rounding.jaxprs import Equation, bind
from parity.rounding.values import Array, BoundRule, Context, Value, ends, gap, known_number


def _both(a: Value, b: Value, combine: Callable[[Array, Array], Array]) -> Callable[[], Array]:
    """Return the floor of a sum or product of two numbers that are not negative; nothing where one may be."""

    def floor() -> Array:
        first, second = a.floor(), b.floor()
        least = combine(first, second)
        # Less than two roundings and a number flushed to zero can take away.
        least = jnp.where(least > 1e-4, least * (1 - 2.0**-6), 0.0)
        return jnp.where((first >= 0) & (second >= 0), least, -jnp.inf)

    return floor


def _sum(context: Context, eqn: Equation, inputs: list[Value], sign: int = 1) -> list[Value]:
    a, b = inputs
    form = context.format_of(eqn)
    value = a.value + b.value if sign > 0 else a.value - b.value
    off_a, off_b = context.error(a, form), context.error(b, form)
    carried = off_a + off_b
    # A sum is never further off than its smaller term is large, since the other term is a number of the format.
    smaller = jnp.minimum(jnp.abs(a.value) + off_a, jnp.abs(b.value) + off_b)
    # The value that stands for the exact one is itself rounded, in float64.
    smaller = jnp.where(smaller > 0, smaller + 2.0**-52 * jnp.abs(value), 0.0)
    own = jnp.minimum(context.rounding(value, carried, 1, form), smaller)
    error = context.finish(value, carried, own, form, jnp.isfinite(carried))
    floor = _both(a, b, jnp.add) if sign > 0 else None
    return [Value(value, error, floor)]


def _difference(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    return _sum(context, eqn, inputs, -1)


def _power_of_two(x: Value) -> bool:
    number = known_number(x.value) if x.error is None else None
    return number is not None and math.isfinite(number) and math.frexp(number)[0] in (0.5, -0.5)


def _product(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    form = context.format_of(eqn)
    value = a.value * b.value
    off_a, off_b = context.error(a, form), context.error(b, form)
    size_a, size_b = jnp.abs(a.value), jnp.abs(b.value)
    carried = _times(size_a, off_b) + _times(off_a, size_b) + off_a * off_b
    exact = _power_of_two(a) or _power_of_two(b)
    own = context.rounding(value, carried, 0 if exact else 1, form)
    if "exp" in (_origin(a), _origin(b)) and _origin(a) == _origin(b):
        # XLA may write exp(p) * exp(q) as exp(p + q), whose exponent is rounded.
        own = own + 2 * form.unit * (jnp.abs(a.origin[1].value) + jnp.abs(b.origin[1].value)) * (
            jnp.abs(value) + carried
        )
    certain = (off_a < size_a) & (off_b < size_b) | (carried == 0)
    if a is b or a.value is b.value:
        floor: Any = lambda: jnp.zeros(value.shape)  # noqa: E731
    else:
        floor = _both(a, b, jnp.multiply)
    return [Value(value, context.finish(value, carried, own, form, certain), floor)]


def _times(size: Array, off: Array) -> Array:
    """Return size * off, nothing where ``off`` is nothing, even of an infinite size."""
    return jnp.where((off == 0) | (size == 0), 0.0, size * off)


def _open(carried: Array, *offs: Array) -> Array:
    """Return the error, infinite where an argument's is: it may be no number, of which even tanh and sin are none."""
    for off in offs:
        carried = jnp.where(off < jnp.inf, carried, jnp.inf)
    return carried


def _origin(x: Value) -> Any:
    return x.origin[0] if x.origin else None


def _quotient(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    form = context.format_of(eqn)
    value = a.value / b.value
    off_a, off_b = context.error(a, form), context.error(b, form)
    size = jnp.abs(b.value)
    least = size - off_b
    if b.has_floor:
        least = jnp.where(b.value > 0, jnp.maximum(least, b.floor()), least)
    # With c in [least, size + off_b] for the computed size of b: a'/c - a/b = (a' - a)/c + (a/b) (b - c)/c.
    spread = jnp.maximum((size - least) / least, off_b / (size + off_b))
    carried = jnp.where(off_a == 0, 0.0, off_a / least) + _times(jnp.abs(value), jnp.where(off_b == 0, 0.0, spread))
    carried = jnp.where((least > 0) | (off_b == 0), carried, jnp.inf)
    carried = jnp.where(jnp.isinf(size) & (off_b == 0) & jnp.isfinite(off_a), 0.0, carried)
    own = context.rounding(value, carried, accuracy("div", form.unit), form)
    # Done as a product with the reciprocal, which may itself be too small for the format.
    own = own + jnp.where(size * form.tiny > 0.5, (jnp.abs(a.value) + off_a) * form.tiny, 0.0)
    if _origin(b) == "exp" and _origin(a) in ("exp", None):
        exponents = jnp.abs(b.origin[1].value) + (jnp.abs(a.origin[1].value) if _origin(a) else 0.0)
        own = own + 2 * form.unit * exponents * (jnp.abs(value) + carried)
    certain = ((off_b == 0) & (off_a < jnp.abs(a.value)) | (carried == 0)) & (b.value != 0)
    positive = _both(a, b, lambda p, q: jnp.zeros_like(p * q))
    return [Value(value, context.finish(value, carried, own, form, certain), positive)]


def _remainder(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    value = lax.rem(a.value, b.value)
    if not a.floating:
        return [Value(value, context.flags(inputs, value.shape))]
    form = context.format_of(eqn)
    off_a, off_b = context.error(a, form), context.error(b, form)
    quotient = jnp.trunc(a.value / b.value)
    carried = off_a + _times(jnp.abs(quotient), off_b)
    # Another multiple is taken off if either end of the interval is past a multiple of b.
    edge = jnp.minimum(jnp.abs(value), jnp.abs(b.value) - jnp.abs(value))
    flips = (carried > 0) & (edge <= carried) & (jnp.abs(a.value) + off_a >= jnp.abs(b.value) - off_b)
    own = context.rounding(value, carried, 1, form)
    return [Value(value, jnp.where(flips, jnp.inf, context.finish(value, carried, own, form)))]


def _integer_power(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    power = int(eqn.params.get("y", 2))
    form = context.format_of(eqn)
    value = lax.integer_pow(x.value, power)
    off = context.error(x, form)
    size, count = jnp.abs(x.value), abs(power)
    if power >= 0:
        carried = jnp.where(off == 0, 0.0, count * off * (size + off) ** max(count - 1, 0))
        roundings: Any = max(count - 1, 0)
    else:
        least = size - off
        carried = jnp.where(least > 0, count * off * least ** (power - 1), jnp.where(off == 0, 0.0, jnp.inf))
        roundings = count - 1 + accuracy("div", form.unit)
    own = context.rounding(value, carried, roundings, form)
    if count > 2:
        # A power on the way may be too small for the format, or its reciprocal too large.
        own = own + jnp.where(size - off < 1, count * form.tiny * jnp.maximum(1.0, size + off) ** count, 0.0)
    floor = (lambda: jnp.zeros(value.shape)) if power % 2 == 0 else None
    certain = ((off == 0) | (off < size)) & ((size > 0) | (power >= 0))
    return [Value(value, context.finish(value, carried, own, form, certain), floor)]


def _power(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    x, y = inputs
    form = context.format_of(eqn)
    exponent = y.value.astype(np.float64)
    value = jnp.power(x.value, exponent)
    off_x = context.error(x, form)
    off_y = context.error(y, form) if y.floating else jnp.where(y.uncertain(), jnp.inf, 0.0)
    (low, high), (less, more) = ends(x.value, off_x), ends(exponent, off_y)
    low = jnp.where((x.value >= 0) & (x.floor() >= 0), jnp.maximum(low, x.floor()), low)
    # Monotone in each argument where the base is positive: the corners are the extremes.
    carried = jnp.zeros(value.shape)
    for base in (low, high):
        for to in (less, more):
            carried = jnp.maximum(carried, gap(jnp.power(base, to), value))
    across = (low < 0) & (off_x > 0) & ((off_y > 0) | (exponent < 0))
    through = (low <= 0) & (high >= 0)
    carried = jnp.where(through, jnp.maximum(carried, jnp.abs(value)), carried)
    carried = jnp.where(across, jnp.inf, _open(carried, off_x, off_y))
    own = context.rounding(value, carried, accuracy("pow", form.unit), form)
    certain = (carried == 0) & ((x.value != 0) | (exponent >= 0))
    return [Value(value, context.finish(value, carried, own, form, certain), _both(x, x, lambda p, q: 0 * p))]


def _negative(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    return [Value(-inputs[0].value, inputs[0].error)]


def _magnitude(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    value = jnp.abs(x.value)
    return [Value(value, x.error, lambda: jnp.zeros(value.shape))]


def _monotone(name: str, *, valley: tuple[float, float] | None = None, least: Any = None) -> BoundRule:
    """Return the rule of a function that rises or falls throughout, or about one ``valley`` (where, value there)."""

    def rule(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        params = {**eqn.params, **({"accuracy": None} if "accuracy" in eqn.params else {})}

        def function(argument: Array) -> Array:
            return bind(eqn, argument, **params)

        value = function(x.value)
        form = context.format_of(eqn)
        count = accuracy(name, form.unit) if name in ACCURACY else 0
        off = context.error(x, form)
        low, high = ends(x.value, off)
        if x.has_floor:
            low = jnp.where(x.value >= x.floor(), jnp.maximum(low, x.floor()), low)
        carried = jnp.maximum(gap(function(high), value), gap(function(low), value))
        if valley is not None:
            at, bottom = valley
            carried = jnp.where((low < at) & (at < high), jnp.maximum(carried, gap(value, bottom)), carried)
        # Both ends are worked out in float64, and rounded there.
        carried = carried + jnp.where(off > 0, 2.0**-52 * count * size(name, x.value, value), 0.0)
        carried = jnp.where(off == 0, 0.0, _open(carried, off))
        own = jnp.zeros(value.shape)
        if name in ACCURACY:
            of = size(name, x.value, value)
            own = context.rounding(value, carried, count, form, of + carried * _ratio(of, value))
        if name in _OVERFLOWS_EARLY:
            own = jnp.where(jnp.abs(value) + carried < form.largest / 4, own, jnp.inf)
        floor = None
        if least == "zero":
            floor = lambda: jnp.zeros(value.shape)  # noqa: E731
        elif least == "root":
            floor = lambda: jnp.sqrt(jnp.maximum(x.floor(), 0.0)) * (1 - 2.0**-4)  # noqa: E731
        certain = carried == 0
        if name in ("exp", "exp2", "expm1"):
            # What overflows in float64 is not infinite: XLA writes log(exp(x)) as x.
            certain &= jnp.isinf(x.value)
        error = context.finish(value, carried, own, form, certain)
        return [Value(value, error, floor, (name, x))]

    return rule


def _ratio(of: Array, value: Array) -> Array:
    """Return how much larger than the result it is what the error is measured in."""
    return jnp.maximum(1.0, jnp.where(value == 0, 1.0, of / jnp.abs(value)))


# They are put together from parts that pass the largest number before the result does.
_OVERFLOWS_EARLY = ("sinh", "cosh", "lgamma")


def _wave(name: str) -> BoundRule:
    """Bound sin and cos: as far off as their argument, and never further than 2."""

    def rule(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        value = getattr(jnp, name)(x.value)
        form = context.format_of(eqn)
        off = context.error(x, form)
        carried = _open(jnp.minimum(off, 2.0), off)
        of = size(name, x.value, value)
        own = context.rounding(value, off, accuracy(name, form.unit), form, of + jnp.minimum(off, 1.0))
        return [Value(value, context.finish(value, carried, own, form))]

    return rule


def _tangent(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    value = jnp.tan(x.value)
    form = context.format_of(eqn)
    low, high = ends(x.value, context.error(x, form))
    carried = jnp.maximum(gap(jnp.tan(low), value), gap(jnp.tan(high), value))
    pole = jnp.round(low / np.pi - 0.5) - jnp.round(high / np.pi - 0.5)
    pole = jnp.floor(low / np.pi + 0.5) != jnp.floor(high / np.pi + 0.5)
    carried = jnp.where(pole | jnp.isinf(high - low), jnp.inf, carried)
    own = context.rounding(value, carried, accuracy("tan", form.unit), form)
    return [Value(value, context.finish(value, carried, own, form))]


def _angle(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    y, x = inputs
    value = jnp.arctan2(y.value, x.value)
    form = context.format_of(eqn)
    off_y, off_x = context.error(y, form), context.error(x, form)
    # The angle between the two directions, at most; the branch cut adds a turn.
    reach, radius = jnp.hypot(off_x, off_y), jnp.hypot(x.value, y.value)
    turned = jnp.where(reach < radius, jnp.arcsin(jnp.minimum(reach / radius, 1.0)) * (1 + 1e-12), 2 * np.pi)
    turned = jnp.where(reach == 0, 0.0, turned)
    cut = (jnp.abs(y.value) <= off_y) & (x.value - off_x <= 0)
    carried = _open(jnp.where(cut, 2 * np.pi, turned), off_y, off_x)
    own = context.rounding(value, carried, accuracy("atan2", form.unit), form)
    return [Value(value, context.finish(value, carried, own, form))]


def _square_root_below(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound 1 / sqrt(x), which falls: infinite at zero."""
    (x,) = inputs
    value = lax.rsqrt(x.value)
    form = context.format_of(eqn)
    off = context.error(x, form)
    low, high = ends(x.value, off)
    low = jnp.maximum(low, x.floor()) if x.has_floor else low
    carried = jnp.where(low > 0, jnp.maximum(gap(lax.rsqrt(low), value), gap(lax.rsqrt(high), value)), jnp.inf)
    carried = jnp.where(off == 0, 0.0, _open(carried + 2.0**-50 * jnp.abs(value), off))
    own = context.rounding(value, carried, accuracy("rsqrt", form.unit), form)
    error = context.finish(value, carried, own, form, (off == 0) & (x.value != 0))
    return [Value(value, error, lambda: jnp.zeros(value.shape))]


RULES: dict[str, BoundRule] = {
    "add": _sum,
    "add_any": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
    "rem": _remainder,
    "square": _integer_power,
    "integer_pow": _integer_power,
    "pow": _power,
    "neg": _negative,
    "abs": _magnitude,
    "sin": _wave("sin"),
    "cos": _wave("cos"),
    "tan": _tangent,
    "atan2": _angle,
    "rsqrt": _square_root_below,
    **{name: _monotone(name, least="zero") for name in ("exp", "exp2", "logistic", "erfc")},
    **{name: _monotone(name) for name in ("log", "log1p", "expm1", "cbrt", "tanh", "erf", "erf_inv", "digamma")},
    **{name: _monotone(name) for name in ("asin", "acos", "atan", "sinh", "asinh", "atanh")},
    **{name: _monotone(name) for name in ("sign", "floor", "ceil", "round")},
    "acosh": _monotone("acosh", least="zero"),
    "sqrt": _monotone("sqrt", least="root"),
    "cosh": _monotone("cosh", valley=(0.0, 1.0), least="zero"),
    "lgamma": _monotone("lgamma", valley=(1.4616321449683622, -0.12148629053584961)),
}
