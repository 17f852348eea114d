"""Cross-products of data in the host's memory by NumPy's BLAS, each core on rows of its own.

XLA's CPU runtime multiplies a block of few columns on all cores at once, which have little to do in it each; apart, and
with the symmetric half only, they are done in half of the time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float64

from jaxreg._types import AnyArray, DType, HostArray, Rows

# A block of the data in float64 has about so many numbers, and stays in the caches; but at least so many rows.
_NUMBERS_A_BLOCK, _MIN_ROWS_A_BLOCK = 1 << 19, 1 << 10
# Products from which on another core is worth its start.
_MIN_SHARED_PRODUCTS = 1 << 22
# Products in a matrix product that OpenBLAS takes for small: twice as quick as others of few columns. So the upper half
# of a square is made in panels of so many columns, up to a width from which on a symmetric product is quicker.
_MAX_SMALL_PRODUCTS, _PANEL_COLUMNS, _MAX_PANELLED_COLUMNS = 10**6, 16, 128
# Rows of a block are a multiple of it.
_ROWS_MULTIPLE = 64
# Bytes on whose multiples XLA takes an array as it is, without a copy.
_ALIGNMENT_BYTES = 64
Panels = list[tuple[int, int, int]]
_HostRows = tuple[HostArray, HostArray, HostArray | None]
_Result = TypeVar("_Result")


@runtime_checkable
class _Limit(Protocol):
    """What threadpoolctl gives while it holds libraries to a number of threads."""

    def restore_original_limits(self) -> None: ...


@runtime_checkable
class _Pools(Protocol):
    """What threadpoolctl knows of libraries."""

    def limit(self, *, limits: int) -> contextlib.AbstractContextManager[_Limit]: ...

    def info(self) -> list[dict[str, object]]: ...


# BLAS's own number of threads is one setting for all: two reductions at once would each restore the other's.
_alone = threading.RLock()
# What it is held to now, the innermost last.
_limits: list[_Limit] = []


def products(
    inputs: AnyArray, targets: AnyArray, weights: AnyArray | None, dtype: DType
) -> Float64[np.ndarray, "columns columns"]:
    r"""Return the cross-products :math:`Z^T Z` of :math:`Z = \sqrt{w} [X\ 1\ Y]`, in float64.

    Args:
        inputs: shape ``(rows, in_features)``, in the host's memory.
        targets: shape ``(rows, out_features)``.
        weights: shape ``(rows,)``, or ``None`` for 1.
        dtype: to which all are rounded first.
    """
    data = _in_numpy(inputs, targets, weights)
    panels = _panels(columns_of(data)) if has_small_products() else []
    first, *others = _on_cores(functools.partial(_own, data, np.dtype(dtype), panels), len(inputs))
    return sum(others, first)


def products_of_batches(
    inputs: AnyArray, targets: AnyArray, weights: AnyArray | None, dtype: DType, size: int, rows: int
) -> Float64[np.ndarray, "batches columns columns"]:
    """Return :func:`products` of every batch of ``size`` of the first ``rows``, the last of those that are left."""
    data = _in_numpy(inputs, targets, weights)
    columns = columns_of(data)
    found = _aligned((-(-rows // size), columns, columns))
    few = (
        rows * columns**2 < _MIN_SHARED_PRODUCTS
    )  # not worth the start of another thread, nor a look at what BLAS there is
    panels = [] if few or not has_small_products() else _panels(columns)
    each = functools.partial(_each, data, np.dtype(dtype), size, panels, found)
    if few:
        each(0, rows // size)
    else:
        _on_cores(each, rows // size)
    if rows % size:
        found[-1] = _own(data, np.dtype(dtype), [], rows - rows % size, rows)
    return found


def _in_numpy(inputs: AnyArray, targets: AnyArray, weights: AnyArray | None) -> _HostRows:
    return np.asarray(inputs), np.asarray(targets), None if weights is None else np.asarray(weights)


def _aligned(shape: tuple[int, ...]) -> Float64[np.ndarray, "*shape"]:
    numbers = math.prod(shape)
    raw = np.empty(numbers + _ALIGNMENT_BYTES // 8)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES // 8
    return raw[start : start + numbers].reshape(shape)


def columns_of(data: Rows) -> int:
    """Return the number of columns of inputs, the constant one and those of targets."""
    return data[0].shape[1] + 1 + data[1].shape[1]


def _on_cores(work: Callable[[int, int], _Result], items: int) -> list[_Result]:
    """Return what ``work`` gives for the items of each core, from one number to another."""
    cores = _cores()
    ends = [items * k // cores for k in range(cores + 1)]
    with one_thread():
        others = [_helpers().submit(work, *part) for part in itertools.pairwise(ends[1:])]
        first = work(ends[0], ends[1])
        return [first, *(other.result() for other in others)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _helpers() -> Executor:
    """Return threads for all cores but this one's, kept: to start one takes as long as a hundred batches."""
    from concurrent.futures import ThreadPoolExecutor  # here, since few who import jaxreg come this way

    return ThreadPoolExecutor(max(_cores() - 1, 1), "jaxreg")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and LAPACK to one thread a call, NumPy's and XLA's.

    Threads that LAPACK starts for a matrix of 60 columns gain it nothing, and do not sleep at once when they are done:
    they would take a core from the next reduction, which is then half as long again.
    """
    with _alone, _blas().limit(limits=1) as limit:
        _limits.append(limit)
        try:
            yield
        finally:
            _limits.pop()


def _begin_in_child() -> None:
    """Begin anew in a child, which has none of its parent's threads to release what they held."""
    global _alone
    _helpers.cache_clear()
    _alone = threading.RLock()
    while _limits:
        _limits.pop().restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@functools.cache
