"""Layers in plain JAX with PyTorch's numbers, and losses; every number that people get wrong is an argument."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

Params = Any


def dense(params: Params, x: jax.Array) -> jax.Array:
    """A linear layer whose weight is kept as PyTorch keeps it, (out, in)."""
    return x @ params["weight"].T + params["bias"]


def layer_norm(params: Params, x: jax.Array, epsilon: float) -> jax.Array:
    """Over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + epsilon) * params["weight"] + params["bias"]


def conv(params: Params, x: jax.Array) -> jax.Array:
    """A 3 by 3 convolution that keeps the size; images are (n, channels, height, width), as PyTorch's."""
    out = lax.conv_general_dilated(x, params["weight"], (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return out + params["bias"][:, None, None]


def batch_norm(
    params: Params, running: Params, x: jax.Array, *, epsilon: float, momentum: float, unbiased: bool
) -> tuple[jax.Array, Params]:
    """Over all axes but the channels, and the running statistics after it."""
    count = x.size // x.shape[1]
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    out = (x - mean[:, None, None]) * lax.rsqrt(variance + epsilon)[:, None, None]
    kept = variance * (count / (count - 1)) if unbiased else variance
    after = {
        "running_mean": (1 - momentum) * running["running_mean"] + momentum * mean,
        "running_var": (1 - momentum) * running["running_var"] + momentum * kept,
    }
    return out * params["weight"][:, None, None] + params["bias"][:, None, None], running | after


def max_pool(x: jax.Array) -> jax.Array:
    """2 by 2, the last two axes."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def heads_apart(x: jax.Array, heads: int) -> jax.Array:
    """(n, length, width) to (n, heads, length, width / heads)."""
    n, length, width = x.shape
    return x.reshape(n, length, heads, width // heads).swapaxes(1, 2)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Scaled dot-product attention of every place to every place; back to (n, length, width)."""
    q, k, v = (heads_apart(part, heads) for part in (q, k, v))
    shares = jax.nn.softmax(q @ k.swapaxes(-2, -1) / math.sqrt(q.shape[-1]), axis=-1)
    n, _, length, _ = v.shape
    return (shares @ v).swapaxes(1, 2).reshape(n, length, -1)


@functools.cache
def loss(kind: str, reduction: str) -> Callable[[Any, Any], Any]:
    """A loss by PyTorch's name; the same function for the same words, so that it compiles once."""
    reduce = jnp.mean if reduction == "mean" else jnp.sum

    def each(predictions: jax.Array, targets: jax.Array) -> jax.Array:
        if kind == "cross_entropy":
            return optax.softmax_cross_entropy_with_integer_labels(predictions, targets)
        gap = predictions - targets
        if kind == "huber":
            return jnp.where(jnp.abs(gap) <= 1, 0.5 * gap**2, jnp.abs(gap) - 0.5)
        return jnp.abs(gap) if kind == "l1" else gap**2

    return lambda predictions, targets: reduce(each(predictions, targets))
