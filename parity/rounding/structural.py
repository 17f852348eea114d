"""Rules for what moves, chooses and compares values without arithmetic."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import DTypeLike
from parity.rounding.formats import Format
from parity.rounding.jaxprs import Equation, bind, dtype_of
from parity.rounding.values import Array, BoundRule, Context, Value, ends, floating


def _moved(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Make the same move with the value and with its error."""
    params = {**eqn.params}
    if "sharding" in params:
        params["sharding"] = None

    def move(arrays: list[Array]) -> list[Array]:
        results = bind(eqn, *arrays, **params)
        return list(results) if eqn.primitive.multiple_results else [results]

    values = move([x.value for x in inputs])
    if all(x.error is None for x in inputs):
        return [Value(value, origin=_origin(inputs)) for value in values]
    errors = move([jnp.zeros(x.shape) if x.error is None else x.error for x in inputs])
    if any(x.has_floor for x in inputs):
        floors: list[Any] = [lambda i=i: move([x.floor() for x in inputs])[i] for i in range(len(values))]
    else:
        floors = [None] * len(values)
    return [Value(v, e, f, _origin(inputs)) for v, e, f in zip(values, errors, floors, strict=True)]


def _origin(inputs: list[Value]) -> Any:
    """Return the origin that moving keeps: a maximum that is spread out is one of the same numbers."""
    origin = inputs[0].origin if len(inputs) == 1 else None
    return origin if origin and origin[0] == "extreme" else None