def _blas() -> _Pools:
    import scipy.linalg.cython_lapack  # noqa: F401  # whose library XLA calls: it must be there to be found
    from threadpoolctl import ThreadpoolController

    found: _Pools = ThreadpoolController().select(user_api="blas")
    return found


@np.errstate(all="ignore")  # what is not finite is found later, with what to do about it
def _own(data: _HostRows, dtype: DType, panels: Panels, begin: int, end: int) -> Float64[np.ndarray, "columns columns"]:
    """Return the cross-products of some of the rows."""
    columns = columns_of(data)
    size = _size(panels) or max(_NUMBERS_A_BLOCK // columns, _MIN_ROWS_A_BLOCK)
    many = max(_NUMBERS_A_BLOCK // (size * columns), 1)
    block = np.empty((min(many * size, end - begin), columns))
    found, total = np.zeros((many, columns, columns)), np.zeros((columns, columns))
    for start in range(begin, end, many * size):
        here = _filled(block, data, dtype, start, min(start + many * size, end))
        whole = len(here) // size
        if whole:
            _squared(here[: whole * size].reshape(whole, size, columns), panels, found[:whole])
            total += found[:whole].sum(0)
        if len(here) % size:
            rest = here[whole * size :]
            total += rest.T @ rest
    return total


@np.errstate(all="ignore")
def _each(
    data: _HostRows,
    dtype: DType,
    size: int,
    panels: Panels,
    found: Float64[np.ndarray, "batches columns columns"],
    begin: int,
    end: int,
) -> None:
    """Put the cross-products of some of the batches in their places."""
    columns = columns_of(data)
    many = max(_NUMBERS_A_BLOCK // (size * columns), 1)
    block = np.empty((min(many, end - begin) * size, columns))
    for start in range(begin, end, many):
        stop = min(start + many, end)
        here = _filled(block, data, dtype, start * size, stop * size).reshape(-1, size, columns)
        _squared(here, panels if size <= _size(panels) else [], found[start:stop])


@functools.cache
def has_small_products() -> bool:
    """Return whether BLAS multiplies small matrices without a copy into its own order: OpenBLAS with AVX-512."""
    kinds = {one.get("architecture") for one in _blas().info()}
    return bool(kinds) and kinds <= {"SkylakeX", "Cooperlake", "SapphireRapids"}


@functools.cache
def _panels(columns: int) -> Panels:
    """Return panels that make up the upper half of a square: from which column to which, and of how many rows.

    None of several is square: NumPy would take it for a symmetric product, at which BLAS is slower where it is small.
    """
    if not 2 <= columns <= _MAX_PANELLED_COLUMNS:
        return []
    width = min(_PANEL_COLUMNS, -(-columns // 2))
    begins = [at for at in range(0, columns, width) if at == 0 or columns - at >= width // 2]
    ends = [*begins[1:], columns]
    return [(begin, end, max(end, min(2 * width, columns))) for begin, end in zip(begins, ends, strict=True)]


def _size(panels: Panels) -> int:
    """Return the rows of a block whose panels BLAS takes for small."""
    return (
        min((_MAX_SMALL_PRODUCTS // ((end - begin) * high) for begin, end, high in panels), default=0)
        // _ROWS_MULTIPLE
        * _ROWS_MULTIPLE
    )


def _squared(
    blocks: Float64[np.ndarray, "batches rows columns"],
    panels: Panels,
    found: Float64[np.ndarray, "batches columns columns"],
) -> None:
    """Put the product of each block of rows with itself into ``found``."""
    if not panels:
        np.matmul(blocks.transpose(0, 2, 1), blocks, out=found)
    for begin, end, high in panels:
        np.matmul(blocks[:, :, :high].transpose(0, 2, 1), blocks[:, :, begin:end], out=found[:, :high, begin:end])
        found[:, begin:end, :begin] = found[:, :begin, begin:end].transpose(0, 2, 1)


def _filled(
    block: Float64[np.ndarray, "_ columns"], data: _HostRows, dtype: DType, begin: int, end: int
) -> Float64[np.ndarray, "rows columns"]:
    """Fill the first rows of ``block`` with those of the data side by side and weighted."""
    inputs, targets, weights = data
    rows, features = slice(begin, end), inputs.shape[1]
    here = block[: end - begin]
    here[:, :features] = inputs[rows].astype(dtype, copy=False)
    here[:, features] = 1
    here[:, features + 1 :] = targets[rows].astype(dtype, copy=False)
    if weights is not None:
        here *= np.sqrt(weights[rows].astype(dtype, copy=False).astype(np.float64))[:, None]
    return here
