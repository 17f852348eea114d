"""PyTorch's functions that put many elements into one, and those that order them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.porting.torch_functions.elementwise import floating
from parity.porting.torch_functions.registry import Argument, axes_of, function, is_floating, sizes


def counted(x: jax.Array) -> jax.Array:
    """Return sums' elements: those of truth values and small whole numbers are counted in PyTorch's largest."""
    return x if is_floating(x) else x.astype(int)


@function("sum")
def total(x: jax.Array, dim: Argument = None, keepdim: bool = False, dtype: Argument = None) -> Any:
    """The sum over some axes, or all."""
    x = counted(x) if dtype is None else x.astype(dtype)
    return jnp.sum(x, axis=axes_of(x, dim), keepdims=keepdim)


@function("nansum")
def total_but_nan(x: jax.Array, dim: Argument = None, keepdim: bool = False, dtype: Argument = None) -> Any:
    """The sum of what is no NaN."""
    return total(jnp.where(jnp.isnan(x), 0, x), dim, keepdim, dtype)


@function("mean")
def mean(x: jax.Array, dim: Argument = None, keepdim: bool = False, dtype: Argument = None) -> Any:
    """The mean over some axes, or all."""
    x = x if dtype is None else x.astype(dtype)
    axes = axes_of(x, dim)
    return jnp.sum(x, axis=axes, keepdims=keepdim) / math.prod(x.shape[axis] for axis in axes)


@function("prod")
def product(x: jax.Array, dim: Argument = None, keepdim: bool = False, dtype: Argument = None) -> Any:
    """The product over an axis, or all."""
    x = counted(x) if dtype is None else x.astype(dtype)
    return jnp.prod(x, axis=axes_of(x, dim), keepdims=keepdim)


@function("var")
def variance(
    x: jax.Array,
    dim: Argument = None,
    unbiased: Argument = None,
    keepdim: bool = False,
    correction: Argument = None,
) -> Any:
    """The variance; of a sample, unless told otherwise."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    less = correction if correction is not None else (1 if unbiased is None else int(unbiased))
    axes = axes_of(x, dim)
    number = math.prod(x.shape[axis] for axis in axes)
    centred = x - jnp.sum(x, axis=axes, keepdims=True) / number
    return jnp.sum(centred * centred, axis=axes, keepdims=keepdim) / max(number - less, 0)


@function("std")
def deviation(x: jax.Array, *args: Argument, **kwargs: Argument) -> Any:
    """The root of the variance; the gradient at 0 is PyTorch's, 0."""
    return safe_root(variance(x, *args, **kwargs))


@function("var_mean")
def variance_and_mean(x: jax.Array, dim: Argument = None, *args: Argument, **kwargs: Argument) -> Any:
    """Variance and mean."""
    keep = kwargs.get("keepdim", len(args) > 1 and args[1])
    return variance(x, dim, *args, **kwargs), mean(x, None if isinstance(dim, bool) else dim, keep)


@function("std_mean")
def deviation_and_mean(x: jax.Array, dim: Argument = None, *args: Argument, **kwargs: Argument) -> Any:
    """Deviation and mean."""
    spread, middle = variance_and_mean(x, dim, *args, **kwargs)
    return safe_root(spread), middle


def safe_root(x: jax.Array) -> jax.Array:
    """Return a root whose gradient at 0 is 0."""
    return jnp.where(x == 0, x * 0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))


@function("amax")
def amax(x: jax.Array, dim: Argument = (), keepdim: bool = False) -> Any:
    """The largest; equal ones share the gradient."""
    return jnp.max(x, axis=axes_of(x, dim), keepdims=keepdim)


@function("amin")
def amin(x: jax.Array, dim: Argument = (), keepdim: bool = False) -> Any:
    """The smallest; equal ones share the gradient."""
    return jnp.min(x, axis=axes_of(x, dim), keepdims=keepdim)


def along(x: jax.Array, index: jax.Array, axis: int, keepdim: bool) -> Any:
    chosen = jnp.take_along_axis(x, jnp.expand_dims(index, axis), axis)
    return (chosen if keepdim else jnp.squeeze(chosen, axis)), (jnp.expand_dims(index, axis) if keepdim else index)


