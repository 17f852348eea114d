"""PyTorch's functions that make each element from the elements at that place."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.porting.torch_functions.registry import (
    Argument,
    default_float,
    enter,
    function,
    is_array,
    is_floating,
)


def floating(x: Argument) -> jax.Array:
    """Return an array of floating numbers: PyTorch takes roots and the like of whole numbers in its default dtype."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())


# -- arithmetic


@function("add", "__add__", "__radd__", "radd", "add_", "__iadd__")
def add(x: Argument, other: Argument, alpha: Argument = 1) -> Any:
    """``x + alpha other``."""
    if not is_array(alpha) and alpha == 1:
        if _is_bool(x) and _is_bool(other):
            return jnp.logical_or(x, other)
        return x + other
    return x + alpha * other


@function("sub", "subtract", "__sub__", "sub_", "__isub__")
def sub(x: Argument, other: Argument, alpha: Argument = 1) -> Any:
    """``x - alpha other``."""
    return x - other if not is_array(alpha) and alpha == 1 else x - alpha * other


@function("rsub", "__rsub__")
def rsub(x: Argument, other: Argument, alpha: Argument = 1) -> Any:
    """``other - alpha x``."""
    return sub(other, x, alpha)


@function("div", "divide", "true_divide", "__truediv__", "div_", "__itruediv__", "divide_")
def div(x: Argument, other: Argument, rounding_mode: str | None = None) -> Any:
    """``x / other``, rounded to a whole number where that is asked for."""
    if rounding_mode == "floor":
        return jnp.floor_divide(x, other)
    if rounding_mode == "trunc":
        quotient = x / other
        return jnp.trunc(quotient) if is_floating(x) or is_floating(other) else lax.div(*jnp.broadcast_arrays(x, other))
    return floating(x) / other


@function("pow", "__pow__", "pow_", "float_power")
def power(x: Argument, exponent: Argument) -> Any:
    """``x ** exponent``; the gradient at 0 is PyTorch's, 0 for an exponent of 0."""
    if not is_array(exponent):
        exponent = float(exponent)
        if not is_floating(x) and exponent == int(exponent):
            return lax.integer_pow(x, int(exponent))
        if exponent == int(exponent) and abs(exponent) <= 64:
            return lax.integer_pow(floating(x), int(exponent))
        if exponent == 0.5:
            return jnp.sqrt(floating(x))
        return jnp.power(floating(x), exponent)
    return jnp.power(floating(x) if is_array(x) else x, exponent)


@jax.custom_jvp
def absolute(x: jax.Array) -> jax.Array:
    return jnp.abs(x)


@absolute.defjvp
def _absolute_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return jnp.abs(x), jnp.sign(x) * dx


@function("clamp", "clip", "clamp_", "clip_", "hardtanh", "hardtanh_")
def clamp(x: jax.Array, min: Argument = None, max: Argument = None, **named: Argument) -> Any:
    """Limit to a range; the gradient is 1 at its ends too."""
    low, high = named.get("min_val", min), named.get("max_val", max)
    result = x
    if low is not None:
        result = jnp.where(result < low, jnp.asarray(low, result.dtype), result)
    if high is not None:
        result = jnp.where(result > high, jnp.asarray(high, result.dtype), result)
    return result


@function("clamp_min", "clamp_min_")
def clamp_min(x: jax.Array, min: Argument) -> Any:
    """Limit from below."""
    return clamp(x, min)


@function("clamp_max", "clamp_max_")
def clamp_max(x: jax.Array, max: Argument) -> Any:
    """Limit from above."""
    return clamp(x, None, max)


@function("lerp", "lerp_")
def lerp(start: jax.Array, end: jax.Array, weight: Argument) -> Any:
    """``start + weight (end - start)``, in PyTorch's form."""
    return jnp.where(
        jnp.abs(jnp.asarray(weight)) < 0.5,
        start + weight * (end - start),
        end - (end - start) * (1 - weight),
    )


@function("addcmul", "addcmul_")
def addcmul(x: jax.Array, first: jax.Array, second: jax.Array, value: Argument = 1) -> Any:
    """``x + value first second``."""
    return x + value * first * second


@function("addcdiv", "addcdiv_")
def addcdiv(x: jax.Array, first: jax.Array, second: jax.Array, value: Argument = 1) -> Any:
    """``x + value first / second``."""
    return x + value * (first / second)


