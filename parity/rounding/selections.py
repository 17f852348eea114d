"""Rules for comparing and choosing: where rounding could decide otherwise, every outcome is covered."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from parity.rounding.jaxprs import Equation, bind
from parity.rounding.values import Array, BoundRule, Context, Value, ends, gap

_COMPARISONS = {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}


def _comparison(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    value = _COMPARISONS[eqn.primitive.name](a.value, b.value)
    if not a.floating:
        return [Value(value, context.flags(inputs, value.shape))]
    off = context.error(a) + context.error(b)
    overlap = (gap(a.value, b.value) <= off) & (off > 0)
    if eqn.primitive.name in ("ge", "lt") and a.has_floor:
        overlap = overlap & ~((a.floor() >= b.value) & (context.error(b) == 0))
    if a.value is b.value:
        # The test for what is no number: an infinite bound may be one.
        overlap = jnp.isinf(off)
    for x, top in ((a, b), (b, a)):
        for number, rival in top.origin[1] if top.origin and top.origin[0] == "extreme" else ():
            # One of the numbers is their maximum: where only one can be, it is.
            if number is x.value:
                overlap = overlap & rival
    return [Value(value, jnp.where(overlap, jnp.inf, 0.0))]


def _choice(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    which, *cases = inputs
    value = lax.select_n(which.value, *(case.value for case in cases))
    certain = all(case.error is None for case in cases)
    if certain and which.error is None:
        return [Value(value)]
    errors = [jnp.broadcast_to(context.error(case) if case.floating else _raised(case), case.shape) for case in cases]
    error = lax.select_n(which.value, *errors)
    floors = [case.floor for case in cases]
    unsure = None if which.error is None else which.uncertain()
    if unsure is not None:
        if value.dtype == np.bool_ or not jnp.issubdtype(value.dtype, jnp.number):
            apart = [jnp.where(case.value == value, e, jnp.inf) for case, e in zip(cases, errors, strict=True)]
        elif cases[0].floating:
            apart = [gap(case.value, value) + e for case, e in zip(cases, errors, strict=True)]
        else:
            apart = [jnp.where(case.value == value, e, jnp.inf) for case, e in zip(cases, errors, strict=True)]
        for other in apart:
            error = jnp.where(unsure, jnp.maximum(error, other), error)

    def floor() -> Array:
        lows = [f() for f in floors]
        chosen = lax.select_n(which.value, *lows)
        if unsure is None:
            return chosen
        least = lows[0]
        for low in lows[1:]:
            least = jnp.minimum(least, low)
        return jnp.where(unsure, least, chosen)

    known = cases[0].floating and any(case.has_floor for case in cases)
    return [Value(value, error, floor if known else None)]


def _raised(x: Value) -> Array:
    return jnp.where(x.uncertain(), jnp.inf, 0.0)


def _extreme(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound max, min and clamp: the same of the intervals' ends."""

    def function(*arrays: Array) -> Array:
        if eqn.primitive.name == "clamp":
            return jnp.minimum(jnp.maximum(arrays[1], arrays[0]), arrays[2])
        return (jnp.maximum if eqn.primitive.name == "max" else jnp.minimum)(*arrays)

    value = function(*(x.value for x in inputs))
    if not inputs[0].floating:
        return [Value(value, context.flags(inputs, value.shape))]
    pairs = [ends(x.value, context.error(x)) for x in inputs]
    high = function(*(pair[1] for pair in pairs))
    low = function(*(pair[0] for pair in pairs))
    error = jnp.maximum(gap(high, value), gap(value, low))
    off = sum(context.error(x) for x in inputs)
    origin = None
    if len(inputs) == 2:
        apart = gap(inputs[0].value, inputs[1].value) > off
        origin = ("extreme", [(x.value, ~apart) for x in inputs])
    floor = lambda: function(*(x.floor() for x in inputs))  # noqa: E731
    # An infinite error may be no number, which clamping does not mend.
    error = jnp.where(off < jnp.inf, jnp.where(off == 0, 0.0, error), jnp.inf)
    return [Value(value, error, floor, origin)]


def _logic(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound and, or: decided where one side alone decides."""
    a, b = inputs
    value = bind(eqn, a.value, b.value)
    error = context.flags(inputs, value.shape)
    if value.dtype == np.bool_ and error is not None:
        stops = eqn.primitive.name == "or"
        decided = ((a.value == stops) & ~a.uncertain()) | ((b.value == stops) & ~b.uncertain())
        error = jnp.where(decided, 0.0, error)
    return [Value(value, error)]


def _is_finite(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    return [Value(jnp.isfinite(x.value), None if x.error is None else jnp.where(jnp.isinf(x.error), jnp.inf, 0.0))]


RULES: dict[str, BoundRule] = {
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys(("max", "min", "clamp"), _extreme),
    "select_n": _choice,
    "and": _logic,
    "or": _logic,
    "is_finite": _is_finite,
}
