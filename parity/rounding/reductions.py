"""Rules for sums, extremes and orders along axes, and for scattered sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from parity._types import Scalar
from parity.rounding.formats import Format
from parity.rounding.jaxprs import Equation, bind
from parity.rounding.values import Array, BoundRule, Context, Value, ends, gap, union


def summed(
    context: Context,
    form: Format,
    value: Array,
    carried: Array,
    reach: Array,
    adds: Scalar,
    terms: Scalar | None = None,
) -> Array:
    """Return the error of sums of sizes ``reach``, in each of which a term passes at most ``adds`` additions."""
    size = reach + carried
    own = context.gamma(adds, form, terms) * size + jnp.where(adds > 0, adds * jnp.minimum(form.tiny, size), 0.0)
    error = jnp.where(size * (1 + adds * form.unit) < form.largest, carried + own, jnp.inf)
    error = jnp.where(jnp.isnan(error) | jnp.isnan(value), jnp.inf, error)
    return jnp.where(jnp.isinf(value) & jnp.isfinite(carried), 0.0, error)


def _sum(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    axes = tuple(eqn.params["axes"])
    value = jnp.sum(x.value, axes, dtype=x.value.dtype)
    if not x.floating:
        return [Value(value, _any_flag(x, axes))]
    form = context.format_of(eqn)
    count = math.prod(x.shape[axis] for axis in axes)
    carried = jnp.sum(context.error(x, form), axes)
    error = summed(context, form, value, carried, jnp.sum(jnp.abs(x.value), axes), max(count - 1, 0))
    return [Value(value, error, _sum_floor(x, lambda low: jnp.sum(low, axes)) if x.has_floor else None)]


def _sum_floor(x: Value, add: Callable[[Array], Array]) -> Callable[[], Array]:
    """Return the floor of sums: where no number is negative, no sum of them is."""
    return lambda: jnp.where(add(jnp.where(x.floor() >= 0, 0.0, 1.0)) == 0, 0.0, -jnp.inf)


def _any_flag(x: Value, axes: tuple[int, ...]) -> Array | None:
    return None if x.error is None else jnp.max(jnp.where(x.uncertain(), jnp.inf, 0.0), axes, initial=0.0)


def _multiplied(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound reduce_prod and cumprod."""
    (x,) = inputs

    def multiply(array: Array) -> Array:
        if "axes" in eqn.params:
            return jnp.prod(array, tuple(eqn.params["axes"]), dtype=array.dtype)
        return lax.cumprod(array, eqn.params["axis"], eqn.params["reverse"])

    value = multiply(x.value)
    if not x.floating:
        return [Value(value, None if x.error is None else _all_flagged(x, value))]
    form = context.format_of(eqn)
    axes = tuple(eqn.params["axes"]) if "axes" in eqn.params else (eqn.params["axis"],)
    count = math.prod(x.shape[axis] for axis in axes)
    reach, farthest = multiply(jnp.abs(x.value)), multiply(jnp.abs(x.value) + context.error(x, form))
    # The difference of two nearly equal products, each rounded in float64.
    carried = farthest - reach + 2.0**-52 * count * farthest
    own = context.gamma(max(count - 1, 0), form) * farthest
    # A partial product in some order: too large, or so small that it is flushed.
    most = multiply(jnp.maximum(jnp.abs(x.value) + context.error(x, form), 1.0))
    own = own + jnp.where(farthest == 0, 0.0, count * form.tiny * most)
    error = jnp.where(most < form.largest / 2, carried + own, jnp.inf)
    return [Value(value, jnp.where(jnp.isnan(error), jnp.inf, error))]


def _all_flagged(x: Value, value: Array) -> Array:
    return jnp.where(x.uncertain().any(), jnp.inf, jnp.zeros(value.shape))