@function("xlogy", "special_xlogy")
def xlogy(x: Argument, y: Argument) -> Any:
    """``x log(y)``, 0 where ``x`` is."""
    safe = jnp.where(jnp.equal(x, 0), 1.0, y)
    return jnp.where(jnp.equal(x, 0) & ~jnp.isnan(y), 0.0, x * jnp.log(safe))


@function("logit", "special_logit")
def logit(x: jax.Array, eps: Argument = None) -> Any:
    """``log(x / (1 - x))``."""
    z = x if eps is None else clamp(x, eps, 1 - eps)
    return jnp.log(z / (1 - z))


@function("sgn", "sign")
def sign(x: jax.Array) -> Any:
    """-1, 0 or 1; no gradient goes through."""
    return jnp.sign(x)


@function("round", "round_")
def rounded(x: jax.Array, decimals: int = 0) -> Any:
    """Round to even."""
    return jnp.round(x, decimals)


@function("fmod")
def fmod(x: Argument, other: Argument) -> Any:
    """The remainder with the sign of the dividend."""
    return jnp.fmod(x, other)


@function("remainder", "__mod__")
def remainder(x: Argument, other: Argument) -> Any:
    """The remainder with the sign of the divisor."""
    return jnp.remainder(x, other)


@function("nan_to_num", "nan_to_num_")
def nan_to_num(x: jax.Array, nan: Argument = None, posinf: Argument = None, neginf: Argument = None) -> Any:
    """Numbers in the place of NaN and infinity."""
    return jnp.nan_to_num(x, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@jax.custom_jvp
def digamma(x: jax.Array) -> jax.Array:
    """The derivative of lgamma; its own is right for negative numbers too, by reflection."""
    return lax.digamma(x)


@digamma.defjvp
def _digamma_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    below = x <= 0
    trigamma = jax.scipy.special.polygamma(1, jnp.where(below, 1 - x, x))
    reflected = (jnp.pi / jnp.sin(jnp.pi * jnp.where(below, x, 0.5))) ** 2 - trigamma
    return lax.digamma(x), jnp.where(below, reflected, trigamma) * dx


@jax.custom_jvp
def i0(x: jax.Array) -> jax.Array:
    """The modified Bessel function of order 0, whose derivative is that of order 1."""
    return jax.scipy.special.i0(x)


@i0.defjvp
def _i0_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return jax.scipy.special.i0(x), jax.scipy.special.i1(x) * dx


# -- choosing


@function("where")
def where(condition: jax.Array, x: Argument, other: Argument) -> Any:
    """One where the condition holds, else the other."""
    return jnp.where(condition, x, other)


@function("masked_fill", "masked_fill_")
def masked_fill(x: jax.Array, mask: jax.Array, value: Argument) -> Any:
    """A value where the mask holds."""
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


@function("maximum")
def maximum(x: jax.Array, other: Argument) -> Any:
    """The larger one; equal ones share the gradient."""
    return jnp.maximum(x, other)


@function("fmax")
def fmax(x: jax.Array, other: jax.Array) -> Any:
    """The larger one, or the one that is no NaN; of equal ones the first has the gradient."""
    return jnp.where((x >= other) | jnp.isnan(other), x, other)


@function("fmin")
def fmin(x: jax.Array, other: jax.Array) -> Any:
    """The smaller one, or the one that is no NaN; of equal ones the first has the gradient."""
    return jnp.where((x <= other) | jnp.isnan(other), x, other)


@function("minimum")
def minimum(x: jax.Array, other: Argument) -> Any:
    """The smaller one; equal ones share the gradient."""
    return jnp.minimum(x, other)


def _is_bool(value: Argument) -> bool:
    return is_array(value) and value.dtype == bool


def _of_floats(made: Any) -> Any:
    return lambda x, *_, **__: made(floating(x))


_ROOTS = {
    "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "log": jnp.log, "log2": jnp.log2, "log10": jnp.log10,
    "log1p": jnp.log1p, "sqrt": jnp.sqrt, "rsqrt": lax.rsqrt, "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan,
    "asin": jnp.arcsin, "acos": jnp.arccos, "atan": jnp.arctan, "sinh": jnp.sinh, "cosh": jnp.cosh, "tanh": jnp.tanh,
    "asinh": jnp.arcsinh, "acosh": jnp.arccosh, "atanh": jnp.arctanh, "erf": lax.erf, "erfc": lax.erfc,
    "erfinv": lax.erf_inv, "lgamma": lax.lgamma, "digamma": digamma, "sigmoid": jax.nn.sigmoid,
    "reciprocal": lambda x: 1 / x, "sinc": jnp.sinc, "i0": i0, "silu": lambda x: x * jax.nn.sigmoid(x),
    "deg2rad": lambda x: x * (math.pi / 180), "rad2deg": lambda x: x * (180 / math.pi),
}  # fmt: skip
for _name, _made in _ROOTS.items():
    enter(**{_name: _of_floats(_made), f"{_name}_": _of_floats(_made)})
_ALIASES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "special_exp2": "exp2", "special_expm1": "expm1", "special_log1p": "log1p", "special_erf": "erf",
    "special_erfc": "erfc", "special_erfinv": "erfinv", "special_gammaln": "lgamma", "special_digamma": "digamma",
    "special_psi": "digamma", "special_expit": "sigmoid", "special_sinc": "sinc", "special_i0": "i0",
}  # fmt: skip


