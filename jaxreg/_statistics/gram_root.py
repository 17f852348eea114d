"""One pass over the data, and all that a linear model's squared error sees of it: a root of its cross-products."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Float, Float64

from jaxreg._statistics import host_blas

# Untyped in JAX.
_Spec: Any = jax.sharding.PartitionSpec
# Numbers of a block: it must stay in cache while it is widened to float64 and multiplied.
_NUMBERS_AT_ONCE = 1 << 19
# Where several devices have rows each. A TPU pads a number to many: it has no room for more at once.
_NUMBERS_OF_EACH = 1 << 18
# Parts of a block that are multiplied side by side: a core each, where one product would be too small to share.
_PARTS = 4
# Numbers side by side whose sums fill the vectors of any processor.
_VECTOR = 64
# Rows of a block are a multiple of it: a TPU would copy all data into another layout to cut them elsewhere.
_LANES = 128
# Numbers that are sooner worked with than reduced.
_FEW = 1 << 12
# Rows that one call is given of data in the host's memory, so that it is never held twice.
_HOST_NUMBERS = 1 << 22
# From so many columns on, and of so many numbers, the host's BLAS is quicker than XLA's CPU runtime; from fewer columns
# on where it has a way for small products.
_BLAS_COLUMNS, _FEWER_COLUMNS, _BLAS_NUMBERS = 24, 8, 1 << 20


def root(inputs: Any, targets: Any, weights: Any = None, *, dtype: Any) -> Float64[jax.Array, "rows columns"]:
    r"""A matrix :math:`R` with :math:`R^T R = Z^T Z` for :math:`Z = \sqrt{w} [X\ 1\ Y]`, in float64.

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
                found: Any = jax.block_until_ready(_square_root(host_blas.products(*data, dtype)))  # type: ignore[no-untyped-call]
            return found
        if in_one(data, dtype):
            return _root_of(data, dtype.name)
        over = rows_over(inputs)
        if over is not None:
            there = NamedSharding(over.mesh, _Spec(over.spec[0]))
            return root_over(jax.device_put(data, there), dtype=dtype.name, mesh=over.mesh, axes=over.spec[0])
        rows, orthogonal, step = inputs.shape[0], _is_orthogonal(data, dtype), _rows_at_once(data)
        total: Any = None
        for start in range(0, rows, step):
            part = jax.tree.map(lambda leaf, at=start: leaf[at : at + step], data)
            total = _reduced(total, part, dtype.name, orthogonal)
        return _finished(total, orthogonal)


def products_of_batches(
    inputs: Any, targets: Any, weights: Any = None, *, dtype: Any, size: int, rows: int
) -> Float64[Any, "batches columns columns"]:
    """Cross-products of every batch of ``size`` rows, the last of those that are left, in float64.

    Args:
        size: of a batch.
        rows: how many there are in all batches, the first of the data; they are not copied.

    The other arguments are those of :func:`root`.
    """
    data = (inputs, targets, weights)
    if _all_in_host_memory(data):
        return host_blas.products_of_batches(*data, dtype, size, rows)
    with jax.enable_x64(True):
        return products_of_batches_on(data, dtype.name, size, rows)


