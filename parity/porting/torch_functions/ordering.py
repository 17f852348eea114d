"""PyTorch's functions that order elements, choose by size, or go along an axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.porting.torch_functions.reductions import along, counted
from parity.porting.torch_functions.registry import Argument, function


@function("max")
def largest(x: jax.Array, dim: Argument = None, keepdim: bool = False, **named: Argument) -> Any:
    """The largest of all, or along an axis with its place, or of two arrays."""
    dim = named.get("other", dim)
    if dim is None:
        return jnp.max(x)
    if not isinstance(dim, int):
        return jnp.maximum(x, dim)
    return (x, jnp.zeros((), int)) if not x.ndim else along(x, jnp.argmax(x, dim), dim, keepdim)


@function("min")
def smallest(x: jax.Array, dim: Argument = None, keepdim: bool = False, **named: Argument) -> Any:
    """The smallest of all, or along an axis with its place, or of two arrays."""
    dim = named.get("other", dim)
    if dim is None:
        return jnp.min(x)
    if not isinstance(dim, int):
        return jnp.minimum(x, dim)
    return (x, jnp.zeros((), int)) if not x.ndim else along(x, jnp.argmin(x, dim), dim, keepdim)


@function("argmax")
def argmax(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """The place of the largest."""
    return jnp.argmax(x, axis=dim, keepdims=keepdim)


@function("argmin")
def argmin(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """The place of the smallest."""
    return jnp.argmin(x, axis=dim, keepdims=keepdim)


@function("cumsum", "cumsum_")
def cumsum(x: jax.Array, dim: int, dtype: Argument = None) -> Any:
    """Sums up to each element."""
    return jnp.cumsum(counted(x), axis=dim) if x.ndim else x


@function("cumprod", "cumprod_")
def cumprod(x: jax.Array, dim: int, dtype: Argument = None) -> Any:
    """Products up to each element."""
    return jnp.cumprod(counted(x), axis=dim) if x.ndim else x


@function("logcumsumexp")
def logcumsumexp(x: jax.Array, dim: int) -> Any:
    """Logarithms of sums of exponentials up to each element."""
    return lax.cumlogsumexp(x, axis=dim % x.ndim) if x.ndim else x


@function("cummax")
def cummax(x: jax.Array, dim: int) -> Any:
    """The largest up to each element, and its place."""
    if not x.ndim:
        return x, jnp.zeros((), int)
    places = jnp.arange(x.shape[dim]).reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    best = lax.cummax(lax.stop_gradient(x), axis=dim % x.ndim)
    index = lax.cummax(jnp.where(x == best, places, 0), axis=dim % x.ndim)
    return jnp.take_along_axis(x, index, dim), index


@function("sort")
def sort(x: jax.Array, dim: int = -1, descending: bool = False, stable: bool = False, **_: Argument) -> Any:
    """Elements in their order, and where they were."""
    if not x.ndim:
        return x, jnp.zeros((), int)
    index = jnp.argsort(x, axis=dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, index, dim), index


@function("argsort")
def argsort(x: jax.Array, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Where elements go to be in their order."""
    return jnp.argsort(x, axis=dim, descending=descending, stable=True)


@function("topk")
def topk(x: jax.Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest, and where they were."""
    if not x.ndim:
        return x, jnp.zeros((), int)
    index = lax.slice_in_dim(jnp.argsort(x, axis=dim, descending=largest, stable=True), 0, k, axis=dim % x.ndim)
    return jnp.take_along_axis(x, index, dim), index


@function("median")
def median(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """The lower of the middle elements."""
    if dim is None:
        ordered = jnp.sort(x.reshape(-1))
        return ordered[(x.size - 1) // 2]
    if not x.ndim:
        return x, jnp.zeros((), int)
    index = jnp.take(jnp.argsort(x, axis=dim, stable=True), (x.shape[dim] - 1) // 2, axis=dim)
    return along(x, index, dim, keepdim)


@function("kthvalue")
def kthvalue(x: jax.Array, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest, and its place."""
    if not x.ndim:
        return x, jnp.zeros((), int)
    return along(x, jnp.take(jnp.argsort(x, axis=dim, stable=True), k - 1, axis=dim), dim, keepdim)


@function("cummin")
def cummin(x: jax.Array, dim: int) -> Any:
    """The smallest up to each element, and its place."""
    made, index = cummax(-x, dim)
    return -made, index


@function("quantile")
def quantile(
    x: jax.Array, q: Argument, dim: Argument = None, keepdim: bool = False, interpolation: str = "linear"
) -> Any:
    """Quantiles."""
    axis = None if dim is None or not x.ndim else dim
    return jnp.quantile(x, jnp.asarray(q, x.dtype), axis=axis, keepdims=keepdim, method=interpolation)


@function("msort")
def msort(x: jax.Array) -> Any:
    """Elements in their order along the first axis."""
    return sort(x, 0)[0]