def log_sigmoid(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 0) - jnp.log1p(jnp.exp(-jnp.abs(x)))


enter(
    abs=lambda x: absolute(x),
    mul=lambda x, other: x * other,
    neg=lambda x: -x,
    square=lambda x: x * x,
    log_sigmoid=log_sigmoid,
    softsign=lambda x: x / (1 + absolute(x)),
    atan2=lambda x, other: jnp.arctan2(x, other),
    hypot=lambda x, other: jnp.hypot(x, other),
    logaddexp=lambda x, other: jnp.logaddexp(x, other),
    logaddexp2=lambda x, other: jnp.logaddexp2(x, other),
    floor=lambda x: jnp.floor(x),
    ceil=lambda x: jnp.ceil(x),
    trunc=lambda x: jnp.trunc(x),
    frac=lambda x: x - jnp.trunc(x),
    floor_divide=lambda x, other: jnp.floor_divide(x, other),
    rdiv=lambda x, other: other / floating(x),
    rpow=lambda x, other: jnp.power(jnp.asarray(other, floating(x).dtype), floating(x)),
    isnan=lambda x: jnp.isnan(x),
    isinf=lambda x: jnp.isinf(x),
    isfinite=lambda x: jnp.isfinite(x),
    logical_not=lambda x: jnp.logical_not(x),
    logical_and=lambda x, other: jnp.logical_and(x, other),
    logical_or=lambda x, other: jnp.logical_or(x, other),
    logical_xor=lambda x, other: jnp.logical_xor(x, other),
    bitwise_not=lambda x: jnp.invert(x),
    bitwise_and=lambda x, other: jnp.bitwise_and(x, other),
    bitwise_or=lambda x, other: jnp.bitwise_or(x, other),
    eq=lambda x, other: jnp.equal(x, other),
    ne=lambda x, other: jnp.not_equal(x, other),
    lt=lambda x, other: jnp.less(x, other),
    le=lambda x, other: jnp.less_equal(x, other),
    gt=lambda x, other: jnp.greater(x, other),
    ge=lambda x, other: jnp.greater_equal(x, other),
    heaviside=lambda x, values: jnp.heaviside(x, values),
    copysign=lambda x, other: jnp.copysign(x, other),
    ldexp=lambda x, other: x * jnp.exp2(floating(other)),
)
_ALIASES |= {
    "absolute": "abs", "absolute_": "abs", "abs_": "abs", "__abs__": "abs", "multiply": "mul", "mul_": "mul",
    "multiply_": "mul", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "negative": "neg", "__neg__": "neg",
    "neg_": "neg", "square_": "square", "logsigmoid": "log_sigmoid", "arctan2": "atan2", "__rtruediv__": "rdiv",
    "__rdiv__": "rdiv", "__rpow__": "rpow", "__invert__": "bitwise_not", "__and__": "bitwise_and", "__or__":
    "bitwise_or", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge", "not_equal": "ne",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge", "fix": "trunc",
    "floor_": "floor", "ceil_": "ceil", "__floordiv__": "floor_divide", "special_round": "round",
    "special_xlog1py": "xlog1py", "_softmax": "softmax",
}  # fmt: skip


def aliases() -> dict[str, str]:
    """Return the names that stand for another name."""
    return _ALIASES