def _padded(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    x, filler = inputs
    value = lax.pad(x.value, filler.value, eqn.params["padding_config"])
    if x.error is None and filler.error is None:
        return [Value(value)]
    error = lax.pad(context.error(x), context.error(filler), eqn.params["padding_config"])
    return [Value(value, error)]


def _same(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    return list(inputs)


def _made(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Make arrays from nothing: in float64 whatever the program calls them."""
    params = dict(eqn.params)
    if floating(params["dtype"]):
        params["dtype"] = np.dtype(np.float64)
    return [Value(bind(eqn, *(x.value for x in inputs), **params))]


def _converted(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    target = np.dtype(eqn.params["new_dtype"]) if not _extended(eqn) else eqn.params["new_dtype"]
    if x.floating and floating(target):
        return [_narrowed(context, x, dtype_of(eqn.invars[0]), target)]
    if floating(target):
        value = lax.convert_element_type(x.value, np.float64)
        form = context.at(target)
        error = None
        if np.dtype(x.value.dtype).kind in "iu" and np.dtype(x.value.dtype).itemsize > 1:
            # Integers up to 2^p are numbers of the format.
            error = jnp.where(jnp.abs(value) * form.unit > 1, form.unit * jnp.abs(value), 0.0)
        if x.error is not None:
            flip = 1.0 if x.value.dtype == np.bool_ else jnp.inf
            error = jnp.where(x.uncertain(), flip, 0.0 if error is None else error)
        return [
            Value(value, error, lambda: jnp.where(x.uncertain() & (flip > 1), -jnp.inf, jnp.minimum(value, 0)))
            if x.error is not None
            else Value(value, error)
        ]
    value = lax.convert_element_type(x.value, target)
    if not x.floating:
        return [Value(value, x.error)]
    low, high = ends(x.value, context.error(x))
    certain = (lax.convert_element_type(low, target) == value) & (lax.convert_element_type(high, target) == value)
    certain = certain & jnp.isfinite(high - low)
    if target == np.bool_:
        certain = certain & ((low > 0) | (high < 0) | (low == high))
    return [Value(value, jnp.where(certain, 0.0, jnp.inf))]


def _extended(eqn: Equation) -> bool:
    return not hasattr(eqn.params["new_dtype"], "kind") and not isinstance(eqn.params["new_dtype"], type)


def _narrowed(context: Context, x: Value, source: DTypeLike, target: DTypeLike) -> Value:
    """Bound a conversion between floating formats, which rounds once where the target is the narrower one."""
    if not context.narrow or np.dtype(target).itemsize >= np.dtype(source).itemsize or np.dtype(target).itemsize == 8:
        return x
    form = context.at(target)
    off = context.error(x, form)
    own = context.rounding(x.value, off, 1, form)
    floor = (lambda: jnp.where(x.floor() >= 0, 0.0, -jnp.inf)) if x.has_floor else None
    return Value(x.value, context.finish(x.value, off, own, form, off == 0), floor)


def _reduced_precision(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    bits, exponent = eqn.params["mantissa_bits"] + 1, eqn.params["exponent_bits"]
    if not context.narrow or bits >= 53:
        return [x]
    reach = 2 ** (exponent - 1)
    unit = jnp.maximum(2.0**-bits, context.format.unit)
    tiny = jnp.maximum(2.0 ** (2 - reach) if reach < 1000 else 0.0, context.format.tiny)
    form = Format(unit, tiny, context.format.largest)
    off = context.error(x, form)
    return [Value(x.value, context.finish(x.value, off, context.rounding(x.value, off, 1, form), form, off == 0))]


# -- places that are worked out


def _gathered(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound gather and dynamic_slice: the error from the same places; infinite where those are not certain."""
    x, *places = inputs
    where = [place.value for place in places]
    value = bind(eqn, x.value, *where, **eqn.params)
    params = {**eqn.params, **({"fill_value": 0.0} if "fill_value" in eqn.params else {})}
    error = None
    if x.error is not None:
        error = bind(eqn, x.error, *where, **params)
    return [Value(value, _misplaced(error, places, value), _floor_at(eqn, x, where))]


def _floor_at(eqn: Equation, x: Value, where: list[Array]) -> Any:
    if not x.has_floor:
        return None
    params = {**eqn.params, **({"fill_value": -jnp.inf} if "fill_value" in eqn.params else {})}
    return lambda: bind(eqn, x.floor(), *where, **params)


def _misplaced(error: Array | None, places: list[Value], value: Array) -> Array | None:
    unsure = [place.uncertain().any() for place in places if place.error is not None]
    if not unsure:
        return error
    anywhere = unsure[0]
    for flag in unsure[1:]:
        anywhere = anywhere | flag
    return jnp.where(anywhere, jnp.inf, jnp.zeros(value.shape) if error is None else error)


def _placed(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound dynamic_update_slice: the error is put where the update is put."""
    x, update, *places = inputs
    where = [place.value for place in places]
    value = bind(eqn, x.value, update.value, *where, **eqn.params)
    error = None
    if x.error is not None or update.error is not None:
        both = [jnp.zeros(v.shape) if v.error is None else v.error for v in (x, update)]
        error = bind(eqn, *both, *where, **eqn.params)
    floor = None
    if x.has_floor or update.has_floor:
        floor = lambda: bind(eqn, x.floor(), update.floor(), *where, **eqn.params)  # noqa: E731
    return [Value(value, _misplaced(error, places, value), floor)]


def _bits(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Bound bits taken for a number or a number for its bits: exact from certain bits, anything otherwise."""
    (x,) = inputs
    value = bind(eqn, x.value, **eqn.params)
    if x.floating:
        return [Value(value, jnp.full(value.shape, jnp.inf))]
    return [Value(value, _misplaced(None, inputs, value))]


_MOVING_PRIMITIVES = (
    "reshape transpose broadcast_in_dim rev squeeze expand_dims slice split concatenate unstack stack real"
)
_PRIMITIVES_OF_NOTHING = (
    "copy copy_p stop_gradient optimization_barrier sharding_constraint name layout_constraint pvary pcast reshard "
    "mesh_cast"
)
RULES: dict[str, BoundRule] = {
    **dict.fromkeys(_MOVING_PRIMITIVES.split(), _moved),
    **dict.fromkeys(_PRIMITIVES_OF_NOTHING.split(), _same),
    **dict.fromkeys(("gather", "dynamic_slice"), _gathered),
    **dict.fromkeys(("iota", "empty", "empty2"), _made),
    "pad": _padded,
    "convert_element_type": _converted,
    "reduce_precision": _reduced_precision,
    "dynamic_update_slice": _placed,
    "bitcast_convert_type": _bits,
}
