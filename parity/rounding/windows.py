"""Rules for sums and extremes over windows, and for the gradients of max pooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import lax

from parity.rounding.jaxprs import Equation, bind
from parity.rounding.reductions import summed
from parity.rounding.values import Array, BoundRule, Context, Value, ends, gap


def _sum(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs

    def add(array: Array) -> Array:
        return bind(eqn, array, **eqn.params)

    form = context.format_of(eqn)
    value = add(x.value)
    count = math.prod(eqn.params["window_dimensions"])
    return [Value(value, summed(context, form, value, add(context.error(x, form)), add(jnp.abs(x.value)), count - 1))]


def _extreme(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    low, high = ends(x.value, context.error(x))
    value, least, most = (bind(eqn, array, **eqn.params) for array in (x.value, low, high))
    return [Value(value, jnp.maximum(gap(most, value), gap(value, least)))]


def _pieces(x: Array, filler: float, params: dict[str, Any]) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield the numbers that stand at one place of each window, place by place."""
    window, strides = params["window_dimensions"], params["window_strides"]
    padded = lax.pad(x, jnp.asarray(filler, x.dtype), [(low, high, 0) for low, high in params["padding"]])
    counts = [(size - w) // s + 1 for size, w, s in zip(padded.shape, window, strides, strict=True)]
    for place in itertools.product(*map(range, window)):
        stop = [p + (n - 1) * s + 1 for p, n, s in zip(place, counts, strides, strict=True)]
        yield place, lax.slice(padded, place, stop, strides)


def _spread_back(piece: Array, place: tuple[int, ...], shape: tuple[int, ...], params: dict[str, Any]) -> Array:
    """Put numbers of windows where they stand in the array: the reverse of :func:`_pieces`."""
    config = []
    for p, n, s, size, (low, high) in zip(
        place, piece.shape, params["window_strides"], shape, params["padding"], strict=True
    ):
        config.append((p - low, size + low + high - p - ((n - 1) * s + 1) - high, s - 1))
    return lax.pad(piece, jnp.zeros((), piece.dtype), config)


def _candidates(
    context: Context, x: Value, params: dict[str, Any]
) -> tuple[Array, list[tuple[tuple[int, ...], Array]]]:
    """Return where the number chosen of a window is not certain, and at each place whether it may be that one."""
    sign = 1.0 if params["select_prim"].name == "ge" else -1.0
    low, high = ends(sign * x.value, context.error(x))
    lows = [piece for _, piece in _pieces(low, -jnp.inf, params)]
    best = lows[0]
    for piece in lows[1:]:
        best = jnp.maximum(best, piece)
    places, count, loose = [], jnp.zeros(best.shape), jnp.zeros(best.shape, bool)
    for (place, top), least in zip(_pieces(high, -jnp.inf, params), lows, strict=True):
        # Beside what is no number any may be chosen: nothing is said of its order.
        may = ~(top < best)
        places.append((place, may))
        count, loose = count + may, loose | (may & ~(top <= least))
    # Equal numbers that are exact are told apart by their order, not by rounding.
    return (count > 1) & loose, places


def _scattered(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound select_and_scatter_add: any number of a window that may be chosen may get its share or lose it."""
    source, x = inputs
    params = eqn.params

    def scatter(array: Array) -> Array:
        return bind(eqn, array, x.value, **params)

    form = context.format_of(eqn)
    off = context.error(source, form)
    value, carried = scatter(source.value), scatter(off)
    unsure, places = _candidates(context, x, params)
    share = jnp.where(unsure, jnp.abs(source.value) + off, 0.0)
    for place, may in places:
        carried = carried + _spread_back(jnp.where(may, share, 0.0), place, x.shape, params)
    pairs = zip(params["window_dimensions"], params["window_strides"], strict=True)
    adds = math.prod(-(-w // s) for w, s in pairs) - 1
    return [Value(value, summed(context, form, value, carried, scatter(jnp.abs(source.value)), adds))]


def _chosen(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound select_and_gather_add: of one array the number at the place chosen in another."""
    x, chooser = inputs
    params = eqn.params
    value = bind(eqn, x.value, chooser.value, **params)
    error = bind(eqn, context.error(x), chooser.value, **params)
    unsure, places = _candidates(context, chooser, params)
    numbers = _pieces(x.value, 0.0, params)
    errors = _pieces(context.error(x), 0.0, params)
    for (_, may), (_, number), (_, off) in zip(places, numbers, errors, strict=True):
        error = jnp.where(unsure & may, jnp.maximum(error, gap(number, value) + off), error)
    return [Value(value, error)]


RULES: dict[str, BoundRule] = {
    "reduce_window_sum": _sum,
    "reduce_window_max": _extreme,
    "reduce_window_min": _extreme,
    "select_and_scatter_add": _scattered,
    "select_and_gather_add": _chosen,
}