def _extreme(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound reduce_max, reduce_min, cummax, cummin: the same of the intervals' ends."""
    (x,) = inputs

    def pick(array: Array) -> Array:
        return bind(eqn, array, **eqn.params)

    value = pick(x.value)
    if not x.floating:
        return [Value(value, None if x.error is None else _all_flagged(x, value))]
    off = context.error(x)
    low, high = ends(x.value, off)
    error = jnp.maximum(gap(pick(high), value), gap(value, pick(low)))
    origin = None
    if eqn.primitive.name in ("reduce_max", "reduce_min"):
        axes = tuple(eqn.params["axes"])
        origin = ("extreme", [(x.value, _rivals(eqn.primitive.name == "reduce_max", x, low, high, axes))])
    return [Value(value, error, (lambda: pick(x.floor())) if x.has_floor else None, origin)]


def _rivals(largest: bool, x: Value, low: Array, high: Array, axes: tuple[int, ...]) -> Array:
    """Return where, in the shape of the numbers, it is not certain whether a number is the extreme one."""
    if largest:
        candidate = high >= jnp.max(low, axes, keepdims=True, initial=-jnp.inf)
    else:
        candidate = low <= jnp.min(high, axes, keepdims=True, initial=jnp.inf)
    return candidate & (jnp.sum(candidate, axes, keepdims=True) > 1)


def _place(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound argmax and argmin: not certain where a second number could be the extreme one."""
    (x,) = inputs
    value = bind(eqn, x.value, **eqn.params)
    axes = tuple(eqn.params["axes"])
    if not x.floating:
        return [Value(value, _any_flag(x, axes))]
    low, high = ends(x.value, context.error(x))
    rivals = _rivals(eqn.primitive.name == "argmax", x, low, high, axes)
    # Equal numbers that are exact are not told apart by rounding: the first is taken.
    moved = rivals & (high > low)
    return [Value(value, jnp.where(jnp.any(moved, axes), jnp.inf, 0.0))]


def _flag_logic(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    value = bind(eqn, x.value, **eqn.params)
    return [Value(value, _any_flag(x, tuple(eqn.params["axes"])))]


def _running_sum(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    value = lax.cumsum(x.value, axis, reverse)
    if not x.floating:
        return [Value(value, None if x.error is None else _all_flagged(x, value))]
    form = context.format_of(eqn)
    carried = lax.cumsum(context.error(x, form), axis, reverse)
    reach = lax.cumsum(jnp.abs(x.value), axis, reverse)
    return [Value(value, summed(context, form, value, carried, reach, max(x.shape[axis] - 1, 0)))]


def _running_logsumexp(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound log(sum(exp(x))): 1-Lipschitz, then the rounding of sums of positive numbers in the logarithm."""
    (x,) = inputs
    value = bind(eqn, x.value, **eqn.params)
    form = context.format_of(eqn)
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    off = lax.cummax(context.error(x, form), axis, reverse)
    count = x.shape[axis]
    reach = lax.cummax(jnp.abs(x.value) + off, axis, reverse) + math.log(max(count, 1)) + 1
    # At most count combinations, each a maximum, a difference, exp, log1p and a sum, each below 16 roundings.
    own = context.gamma(64 * count, form) * reach + count * form.tiny
    return [Value(value, context.finish(value, off, own, form, off == 0))]


def _sorted(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound keys in order; what goes along with them is not certain where their order is not."""
    axis, keys = eqn.params["dimension"], eqn.params["num_keys"]
    results = bind(eqn, *(x.value for x in inputs), **eqn.params)
    if all(x.error is None for x in inputs):
        return [Value(value) for value in results]
    key = inputs[0]
    if not key.floating or keys > 1:
        flagged = any(x.error is not None for x in inputs[:keys])
        errors = [jnp.full(v.shape, jnp.inf) if flagged else None for v in results]
        if flagged:
            return [Value(v, e) for v, e in zip(results, errors, strict=True)]
    order = {**eqn.params, "num_keys": keys}
    offs = [jnp.zeros(x.shape) if x.error is None else x.error for x in inputs]
    moved = bind(eqn, *(x.value for x in inputs), *offs, **order)[len(inputs) :]
    if not key.floating or key.error is None:
        return [Value(v, e) for v, e in zip(results, moved, strict=True)]
    low, high = ends(results[0], moved[0])
    lows, highs = ends(key.value, key.error)
    ordered = [lax.sort(end, axis) for end in (lows, highs)]
    key_error = jnp.maximum(gap(ordered[0], results[0]), gap(ordered[1], results[0]))
    before = lax.slice_in_dim(lax.cummax(high, axis), 0, -1, axis=axis)
    after = lax.slice_in_dim(lax.cummin(low, axis, reverse=True), 1, None, axis=axis)
    crossed = before >= after
    widths = [(0, 0, 0)] * crossed.ndim
    sides = []
    for side in ((1, 0, 0), (0, 1, 0)):
        widths[axis] = side
        sides.append(lax.pad(crossed, False, widths))
    unsure = sides[0] | sides[1]
    others = [Value(v, jnp.where(unsure, jnp.inf, e)) for v, e in zip(results[1:], moved[1:], strict=True)]
    return [Value(results[0], key_error), *others]


def _scattered_sum(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    x, where, update = inputs

    def scatter(into: Array, what: Array) -> Array:
        return _scatter(eqn, into, where.value, what)

    value = scatter(x.value, update.value)
    if not x.floating:
        return [Value(value, None if all(v.error is None for v in inputs) else jnp.full(value.shape, jnp.inf))]
    form = context.format_of(eqn)
    carried = scatter(context.error(x, form), context.error(update, form))
    reach = scatter(jnp.abs(x.value), jnp.abs(update.value))
    adds = scatter(jnp.zeros(x.shape), jnp.ones(update.shape))
    if eqn.primitive.name == "scatter-sub":
        carried = 2 * context.error(x, form) - carried
        reach, adds = 2 * jnp.abs(x.value) - reach, -adds
    error = summed(context, form, value, carried, reach, adds, adds + 1)
    return [Value(value, _where_certain(error, where))]


def _scattered(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound scatter, scatter-max and scatter-min: the error goes where the number goes."""
    x, where, update = inputs
    value = _scatter(eqn, x.value, where.value, update.value)
    if not x.floating:
        flags = union([None if v.error is None else v.error.max() for v in inputs], value.shape)
        return [Value(value, flags)]
    if all(v.error is None for v in inputs):
        return [Value(value)]
    off_x, off_update = context.error(x), context.error(update)
    if eqn.primitive.name == "scatter":
        error = _scatter(eqn, off_x, where.value, off_update)
    else:
        both = [ends(x.value, off_x), ends(update.value, off_update)]
        results = [_scatter(eqn, both[0][i], where.value, both[1][i]) for i in (0, 1)]
        error = jnp.maximum(gap(results[0], value), gap(results[1], value))
    return [Value(value, _where_certain(error, where))]


def _where_certain(error: Array, where: Value) -> Array:
    return error if where.error is None else jnp.where(where.uncertain().any(), jnp.inf, error)


_SCATTERS = {
    "scatter": lax.scatter,
    "scatter-add": lax.scatter_add,
    "scatter-sub": lax.scatter_sub,
    "scatter-max": lax.scatter_max,
    "scatter-min": lax.scatter_min,
}


def _scatter(eqn: Equation, into: Array, where: Array, what: Array) -> Array:
    """Build the program's scatter anew: its own parameters hold a jaxpr of the program's dtype."""
    kept = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    named = {name: eqn.params[name] for name in kept}
    return _SCATTERS[eqn.primitive.name](into, where, what, **named)


RULES: dict[str, BoundRule] = {
    "reduce_sum": _sum,
    "reduce_prod": _multiplied,
    "cumprod": _multiplied,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    "cummax": _extreme,
    "cummin": _extreme,
    "argmax": _place,
    "argmin": _place,
    "reduce_and": _flag_logic,
    "reduce_or": _flag_logic,
    "cumsum": _running_sum,
    "cumlogsumexp": _running_logsumexp,
    "sort": _sorted,
    "scatter-add": _scattered_sum,
    "scatter-sub": _scattered_sum,
    "scatter": _scattered,
    "scatter-max": _scattered,
    "scatter-min": _scattered,
}
