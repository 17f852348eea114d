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
from typing import Any

import numpy as np
from jaxtyping import Float64

# A block of the data in float64 has about so many numbers, and stays in the caches; but at least so many rows.
_NUMBERS, _ROWS = 1 << 19, 1 << 10
# Products from which on another core is worth its start.
_SHARED = 1 << 22
# Products in a matrix product that OpenBLAS takes for small: twice as quick as others of few columns. So the upper half
# of a square is made in panels of so many columns, up to a width from which on a symmetric product is quicker.
_SMALL, _PANEL, _MOST_PANELLED = 10**6, 16, 128
# Rows of a block are a multiple of it.
_LINE = 64
# Bytes on whose multiples XLA takes an array as it is, without a copy.
_ALIGNED = 64
Panels = list[tuple[int, int, int]]
# BLAS's own number of threads is one setting for all: two reductions at once would each restore the other's.
_alone = threading.RLock()
# What it is held to now, the innermost last.
_limits: list[Any] = []


def products(inputs: Any, targets: Any, weights: Any, dtype: Any) -> Float64[np.ndarray, "columns columns"]:
    r"""The cross-products :math:`Z^T Z` of :math:`Z = \sqrt{w} [X\ 1\ Y]`, in float64.

    Args:
        inputs: shape ``(rows, in_features)``, in the host's memory.
        targets: shape ``(rows, out_features)``.
        weights: shape ``(rows,)``, or ``None`` for 1.
        dtype: to which all are rounded first.
    """
    data = _in_numpy(inputs, targets, weights)
    panels = _panels(columns_of(data)) if has_small_products() else []
    return sum(_on_cores(functools.partial(_own, data, np.dtype(dtype), panels), len(inputs)))


def products_of_batches(
    inputs: Any, targets: Any, weights: Any, dtype: Any, size: int, rows: int
) -> Float64[np.ndarray, "batches columns columns"]:
    """:func:`products` of every batch of ``size`` of the first ``rows``, the last of those that are left."""
    data = _in_numpy(inputs, targets, weights)
    columns = columns_of(data)
    found = _aligned((-(-rows // size), columns, columns))
    few = rows * columns**2 < _SHARED  # not worth the start of another thread, nor a look at what BLAS there is
    panels = [] if few or not has_small_products() else _panels(columns)
    each = functools.partial(_each, data, np.dtype(dtype), size, panels, found)
    if few:
        each(0, rows // size)
    else:
        _on_cores(each, rows // size)
    if rows % size:
        found[-1] = _own(data, np.dtype(dtype), [], rows - rows % size, rows)
    return found


def _in_numpy(*data: Any) -> list[Any]:
    return [None if leaf is None else np.asarray(leaf) for leaf in data]


def _aligned(shape: tuple[int, ...]) -> Float64[np.ndarray, ...]:
    numbers = math.prod(shape)
    raw = np.empty(numbers + _ALIGNED // 8)
    start = -raw.ctypes.data % _ALIGNED // 8
    return raw[start : start + numbers].reshape(shape)


def columns_of(data: Any) -> int:
    """Columns of inputs, the constant one and those of targets."""
    return data[0].shape[1] + 1 + data[1].shape[1]


def _on_cores(work: Callable[[int, int], Any], items: int) -> list[Any]:
    """What ``work`` gives for the items of each core, from one number to another."""
    cores = _cores()
    ends = [items * k // cores for k in range(cores + 1)]
    with one_thread():
        others = [_helpers().submit(work, *part) for part in itertools.pairwise(ends[1:])]
        first = work(ends[0], ends[1])
        return [first, *(other.result() for other in others)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _helpers() -> Any:
    """Threads for all cores but this one's, kept: to start one takes as long as a hundred batches."""
    from concurrent.futures import ThreadPoolExecutor  # here, since few who import jaxreg come this way

    return ThreadPoolExecutor(max(_cores() - 1, 1), "jaxreg")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and LAPACK with one thread a call, NumPy's and XLA's.

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
    """A child has none of its parent's threads: nobody would release what they held, nor end what they began."""
    global _alone
    _helpers.cache_clear()
    _alone = threading.RLock()
    while _limits:
        _limits.pop().restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


@functools.cache
def _blas() -> Any:
    import scipy.linalg.cython_lapack  # noqa: F401  # whose library XLA calls: it must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@np.errstate(all="ignore")  # what is not finite is found later, with what to do about it
def _own(data: list[Any], dtype: Any, panels: Panels, begin: int, end: int) -> Any:
    """The cross-products of some of the rows."""
    columns = columns_of(data)
    size = _size(panels) or max(_NUMBERS // columns, _ROWS)
    many = max(_NUMBERS // (size * columns), 1)
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
def _each(data: list[Any], dtype: Any, size: int, panels: Panels, found: Any, begin: int, end: int) -> None:
    """The cross-products of some of the batches, each put in its place."""
    columns = columns_of(data)
    many = max(_NUMBERS // (size * columns), 1)
    block = np.empty((min(many, end - begin) * size, columns))
    for start in range(begin, end, many):
        stop = min(start + many, end)
        here = _filled(block, data, dtype, start * size, stop * size).reshape(-1, size, columns)
        _squared(here, panels if size <= _size(panels) else [], found[start:stop])


@functools.cache
def has_small_products() -> bool:
    """Whether BLAS multiplies small matrices as they are, without a copy into its own order: OpenBLAS with AVX-512."""
    kinds = {one.get("architecture") for one in _blas().info()}
    return bool(kinds) and kinds <= {"SkylakeX", "Cooperlake", "SapphireRapids"}


@functools.cache
def _panels(columns: int) -> Panels:
    """Panels that make up the upper half of a square: from which column to which, and of how many rows.

    None of several is square: NumPy would take it for a symmetric product, at which BLAS is slower where it is small.
    """
    if not 2 <= columns <= _MOST_PANELLED:
        return []
    width = min(_PANEL, -(-columns // 2))
    begins = [at for at in range(0, columns, width) if at == 0 or columns - at >= width // 2]
    ends = [*begins[1:], columns]
    return [(begin, end, max(end, min(2 * width, columns))) for begin, end in zip(begins, ends, strict=True)]


def _size(panels: Panels) -> int:
    """Rows of a block whose panels BLAS takes for small."""
    return min((_SMALL // ((end - begin) * high) for begin, end, high in panels), default=0) // _LINE * _LINE


def _squared(blocks: Any, panels: Panels, found: Any) -> None:
    """The product of each block of rows with itself, put into ``found``."""
    if not panels:
        np.matmul(blocks.transpose(0, 2, 1), blocks, out=found)
    for begin, end, high in panels:
        np.matmul(blocks[:, :, :high].transpose(0, 2, 1), blocks[:, :, begin:end], out=found[:, :high, begin:end])
        found[:, begin:end, :begin] = found[:, :begin, begin:end].transpose(0, 2, 1)


def _filled(block: Any, data: list[Any], dtype: Any, begin: int, end: int) -> Any:
    """The first rows of ``block``, filled with those of the data side by side and weighted."""
    inputs, targets, weights = data
    rows, features = slice(begin, end), inputs.shape[1]
    here = block[: end - begin]
    here[:, :features] = inputs[rows].astype(dtype, copy=False)
    here[:, features] = 1
    here[:, features + 1 :] = targets[rows].astype(dtype, copy=False)
    if weights is not None:
        here *= np.sqrt(weights[rows].astype(dtype, copy=False).astype(np.float64))[:, None]
    return here
