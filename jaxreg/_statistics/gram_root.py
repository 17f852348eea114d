"""One pass over the data, and all that a linear model's squared error sees of it: a root of its cross-products."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Float, Float64

from jaxreg._statistics import host_blas
from jaxreg._types import AnyArray, Array, DType, Rows

_Spec: Callable[..., jax.sharding.PartitionSpec] = jax.sharding.PartitionSpec
# The names of the axes of a mesh that the rows lie on.
_Axes: TypeAlias = str | tuple[str, ...]
# Numbers of a block: it must stay in cache while it is widened to float64 and multiplied.
_NUMBERS_AT_ONCE = 1 << 19
# Where several devices have rows each. A TPU pads a number to many: it has no room for more at once.
_NUMBERS_A_DEVICE = 1 << 18
# Parts of a block that are multiplied side by side: a core each, where one product would be too small to share.
_PARTS_A_BLOCK = 4
# Numbers side by side whose sums fill the vectors of any processor.
_NUMBERS_A_VECTOR = 64
# Rows of a block are a multiple of it: a TPU would copy all data into another layout to cut them elsewhere.
_ROWS_MULTIPLE = 128
# Below this many numbers, using the rows directly is faster than reducing them.
_DIRECT_NUMBERS = 1 << 12
# Rows that one call is given of data in the host's memory, so that it is never held twice.
_HOST_NUMBERS_A_CALL = 1 << 22
# From so many columns on, and of so many numbers, the host's BLAS is quicker than XLA's CPU runtime; from fewer columns
# on where it has a way for small products.
_MIN_BLAS_COLUMNS, _MIN_SMALL_BLAS_COLUMNS, _MIN_BLAS_NUMBERS = 24, 8, 1 << 20


def gram_root(
    inputs: AnyArray, targets: AnyArray, weights: AnyArray | None = None, *, dtype: DType
) -> Float64[Array, "m columns"]:
    r"""Return a matrix :math:`R` with :math:`R^T R = Z^T Z` for :math:`Z = \sqrt{w} [X\ 1\ Y]`, in float64.

    Cross-products of float32 data are exact in float64 and summed in it: their error is :math:`2^{-29}` of what a loop
    in float32 makes in every step. Of float64 data an orthogonal reduction is taken instead (Householder's QR, block by
    block): products would square the condition number (Golub and Van Loan, *Matrix Computations*, 5.3).

    Args:
        inputs: shape ``(rows, in_features)``, on a device or in NumPy.
        targets: shape ``(rows, out_features)``.
        weights: shape ``(rows,)``, of each row's squared error; ``None`` for 1.
        dtype: float32 or float64, to which all are rounded first.

    Returns:
        Shape ``(rows of R, in_features + 1 + out_features)``, with no more rows than columns or than the data has.
    """
    data = (inputs, targets, weights)
    with jax.enable_x64(True):
        if _by_blas(data, dtype):
            with host_blas.one_thread():
                found: Array = jax.block_until_ready(_square_root(host_blas.products(*data, dtype)))  # type: ignore[no-untyped-call]
            return found
        if fits_one_call(data, dtype):
            return _gram_root(data, dtype.name)
        over = row_sharding(inputs)
        if over is not None:
            there = NamedSharding(over.mesh, _Spec(over.spec[0]))
            return sharded_gram_root(jax.device_put(data, there), dtype=dtype.name, mesh=over.mesh, axes=over.spec[0])
        rows, orthogonal, step = inputs.shape[0], _is_orthogonal(data, dtype), _rows_at_once(data)
        parts = (jax.tree.map(lambda leaf, at=at: leaf[at : at + step], data) for at in range(0, rows, step))
        reduced = functools.partial(_reduced, dtype=dtype.name, orthogonal=orthogonal)
        return _finished(functools.reduce(reduced, parts, None), orthogonal)


def products_of_batches(
    inputs: AnyArray, targets: AnyArray, weights: AnyArray | None = None, *, dtype: DType, size: int, rows: int
) -> Float64[AnyArray, "batches columns columns"]:
    """Return the cross-products of every batch of ``size`` rows, the last of those that are left, in float64.

    Args:
        size: of a batch.
        rows: how many there are in all batches, the first of the data; they are not copied.

    The other arguments are those of :func:`gram_root`.
    """
    data = (inputs, targets, weights)
    if _all_in_host_memory(data):
        return host_blas.products_of_batches(*data, dtype, size, rows)
    with jax.enable_x64(True):
        return products_of_batches_on(data, dtype.name, size, rows)


@functools.partial(jax.jit, static_argnames=("dtype", "size", "rows"))
def products_of_batches_on(data: Rows, dtype: str, size: int, rows: int) -> Float64[Array, "batches columns columns"]:
    """Do as :func:`products_of_batches` on the device that has the data, to be called with float64 enabled."""
    columns = host_blas.columns_of(data)
    add = functools.partial(_multiplied, jnp.zeros((columns, columns)), data=data, dtype=dtype)
    together, whole, found = max(_NUMBERS_AT_ONCE // (size * columns), 1), rows // size, []
    if whole:
        found = [lax.map(lambda at: add(start=at, size=size), size * jnp.arange(whole), batch_size=together)]
    if rows % size:
        found.append(add(start=whole * size, size=rows % size)[None])
    return jnp.concatenate(found)


def single_threaded_lapack(data: Rows | None, dtype: DType) -> AbstractContextManager[None]:
    """Return a context for work with :func:`gram_root` that is waited for: LAPACK stays out of the next one's way."""
    return host_blas.one_thread() if data is not None and _by_blas(data, dtype) else contextlib.nullcontext()