@function("all")
def every(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """Whether all hold."""
    return jnp.all(x, axis=axes_of(x, dim), keepdims=keepdim)


@function("any")
def some(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """Whether any holds."""
    return jnp.any(x, axis=axes_of(x, dim), keepdims=keepdim)


@function("norm", "linalg_vector_norm", "linalg_norm")
def norm(x: jax.Array, *args: Argument, **kwargs: Argument) -> Any:
    """The norm of all elements, or along axes; its gradient at 0 is 0."""
    names = ("p", "dim", "keepdim", "dtype")
    given = dict(zip(names, args, strict=False)) | {("p" if key == "ord" else key): v for key, v in kwargs.items()}
    kind = given.get("p", 2)
    kind = 2 if kind is None or kind == "fro" else float(kind)
    axes, keep = axes_of(x, given.get("dim")), bool(given.get("keepdim", False))
    if math.isinf(kind):
        size = jnp.abs(x)
        return (jnp.max if kind > 0 else jnp.min)(size, axis=axes, keepdims=keep)
    if kind == 2:
        return safe_root(jnp.sum(x * x, axis=axes, keepdims=keep))
    size = jnp.sign(x) * x
    if kind == 1:
        return jnp.sum(size, axis=axes, keepdims=keep)
    if kind == 0:
        return jnp.sum(x != 0, axis=axes, keepdims=keep).astype(x.dtype)
    inside = jnp.where(size == 0, 1.0, size)
    whole = jnp.sum(jnp.where(size == 0, 0.0, inside**kind), axis=axes, keepdims=keep)
    return jnp.where(whole == 0, 0.0, jnp.where(whole == 0, 1.0, whole) ** (1 / kind))


@function("dist")
def dist(x: jax.Array, other: jax.Array, p: Argument = 2) -> Any:
    """The norm of a difference."""
    return norm(x - other, p)


@function("pairwise_distance")
def pairwise_distance(
    x: jax.Array, other: jax.Array, p: Argument = 2, eps: Argument = 1e-6, keepdim: bool = False
) -> Any:
    """The norm of differences of rows, with an epsilon in each element."""
    return norm(x - other + eps, p, -1, keepdim)


@function("cosine_similarity")
def cosine_similarity(x: jax.Array, other: jax.Array, dim: int = 1, eps: Argument = 1e-8) -> Any:
    """The cosine of the angle between vectors."""
    x, other = jnp.broadcast_arrays(floating(x), floating(other))
    axes = axes_of(x, dim)
    first, second = (safe_root(jnp.sum(each * each, axis=axes, keepdims=True)) for each in (x, other))
    made = jnp.sum(x / jnp.maximum(first, eps) * (other / jnp.maximum(second, eps)), axis=axes, keepdims=True)
    return jnp.squeeze(made, axes)


@function("cdist", "_cdist_forward")
def cdist(x: jax.Array, other: jax.Array, p: Argument = 2.0, compute_mode: Argument = None) -> Any:
    """Distances of all rows to all rows."""
    return norm(jnp.expand_dims(x, -2) - jnp.expand_dims(other, -3), p, -1)


@function("logsumexp", "special_logsumexp")
def logsumexp(x: jax.Array, dim: Argument, keepdim: bool = False) -> Any:
    """The logarithm of a sum of exponentials."""
    axes = axes_of(x, dim)
    most = lax.stop_gradient(jnp.max(floating(x), axis=axes, keepdims=True))
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    made = jnp.log(jnp.sum(jnp.exp(x - most), axis=axes, keepdims=True)) + most
    return made if keepdim else jnp.squeeze(made, axes)


@function("softmax", "special_softmax")
def softmax(x: jax.Array, dim: int, *_: Argument, dtype: Argument = None) -> Any:
    """Exponentials that add up to 1."""
    x = floating(x) if dtype is None else x.astype(dtype)
    raised = jnp.exp(x - lax.stop_gradient(jnp.max(x, axis=dim, keepdims=True)))
    return raised / jnp.sum(raised, axis=dim, keepdims=True)


@function("log_softmax", "special_log_softmax")
def log_softmax(x: jax.Array, dim: int, *_: Argument, dtype: Argument = None) -> Any:
    """The logarithm of softmax."""
    x = floating(x) if dtype is None else x.astype(dtype)
    shifted = x - lax.stop_gradient(jnp.max(x, axis=dim, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=dim, keepdims=True))


@function("trace")
def trace(x: jax.Array) -> Any:
    """The sum of the diagonal."""
    return jnp.trace(x)


@function("diff")
def diff(x: jax.Array, n: int = 1, dim: int = -1, prepend: Argument = None, append: Argument = None) -> Any:
    """Differences of neighbours."""
    return jnp.diff(x, n, dim, prepend, append)


@function("aminmax")
def aminmax(x: jax.Array, dim: Argument = None, keepdim: bool = False) -> Any:
    """The smallest and the largest."""
    return amin(x, dim, keepdim), amax(x, dim, keepdim)


@function("nanmean")
def nanmean(x: jax.Array, dim: Argument = None, keepdim: bool = False, dtype: Argument = None) -> Any:
    """The mean of what is no NaN."""
    axes = axes_of(x, dim)
    counts = jnp.sum(~jnp.isnan(x), axis=axes, keepdims=keepdim)
    return jnp.sum(jnp.where(jnp.isnan(x), 0, x), axis=axes, keepdims=keepdim) / counts


@function("renorm")
def renorm(x: jax.Array, p: Argument, dim: int, maxnorm: Argument) -> Any:
    """Slices of an axis made no longer than a norm."""
    axes = tuple(axis for axis in range(x.ndim) if axis != dim % x.ndim)
    length = norm(x, p, axes, True)
    return jnp.where(length > maxnorm, x * (maxnorm / (length + 1e-7)), x)


@function("cov")
def cov(x: jax.Array, correction: int = 1, fweights: Argument = None, aweights: Argument = None) -> Any:
    """Covariances of rows."""
    return jnp.cov(x, ddof=correction, fweights=fweights, aweights=aweights)


@function("corrcoef")
def corrcoef(x: jax.Array) -> Any:
    """Correlations of rows."""
    return jnp.corrcoef(x)


@function("trapezoid", "trapz")
def trapezoid(y: jax.Array, x: Argument = None, dx: Argument = 1.0, dim: int = -1) -> Any:
    """The area under a curve."""
    if x is not None and not isinstance(x, jax.Array):
        x, dx = None, x
    return jnp.trapezoid(y, x, dx, dim)


@function("sum_to_size")
def sum_to_size(x: jax.Array, *size: Argument) -> Any:
    """Sums over the axes that were broadcast."""
    wanted = sizes(size)
    lead = x.ndim - len(wanted)
    x = jnp.sum(x, axis=tuple(range(lead)))
    axes = tuple(k for k, (mine, own) in enumerate(zip(wanted, x.shape, strict=True)) if mine == 1 and own != 1)
    return jnp.sum(x, axis=axes, keepdims=True)
