"""PyTorch's special functions, and its decompositions of matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special as jax_special

from parity.porting.torch_functions.elementwise import floating
from parity.porting.torch_functions.reductions import norm
from parity.porting.torch_functions.registry import Argument, axes_of, enter, function


def _turned(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _whole(x: jax.Array, half: str) -> jax.Array:
    """Return the symmetric matrix of which one half is given."""
    kept = jnp.tril(x) if half.upper() == "L" else jnp.triu(x)
    return kept + _turned(kept) - kept * jnp.eye(x.shape[-1], dtype=x.dtype)


enter(
    special_entr=lambda x: jax_special.entr(floating(x)),
    special_ndtr=lambda x: jax_special.ndtr(floating(x)),
    special_ndtri=lambda x: jax_special.ndtri(floating(x)),
    special_log_ndtr=lambda x: jax_special.log_ndtr(floating(x)),
    special_i0e=lambda x: jax_special.i0e(floating(x)),
    special_i1=lambda x: jax_special.i1(floating(x)),
    special_i1e=lambda x: jax_special.i1e(floating(x)),
    special_xlog1py=lambda x, y: jnp.where(jnp.equal(x, 0) & ~jnp.isnan(y), 0.0, x * jnp.log1p(y)),
    linalg_vecdot=lambda x, other, dim=-1: jnp.sum(x * other, axis=dim),
    linalg_inv_ex=lambda x: (jnp.linalg.inv(x), None),
    linalg_pinv=lambda x: jnp.linalg.pinv(x),
    pinverse=lambda x: jnp.linalg.pinv(x),
    linalg_eigvalsh=lambda x, UPLO="L": jnp.linalg.eigvalsh(_whole(x, UPLO)),
    linalg_svdvals=lambda x: jnp.linalg.svd(x, compute_uv=False),
    linalg_eigh=lambda x, UPLO="L": tuple(jnp.linalg.eigh(_whole(x, UPLO))),
    cholesky_solve=lambda b, x, upper=False: jax.scipy.linalg.cho_solve((x, not upper), b),
    cholesky_inverse=lambda x, upper=False: jnp.linalg.inv(_turned(x) @ x if upper else x @ _turned(x)),
)


@function("linalg_qr", "qr")
def qr(x: jax.Array, mode: str = "reduced") -> Any:
    """An orthogonal matrix and a triangular one."""
    return tuple(jnp.linalg.qr(x, mode="reduced" if mode in ("reduced", True) else "complete"))


@function("linalg_svd")
def svd(x: jax.Array, full_matrices: bool = True) -> Any:
    """Singular values and vectors."""
    return tuple(jnp.linalg.svd(x, full_matrices=full_matrices))


@function("linalg_matrix_norm")
def matrix_norm(
    x: jax.Array, ord: Argument = "fro", dim: Argument = (-2, -1), keepdim: bool = False, dtype: Argument = None
) -> Any:
    """A norm of matrices."""
    if ord == "fro":
        return norm(x, 2, axes_of(x, dim), keepdim)
    return jnp.linalg.norm(x, ord=ord, axis=tuple(dim), keepdims=keepdim)


@function("grid_sampler", "grid_sampler_2d")
def grid_sample(x: jax.Array, grid: jax.Array, mode: int, padding_mode: int, align_corners: bool) -> Any:
    """Images read at places between the pixels, linearly, with zeros or the edge outside."""
    if x.ndim != 4 or mode != 0 or padding_mode == 2:
        raise NotImplementedError("grid_sample but for images read linearly, with zeros or the edge outside")
    height, width = x.shape[2:]
    sizes = (width, height)
    at = []
    for k, size in enumerate(sizes):
        place = grid[..., k]
        place = (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2
        at.append(jnp.clip(place, 0, size - 1) if padding_mode == 1 else place)
    low = [jnp.floor(place) for place in at]
    made: Any = 0.0
    for down in (0, 1):
        for right in (0, 1):
            column, row = low[0] + right, low[1] + down
            share = (1 - jnp.abs(at[0] - column)) * (1 - jnp.abs(at[1] - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            rows, columns = jnp.clip(row, 0, height - 1).astype(int), jnp.clip(column, 0, width - 1).astype(int)
            read = jax.vmap(lambda image, r, c: image[:, r, c])(x, rows, columns)
            made = made + read * jnp.where(inside, share, 0.0)[:, None]
    return made


@function("linalg_cholesky_ex")
def cholesky_ex(x: jax.Array, upper: bool = False, check_errors: bool = False) -> Any:
    """The Cholesky factor."""
    made = jnp.linalg.cholesky(x)
    return _turned(made) if upper else made, None