@functools.partial(jax.jit, static_argnames=("dtype", "size", "rows"))
def products_of_batches_on(
    data: Any, dtype: str, size: int, rows: int
) -> Float64[jax.Array, "batches columns columns"]:
    """:func:`products_of_batches` on the device that has the data, to be called with float64 enabled."""
    columns = host_blas.columns_of(data)
    add = functools.partial(_multiplied, jnp.zeros((columns, columns)), data=data, dtype=dtype)
    together, whole, found = max(_NUMBERS_AT_ONCE // (size * columns), 1), rows // size, []
    if whole:
        found = [lax.map(lambda at: add(start=at, size=size), size * jnp.arange(whole), batch_size=together)]
    if rows % size:
        found.append(add(start=whole * size, size=rows % size)[None])
    return jnp.concatenate(found)


def small_work(data: Any, dtype: Any) -> Any:
    """A context for what is done with :func:`root`, and waited for; LAPACK keeps out of the next one's way there."""
    return host_blas.one_thread() if data is not None and _by_blas(data, dtype) else contextlib.nullcontext()


def in_one(data: Any, dtype: Any) -> bool:
    """Whether the data go through in one call: they are on a device, or few."""
    if _by_blas(data, dtype):
        return False
    if isinstance(data[0], np.ndarray):
        return bool(data[0].shape[0] <= _rows_at_once(data))
    return rows_over(data[0]) is None


def _by_blas(data: Any, dtype: Any) -> bool:
    """Whether the host's BLAS makes the cross-products: there are many, and the data are in the host's memory."""
    columns = host_blas.columns_of(data)
    if columns < _FEWER_COLUMNS or data[0].shape[0] * columns < _BLAS_NUMBERS or _is_orthogonal(data, dtype):
        return False
    return _all_in_host_memory(data) and (columns >= _BLAS_COLUMNS or host_blas.has_small_products())


def _all_in_host_memory(data: Any) -> bool:
    return all(_in_host_memory(leaf) for leaf in data if leaf is not None)


def _in_host_memory(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return jax.default_backend() == "cpu"
    if isinstance(leaf, jax.core.Tracer):
        return False
    return len(leaf.devices()) == 1 and next(iter(leaf.devices())).platform == "cpu"


def rows_over(inputs: Any) -> NamedSharding | None:
    """How the rows lie on several devices; ``None`` where they do not."""
    found = getattr(inputs, "sharding", None)
    if not isinstance(found, NamedSharding) or found.is_fully_replicated:
        return None
    return found if len(found.spec) > 0 and found.spec[0] is not None else None


@functools.partial(jax.jit, static_argnames=("dtype", "mesh", "axes"))
def root_over(data: Any, *, dtype: str, mesh: Any, axes: Any) -> Float64[jax.Array, "rows columns"]:
    """:func:`root` of data whose rows lie on several devices: each reduces its own, and the sums are added up.

    Only matrices of ``columns x columns`` go from one device to another. To be traced with float64 enabled.
    """
    orthogonal = _is_orthogonal(data, np.dtype(dtype))

    def own(part: Any) -> Any:
        found = _reduced(None, part, dtype, orthogonal, _NUMBERS_OF_EACH)
        return found if orthogonal else lax.psum(found, axes)  # type: ignore[no-untyped-call]

    here = _Spec(axes)
    reduced = jax.shard_map(own, mesh=mesh, in_specs=here, out_specs=here if orthogonal else _Spec())(data)
    if not orthogonal:
        return _square_root(reduced)
    everywhere = NamedSharding(mesh, _Spec())
    return _orthogonal(lax.with_sharding_constraint(reduced, everywhere))  # type: ignore[no-untyped-call]


def root_of(data: Any, dtype: str) -> Float64[jax.Array, "rows columns"]:
    """:func:`root` of data that go through in one call, to be traced with float64 enabled."""
    orthogonal = _is_orthogonal(data, np.dtype(dtype))
    return _finished(_reduced(None, data, dtype, orthogonal), orthogonal)


_root_of = functools.partial(jax.jit, static_argnames=("dtype",))(root_of)


def rows_or_root(data: Any, dtype: str) -> Float64[jax.Array, "rows columns"]:
    """The rows themselves where they are few, as good a root as any for what is done once; else :func:`root_of`."""
    rows = data[0].shape[0]
    return _block(data, dtype, 0, rows) if rows * host_blas.columns_of(data) <= _FEW else root_of(data, dtype)


def _rows_at_once(data: Any) -> int:
    return max(_HOST_NUMBERS // host_blas.columns_of(data), 2 * host_blas.columns_of(data))


def _is_orthogonal(data: Any, dtype: Any) -> bool:
    return dtype == np.float64 or data[0].shape[0] <= 4 * host_blas.columns_of(data)


def merged(roots: Any) -> Float64[jax.Array, "rows columns"]:
    """A root of the sum of what several are roots of."""
    with jax.enable_x64(True):
        return _orthogonal(jnp.concatenate(roots))


@functools.partial(jax.jit, static_argnames=("dtype", "orthogonal", "numbers"))
def _reduced(
    total: Any, data: Any, dtype: str, orthogonal: bool, numbers: int = _NUMBERS_AT_ONCE
) -> Float64[jax.Array, "rows columns"]:
    """Cross-products, or the triangle of an orthogonal reduction, of the data and of what came before it."""
    rows, columns = data[0].shape[0], host_blas.columns_of(data)
    size = max(numbers // columns, 8 * columns if orthogonal else 1)
    size = min(max(size // _LANES, 1) * _LANES, rows)
    add = functools.partial(_stacked if orthogonal else _multiplied, data=data, dtype=dtype)
    whole, begin = rows // size, 0
    if total is None:
        total = add(jnp.zeros((0 if orthogonal else columns, columns)), start=0, size=size)
        begin = 1

    def body(number: jax.Array, total: jax.Array) -> jax.Array:
        return add(total, start=number * size, size=size)

    total = lax.fori_loop(begin, whole, body, total) if begin < whole else total
    rest = rows - whole * size
    return add(total, start=whole * size, size=rest) if rest else total


def _cut(data: Any, dtype: str, start: Any, size: int, axis: int = 0) -> tuple[Any, Any, Any]:
    """So many rows of inputs, targets and weights, rounded to ``dtype`` and then in float64."""

    def cut(leaf: Any) -> Any:
        along = min(axis, leaf.ndim - 1)
        return lax.dynamic_slice_in_dim(leaf, start, size, along).astype(dtype).astype(np.float64)

    inputs, targets, weights = jax.tree.map(cut, tuple(data))
    return inputs, targets, weights


def _block(data: Any, dtype: str, start: Any, size: int, axis: int = 0) -> Float64[jax.Array, ...]:
    """The rows side by side and weighted; one above the other where they are along axis 1."""
    inputs, targets, weights = _cut(data, dtype, start, size, axis)
    ones = jnp.ones((1, size) if axis else (size, 1))
    block = jnp.concatenate([inputs, ones, targets], 1 - axis)
    if weights is None:
        return block
    return block * jnp.expand_dims(jnp.sqrt(weights), 1 - axis)


def _multiplied(
    total: Float64[jax.Array, "c c"], *, data: Any, dtype: str, start: Any, size: int
) -> Float64[jax.Array, "c c"]:
    def down(total: Any, start: Any, data: Any) -> Any:
        return total + _side_by_side(*_cut(data, dtype, start, size))

    def across(total: Any, start: Any, data: Any) -> Any:
        block = _block(tuple(leaf if leaf is None else leaf.T for leaf in data), dtype, start, size, axis=1)
        return total + lax.dot_general(block, block, (((1,), (1,)), ((), ())), precision="highest")

    # A TPU keeps few columns as long rows, and would copy all of them to cut them the other way.
    added: Float64[jax.Array, "c c"] = lax.platform_dependent(total, start, tuple(data), tpu=across, default=down)
    return added


def _side_by_side(inputs: Any, targets: Any, weights: Any) -> Float64[jax.Array, "c c"]:
    """Cross-products of a block, its columns multiplied where they are: to set them beside each other costs more."""
    parts = _PARTS if len(inputs) % _PARTS == 0 else 1

    def apart(rows: jax.Array) -> jax.Array:
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


def _crossed(a: Float64[jax.Array, "parts n k"], b: Float64[jax.Array, "parts n m"]) -> Float64[jax.Array, "k m"]:
    each = lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,))), precision="highest")
    return jnp.sum(each, 0)


def _sums(columns: Float64[jax.Array, "parts n k"]) -> Float64[jax.Array, "1 k"]:
    """Sums of columns, several rows at a time where they are short, so that the processor's vectors are filled."""
    parts, rows, width = columns.shape
    together = math.gcd(rows, max(_VECTOR // max(width, 1), 1))
    folded = jnp.sum(columns.reshape(parts, rows // together, together * width), 1)
    return jnp.sum(folded.reshape(parts * together, width), 0, keepdims=True)


def _stacked(
    total: Float64[jax.Array, "m c"], *, data: Any, dtype: str, start: Any, size: int
) -> Float64[jax.Array, "k c"]:
    return _orthogonal(jnp.concatenate([total, _block(data, dtype, start, size)]))


def _orthogonal(rows: Float[jax.Array, "n c"]) -> Float[jax.Array, "k c"]:
    return jnp.linalg.qr(rows, mode="r") if rows.shape[0] > rows.shape[1] else rows


def _finished(total: Float64[jax.Array, "m c"], orthogonal: bool) -> Float64[jax.Array, "k c"]:
    return total if orthogonal else _square_root(total)


@jax.jit
def _square_root(products: Float64[jax.Array, "c c"]) -> Float64[jax.Array, "c c"]:
    """A root of cross-products; columns are first brought to one size, so that each keeps its own accuracy."""
    # LAPACK may never come back from what is not finite.
    sound = jnp.all(jnp.isfinite(products))
    size = jnp.sqrt(jnp.diagonal(products))
    size = jnp.where(sound & (size > 0), size, 1.0)
    values, vectors = jnp.linalg.eigh(jnp.where(sound, products / (size[:, None] * size[None]), 0.0))
    return jnp.where(sound, jnp.sqrt(jnp.maximum(values, 0.0))[:, None] * vectors.T * size[None], jnp.nan)
