"""PyTorch's activation functions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.porting.torch_functions.registry import Argument, function, is_array
from parity.recording.thresholds import SOFTPLUS


@function("relu", "relu_")
def relu(x: jax.Array) -> Any:
    """``max(x, 0)``, with the gradient 0 at 0."""
    return jnp.where(x > 0, x, jnp.where(jnp.isnan(x), x, jnp.zeros((), x.dtype)))


@function("relu6", "relu6_")
def relu6(x: jax.Array) -> Any:
    """``min(max(x, 0), 6)``, with the gradient 0 at both ends."""
    return hardtanh_open(x, 0.0, 6.0)


def hardtanh_open(x: jax.Array, low: float, high: float) -> Any:
    """Limit to a range, with the gradient 0 at its ends."""
    return jnp.where(x <= low, jnp.asarray(low, x.dtype), jnp.where(x >= high, jnp.asarray(high, x.dtype), x))


@function("hardtanh", "hardtanh_")
def hardtanh(x: jax.Array, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Limit to a range, with the gradient 0 at its ends."""
    return hardtanh_open(x, min_val, max_val)


@function("leaky_relu", "leaky_relu_")
def leaky_relu(x: jax.Array, negative_slope: Argument = 0.01) -> Any:
    """``x``, times a slope where it is negative or 0."""
    return jnp.where(x > 0, x, x * negative_slope)


@function("prelu")
def prelu(x: jax.Array, weight: jax.Array) -> Any:
    """``x``, times a trained slope where it is negative or 0, one for each channel."""
    slope = weight.reshape(()) if weight.size == 1 else weight.reshape((1, -1) + (1,) * (x.ndim - 2))
    return jnp.where(x > 0, x, slope * x)


@function("elu", "elu_")
def elu(x: jax.Array, alpha: Argument = 1.0, scale: Argument = 1.0, input_scale: Argument = 1.0) -> Any:
    """``scale x`` where positive, ``scale alpha (exp(input_scale x) - 1)`` elsewhere."""
    low = jnp.expm1(jnp.where(x > 0, 0.0, x * input_scale))
    return jnp.where(x > 0, x * scale, low * (alpha * scale))


@function("celu", "celu_")
def celu(x: jax.Array, alpha: Argument = 1.0) -> Any:
    """``x`` where positive, ``alpha (exp(x / alpha) - 1)`` elsewhere."""
    return elu(x, alpha, 1.0, 1.0 / alpha)


@function("selu", "selu_")
def selu(x: jax.Array) -> Any:
    """Klambauer et al., 2017, with PyTorch's constants."""
    return elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@function("gelu")
def gelu(x: jax.Array, approximate: str = "none") -> Any:
    """Hendrycks and Gimpel, 2016; by the error function, or by the hyperbolic tangent."""
    if approximate == "tanh":
        return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return x * 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


@function("softplus")
def softplus(x: jax.Array, beta: Argument = 1, threshold: Argument = SOFTPLUS) -> Any:
    """``log(1 + exp(beta x)) / beta``, and ``x`` beyond a threshold."""
    threshold = min(threshold, SOFTPLUS) if not is_array(threshold) else threshold
    scaled = x * beta
    return jnp.where(scaled > threshold, x, jnp.log1p(jnp.exp(jnp.minimum(scaled, threshold))) / beta)


@function("hardsigmoid", "hardsigmoid_")
def hardsigmoid(x: jax.Array) -> Any:
    """``min(max(x + 3, 0), 6) / 6``."""
    return hardtanh_open(x + 3, 0.0, 6.0) / 6


@function("hardswish", "hardswish_")
def hardswish(x: jax.Array) -> Any:
    """``x min(max(x + 3, 0), 6) / 6``."""
    return x * jnp.clip(x + 3, 0, 6) / 6


@function("mish", "mish_")
def mish(x: jax.Array) -> Any:
    """``x tanh(log(1 + exp(x)))``."""
    return x * jnp.tanh(jax.nn.softplus(x))


@function("threshold", "threshold_")
def threshold(x: jax.Array, threshold: Argument, value: Argument) -> Any:
    """``x`` above a threshold, a value elsewhere."""
    return jnp.where(x > threshold, x, jnp.asarray(value, x.dtype))


@function("hardshrink")
def hardshrink(x: jax.Array, lambd: Argument = 0.5) -> Any:
    """``x`` outside of a range, 0 inside."""
    return jnp.where((x >= -lambd) & (x <= lambd), jnp.zeros((), x.dtype), x)


@function("softshrink")
def softshrink(x: jax.Array, lambd: Argument = 0.5) -> Any:
    """``x`` nearer to 0 by a distance, 0 where it is nearer than that."""
    return jnp.where(x > lambd, x - lambd, jnp.where(x < -lambd, x + lambd, x * 0))
