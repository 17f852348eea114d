"""PyTorch's products of matrices, and what is made of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from parity.porting.torch_functions.registry import Argument, enter, function


@function("matmul", "mm", "bmm", "mv", "dot", "vdot", "__matmul__", "inner_product")
def matmul(x: jax.Array, other: jax.Array) -> Any:
    """Products of matrices, or of vectors."""
    return jnp.matmul(x, other)


@function("__rmatmul__")
def rmatmul(x: jax.Array, other: jax.Array) -> Any:
    """The product in the other order."""
    return jnp.matmul(other, x)


@function("linear")
def linear(x: jax.Array, weight: jax.Array, bias: Argument = None) -> Any:
    """``x Wᵀ + b``."""
    made = jnp.matmul(x, weight.T)
    return made if bias is None else made + bias


@function("bilinear")
def bilinear(x: jax.Array, other: jax.Array, weight: jax.Array, bias: Argument = None) -> Any:
    """``xᵀ W y + b`` for each output."""
    made = jnp.einsum("...i,oij,...j->...o", x, weight, other)
    return made if bias is None else made + bias


@function("addmm", "addmv", "addmm_", "baddbmm")
def addmm(x: jax.Array, first: jax.Array, second: jax.Array, beta: Argument = 1, alpha: Argument = 1) -> Any:
    """``beta x + alpha (first second)``."""
    return beta * x + alpha * jnp.matmul(first, second)


@function("addbmm")
def addbmm(x: jax.Array, first: jax.Array, second: jax.Array, beta: Argument = 1, alpha: Argument = 1) -> Any:
    """``beta x + alpha`` times a sum of products."""
    return beta * x + alpha * jnp.matmul(first, second).sum(0)


@function("addr")
def addr(x: jax.Array, first: jax.Array, second: jax.Array, beta: Argument = 1, alpha: Argument = 1) -> Any:
    """``beta x + alpha`` times an outer product."""
    return beta * x + alpha * first[:, None] * second[None, :]


@function("einsum")
def einsum(equation: str, *operands: Argument) -> Any:
    """Sums of products, as an equation says."""
    listed = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    return jnp.einsum(equation, *listed)


@function("tensordot")
def tensordot(x: jax.Array, other: jax.Array, dims: Argument = 2, dims_other: Argument = None, **_: Argument) -> Any:
    """Sums of products over axes."""
    axes = (list(dims), list(dims_other)) if dims_other is not None else dims
    if isinstance(axes, int):
        return jnp.tensordot(x, other, axes)
    # PyTorch sums an axis of length 1 first, where the other one is longer.
    for first, second in zip(*axes, strict=True):
        if x.shape[first] == 1 != other.shape[second]:
            other = jnp.sum(other, second, keepdims=True)
        elif other.shape[second] == 1 != x.shape[first]:
            x = jnp.sum(x, first, keepdims=True)
    return jnp.tensordot(x, other, tuple(map(tuple, axes)))


@function("outer", "ger")
def outer(x: jax.Array, other: jax.Array) -> Any:
    """Every product of two elements."""
    return x[:, None] * other[None, :]


@function("inner")
def inner(x: jax.Array, other: jax.Array) -> Any:
    """Sums of products over the last axes."""
    return jnp.inner(x, other)


@function("cross", "linalg_cross")
def cross(x: jax.Array, other: jax.Array, dim: int = -1) -> Any:
    """The vector product."""
    first, second = jnp.broadcast_arrays(x, other)
    return jnp.cross(first, second, axis=dim)


@function("matrix_power", "linalg_matrix_power")
def matrix_power(x: jax.Array, n: int) -> Any:
    """A matrix times itself."""
    return jnp.linalg.matrix_power(x, n)


@function("logdet")
def logdet(x: jax.Array) -> Any:
    """The logarithm of a determinant."""
    return jnp.linalg.slogdet(x)[1]


@function("linalg_slogdet", "slogdet")
def slogdet(x: jax.Array) -> Any:
    """The sign of a determinant, and the logarithm of its size."""
    return tuple(jnp.linalg.slogdet(x))


@function("cholesky", "linalg_cholesky")
def cholesky(x: jax.Array, upper: bool = False) -> Any:
    """The Cholesky factor."""
    made = jnp.linalg.cholesky(x)
    return jnp.swapaxes(made, -1, -2) if upper else made


@function("linalg_solve_triangular")
def solve_triangular(x: jax.Array, b: jax.Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """Solve with a triangular matrix."""
    return jax.lax.linalg.triangular_solve(x, b, left_side=left, lower=not upper, unit_diagonal=unitriangular)


@function("linalg_multi_dot", "chain_matmul")
def multi_dot(tensors: Sequence[jax.Array]) -> Any:
    """A product of several matrices."""
    made = tensors[0]
    for each in tensors[1:]:
        made = jnp.matmul(made, each)
    return made


@function("_weight_norm")
def weight_norm(v: jax.Array, g: jax.Array, dim: int = 0) -> Any:
    """``g v / ‖v‖``, the norm taken of each slice of an axis."""
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim) if dim != -1 else tuple(range(v.ndim))
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=axes, keepdims=True)))


@function("scaled_dot_product_attention", "attention")
def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    attn_mask: Argument = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Argument = None,
    enable_gqa: bool = False,
    draw: Argument = None,
) -> Any:
    """Vaswani et al., 2017; ``draw`` is what dropout multiplies the weights with."""
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = jnp.repeat(key, times, -3), jnp.repeat(value, times, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)) * factor
    if is_causal:
        attn_mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if attn_mask is not None:
        is_mask = attn_mask.dtype == bool
        scores = jnp.where(attn_mask, scores, -jnp.inf) if is_mask else scores + attn_mask
    most = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    raised = jnp.exp(scores - most)
    whole = jnp.sum(raised, -1, keepdims=True)
    weights = raised / jnp.where(whole == 0, 1.0, whole)
    return jnp.matmul(weights if draw is None else weights * draw, value)


enter(
    det=lambda x: jnp.linalg.det(x),
    linalg_det=lambda x: jnp.linalg.det(x),
    inverse=lambda x: jnp.linalg.inv(x),
    linalg_inv=lambda x: jnp.linalg.inv(x),
    linalg_solve=lambda x, b: jnp.linalg.solve(x, b),
    kron=lambda x, other: jnp.kron(x, other),
    matrix_exp=lambda x: jax.scipy.linalg.expm(x),
    linalg_matrix_exp=lambda x: jax.scipy.linalg.expm(x),
)