def fits_one_call(data: Rows, dtype: DType) -> bool:
    """Return whether the data go through in one call: they are on a device, or few."""
    if _by_blas(data, dtype):
        return False
    if isinstance(data[0], np.ndarray):
        return bool(data[0].shape[0] <= _rows_at_once(data))
    return row_sharding(data[0]) is None


def _by_blas(data: Rows, dtype: DType) -> bool:
    """Return whether the host's BLAS makes the products: there are many, and the data are in the host's memory."""
    columns = host_blas.columns_of(data)
    if (
        columns < _MIN_SMALL_BLAS_COLUMNS
        or data[0].shape[0] * columns < _MIN_BLAS_NUMBERS
        or _is_orthogonal(data, dtype)
    ):
        return False
    return _all_in_host_memory(data) and (columns >= _MIN_BLAS_COLUMNS or host_blas.has_small_products())


def _all_in_host_memory(data: Rows) -> bool:
    return all(_in_host_memory(leaf) for leaf in data if leaf is not None)


def _in_host_memory(leaf: AnyArray) -> bool:
    if isinstance(leaf, np.ndarray):
        return jax.default_backend() == "cpu"
    if isinstance(leaf, jax.core.Tracer):
        return False
    return len(leaf.devices()) == 1 and next(iter(leaf.devices())).platform == "cpu"


def row_sharding(inputs: AnyArray) -> NamedSharding | None:
    """Return how the rows lie on several devices; ``None`` where they do not."""
    found = getattr(inputs, "sharding", None)
    if not isinstance(found, NamedSharding) or found.is_fully_replicated:
        return None
    return found if len(found.spec) > 0 and found.spec[0] is not None else None


@functools.partial(jax.jit, static_argnames=("dtype", "mesh", "axes"))
def sharded_gram_root(data: Rows, *, dtype: str, mesh: jax.sharding.Mesh, axes: _Axes) -> Float64[Array, "m columns"]:
    """Return :func:`gram_root` of rows on several devices: each reduces its own, and the sums are added up.

    Only matrices of ``columns x columns`` go from one device to another. To be traced with float64 enabled.
    """
    orthogonal = _is_orthogonal(data, np.dtype(dtype))

    def own(part: Rows) -> Array:
        found = _reduced(None, part, dtype, orthogonal, _NUMBERS_A_DEVICE)
        return found if orthogonal else lax.psum(found, axes)  # type: ignore[no-untyped-call]

    here = _Spec(axes)
    reduced = jax.shard_map(own, mesh=mesh, in_specs=here, out_specs=here if orthogonal else _Spec())(data)
    if not orthogonal:
        return _square_root(reduced)
    everywhere = NamedSharding(mesh, _Spec())
    return _orthogonal(lax.with_sharding_constraint(reduced, everywhere))  # type: ignore[no-untyped-call]


