"""Rules for matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import DTypeLike, Scalar
from parity.rounding.jaxprs import Equation, bind, dtype_of, shape_of
from parity.rounding.values import Array, BoundRule, Context, Value, floating, union


def _bilinear(
    context: Context, eqn: Equation, a: Value, b: Value, multiply: Callable[[Array, Array], Array], length: int
) -> list[Value]:
    """Return |A| e_B + e_A |B| + e_A e_B + gamma_k (|A| + e_A)(|B| + e_B), for sums of ``length`` products."""
    form = context.format_of(eqn)
    value = multiply(a.value, b.value)
    size_a, size_b = jnp.abs(a.value), jnp.abs(b.value)
    narrowed = form.products
    off_a = _narrowed(a, size_a, narrowed, form.tiny)
    off_b = _narrowed(b, size_b, narrowed, form.tiny)
    reach = multiply(size_a, size_b)
    carried = multiply(size_a, off_b) + multiply(off_a, size_b + off_b)
    size = reach + carried
    # Tensor cores cut the last bits of a sum off where others round to nearest.
    sums = form._replace(unit=jnp.where(narrowed > 0, 2 * form.unit, form.unit))
    flushed = 2 * length * jnp.minimum(form.tiny, size)
    own = context.gamma(length, sums) * size + jnp.where(size == 0, 0.0, flushed)
    # A partial sum in some order may be as large as the sum of the sizes.
    error = jnp.where(size < form.largest * (1 - length * form.unit), carried + own, jnp.inf)
    return [Value(value, jnp.where(jnp.isnan(error) | jnp.isnan(value), jnp.inf, error))]


def _narrowed(x: Value, size: Array, unit: Scalar, tiny: Scalar) -> Array:
    """Return the error of an operand as the product takes it: rounded once more, flushed to zero if below normal."""
    off = jnp.where(size < tiny, size, 0.0) if x.error is None else x.error
    return off + unit * (size + off)


def _dot(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    params = dict(eqn.params)
    out = dtype_of(eqn.outvars[0])
    if params.get("preferred_element_type") is not None and floating(out):
        params["preferred_element_type"] = np.dtype(np.float64)
    params["precision"] = None
    (contracted, _), _ = params["dimension_numbers"]
    length = math.prod(a.shape[axis] for axis in contracted)

    def multiply(first: Array, second: Array) -> Array:
        return bind(eqn, _as_double(first, out), _as_double(second, out), **params)

    if not floating(out):
        flags = union([None if x.error is None else x.error.max() for x in inputs], shape_of(eqn.outvars[0]))
        return [Value(multiply(a.value, b.value), flags)]
    return _bilinear(context, eqn, a, b, multiply, length)


def _convolution(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    a, b = inputs
    params = {**eqn.params, "precision": None}
    if params.get("preferred_element_type") is not None:
        params["preferred_element_type"] = np.dtype(np.float64)
    kernel = params["dimension_numbers"].rhs_spec
    length = math.prod(b.shape[axis] for axis in kernel[1:])

    def multiply(first: Array, second: Array) -> Array:
        return bind(eqn, first, second, **params)

    return _bilinear(context, eqn, a, b, multiply, length)


def _as_double(x: Array, out: DTypeLike) -> Array:
    return lax.convert_element_type(x, np.float64) if floating(out) else x


RULES: dict[str, BoundRule] = {"dot_general": _dot, "conv_general_dilated": _convolution}