def traced_gram_root(data: Rows, dtype: str) -> Float64[Array, "m columns"]:
    """Return :func:`gram_root` of data that go through in one call, to be traced with float64 enabled."""
    orthogonal = _is_orthogonal(data, np.dtype(dtype))
    return _finished(_reduced(None, data, dtype, orthogonal), orthogonal)


_gram_root = functools.partial(jax.jit, static_argnames=("dtype",))(traced_gram_root)


def rows_or_root(data: Rows, dtype: str | DType) -> Float64[Array, "m columns"]:
    """Return the rows themselves where they are few, which are a root as well; else :func:`traced_gram_root`."""
    rows = data[0].shape[0]
    if rows * host_blas.columns_of(data) <= _DIRECT_NUMBERS:
        return _block(data, dtype, 0, rows)
    return traced_gram_root(data, np.dtype(dtype).name)


def _rows_at_once(data: Rows) -> int:
    return max(_HOST_NUMBERS_A_CALL // host_blas.columns_of(data), 2 * host_blas.columns_of(data))


def _is_orthogonal(data: Rows, dtype: DType) -> bool:
    return dtype == np.float64 or data[0].shape[0] <= 4 * host_blas.columns_of(data)


def merge_roots(roots: Sequence[Float64[Array, "_ columns"]]) -> Float64[Array, "m columns"]:
    """Return a root of the sum of what several are roots of."""
    with jax.enable_x64(True):
        return _orthogonal(jnp.concatenate(roots))


@functools.partial(jax.jit, static_argnames=("dtype", "orthogonal", "numbers"))
def _reduced(
    total: Float64[Array, "k columns"] | None, data: Rows, dtype: str, orthogonal: bool, numbers: int = _NUMBERS_AT_ONCE
) -> Float64[Array, "m columns"]:
    """Return the cross-products, or the triangle of an orthogonal reduction, of the data and of what came before it."""
    rows, columns = data[0].shape[0], host_blas.columns_of(data)
    size = max(numbers // columns, 8 * columns if orthogonal else 1)
    size = min(max(size // _ROWS_MULTIPLE, 1) * _ROWS_MULTIPLE, rows)
    add = functools.partial(_stacked if orthogonal else _multiplied, data=data, dtype=dtype)
    whole, begin = rows // size, 0
    if total is None:
        total = add(jnp.zeros((0 if orthogonal else columns, columns)), start=0, size=size)
        begin = 1

    def body(number: Array | int, total: Array) -> Array:
        return add(total, start=number * size, size=size)

    total = lax.fori_loop(begin, whole, body, total) if begin < whole else total
    rest = rows - whole * size
    return add(total, start=whole * size, size=rest) if rest else total


def _cut(
    data: Rows, dtype: str | DType, start: Array | int, size: int, axis: int = 0
) -> tuple[Array, Array, Array | None]:
    """Return so many rows of inputs, targets and weights, rounded to ``dtype`` and then in float64."""

    def cut(leaf: AnyArray) -> Array:
        along = min(axis, leaf.ndim - 1)
        return lax.dynamic_slice_in_dim(leaf, start, size, along).astype(dtype).astype(np.float64)

    inputs, targets, weights = jax.tree.map(cut, tuple(data))
    return inputs, targets, weights


def _block(
    data: Rows, dtype: str | DType, start: Array | int, size: int, axis: int = 0
) -> Float64[Array, "rows columns"]:
    """Return the rows side by side and weighted; one above the other where they are along axis 1."""
    inputs, targets, weights = _cut(data, dtype, start, size, axis)
    ones = jnp.ones((1, size) if axis else (size, 1))
    block = jnp.concatenate([inputs, ones, targets], 1 - axis)
    if weights is None:
        return block
    return block * jnp.expand_dims(jnp.sqrt(weights), 1 - axis)


def _multiplied(
    total: Float64[Array, "c c"], *, data: Rows, dtype: str, start: Array | int, size: int
) -> Float64[Array, "c c"]:
    def down(total: Array, start: Array | int, data: Rows) -> Array:
        return total + _side_by_side(*_cut(data, dtype, start, size))

    def across(total: Array, start: Array | int, data: Rows) -> Array:
        inputs, targets, weights = jax.tree.map(jnp.transpose, data)
        block = _block((inputs, targets, weights), dtype, start, size, axis=1)
        return total + lax.dot_general(block, block, (((1,), (1,)), ((), ())), precision="highest")

    # A TPU keeps few columns as long rows, and would copy all of them to cut them the other way.
    added: Float64[Array, "c c"] = lax.platform_dependent(total, start, tuple(data), tpu=across, default=down)
    return added


def _side_by_side(
    inputs: Float64[Array, "n x"], targets: Float64[Array, "n y"], weights: Float64[Array, " n"] | None
) -> Float64[Array, "c c"]:
    """Return the cross-products of a block, its columns multiplied where they are: to copy them costs more."""
    parts = _PARTS_A_BLOCK if len(inputs) % _PARTS_A_BLOCK == 0 else 1

    def apart(rows: Array) -> Array:
        return rows.reshape(parts, len(rows) // parts, rows.shape[1])

    x, y = apart(inputs), apart(targets)
    if weights is None:
        count, of_x, of_y = jnp.full((1, 1), float(len(inputs))), _sums(x), _sums(y)
    else:
        root = jnp.sqrt(apart(weights[:, None]))
        x, y = root * x, root * y
        count, of_x, of_y = _crossed(root, root), _crossed(root, x), _crossed(root, y)
    with_y = _crossed(y, x)
    return jnp.block([[_crossed(x, x), of_x.T, with_y.T], [of_x, count, of_y], [with_y, of_y.T, _crossed(y, y)]])


def _crossed(a: Float64[Array, "parts n k"], b: Float64[Array, "parts n m"]) -> Float64[Array, "k m"]:
    each = lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,))), precision="highest")
    return jnp.sum(each, 0)


def _sums(columns: Float64[Array, "parts n k"]) -> Float64[Array, "1 k"]:
    """Return the sums of columns, several short rows at a time, so that the processor's vectors are filled."""
    parts, rows, width = columns.shape
    together = math.gcd(rows, max(_NUMBERS_A_VECTOR // max(width, 1), 1))
    folded = jnp.sum(columns.reshape(parts, rows // together, together * width), 1)
    return jnp.sum(folded.reshape(parts * together, width), 0, keepdims=True)


def _stacked(
    total: Float64[Array, "m c"], *, data: Rows, dtype: str, start: Array | int, size: int
) -> Float64[Array, "k c"]:
    return _orthogonal(jnp.concatenate([total, _block(data, dtype, start, size)]))


def _orthogonal(rows: Float[Array, "n c"]) -> Float[Array, "k c"]:
    return jnp.linalg.qr(rows, mode="r") if rows.shape[0] > rows.shape[1] else rows


def _finished(total: Float64[Array, "m c"], orthogonal: bool) -> Float64[Array, "k c"]:
    return total if orthogonal else _square_root(total)


@jax.jit
def _square_root(products: Float64[AnyArray, "c c"]) -> Float64[Array, "c c"]:
    """Return a root of cross-products; columns are first brought to one size, so that each keeps its own accuracy."""
    # LAPACK can hang on NaN or inf input.
    sound = jnp.all(jnp.isfinite(products))
    size = jnp.sqrt(jnp.diagonal(products))
    size = jnp.where(sound & (size > 0), size, 1.0)
    values, vectors = jnp.linalg.eigh(jnp.where(sound, products / (size[:, None] * size[None]), 0.0))
    return jnp.where(sound, jnp.sqrt(jnp.maximum(values, 0.0))[:, None] * vectors.T * size[None], jnp.nan)
