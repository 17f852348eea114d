"""Cross-products of data in the host's memory by NumPy's BLAS, each core on rows of its own.

XLA's CPU runtime multiplies a block of few columns on all cores at once, which have little to do in it each; apart, and
with the symmetric half only (BLAS's ``syrk``), they are done in less than two thirds of the time.
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

# A block of the data in float64 has about so many numbers, and stays in a core's cache; but at least so many rows.
_NUMBERS, _ROWS = 1 << 18, 1 << 10
# Products from which on another core is worth its start.
_SHARED = 1 << 22
# Up to so many columns BLAS's general product (``gemm``) is quicker than its symmetric one, which NumPy takes for a
# matrix with itself.
_GENERAL = 64
# Bytes on whose multiples XLA takes an array as it is, without a copy.
_ALIGNED = 64
# BLAS's own number of threads is one setting for all: two reductions at once would each restore the other's.
_alone = threading.RLock()


def products(inputs: Any, targets: Any, weights: Any, dtype: Any) -> Float64[np.ndarray, "columns columns"]:
    r"""The cross-products :math:`Z^T Z` of :math:`Z = \sqrt{w} [X\ 1\ Y]`, in float64.

    Args:
        inputs: shape ``(rows, in_features)``, in the host's memory.
        targets: shape ``(rows, out_features)``.
        weights: shape ``(rows,)``, or ``None`` for 1.
        dtype: to which all are rounded first.
    """
    data = _in_numpy(inputs, targets, weights)
    return sum(_on_cores(functools.partial(_own, data, np.dtype(dtype)), len(inputs)))


def products_of_batches(
    inputs: Any, targets: Any, weights: Any, dtype: Any, size: int
) -> Float64[np.ndarray, "batches columns columns"]:
    """:func:`products` of every batch of ``size`` rows, the last of those that are left."""
    data = _in_numpy(inputs, targets, weights)
    rows, columns = len(inputs), _columns(data)
    found = _aligned((-(-rows // size), columns, columns))
    each = functools.partial(_each, data, np.dtype(dtype), size, found)
    if rows * columns**2 < _SHARED:
        each(0, rows // size)
    else:
        _on_cores(each, rows // size)
    if rows % size:
        found[-1] = _own(data, np.dtype(dtype), rows - rows % size, rows)
    return found


def _in_numpy(*data: Any) -> list[Any]:
    return [None if leaf is None else np.asarray(leaf) for leaf in data]


def _aligned(shape: tuple[int, ...]) -> Float64[np.ndarray, ...]:
    numbers = math.prod(shape)
    raw = np.empty(numbers + _ALIGNED // 8)
    start = -raw.ctypes.data % _ALIGNED // 8
    return raw[start : start + numbers].reshape(shape)


def _columns(data: list[Any]) -> int:
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


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_helpers.cache_clear)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and LAPACK with one thread a call, NumPy's and XLA's.

    Threads that LAPACK starts for a matrix of 60 columns gain it nothing, and do not sleep at once when they are done:
    they would take a core from the next reduction, which is then half as long again.
    """
    with _alone, _blas().limit(limits=1):
        yield


@functools.cache
def _blas() -> Any:
    import scipy.linalg.cython_lapack  # noqa: F401  # whose library XLA calls: it must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _own(data: list[Any], dtype: Any, begin: int, end: int) -> Any:
    """The cross-products of some of the rows."""
    columns = _columns(data)
    block = np.empty((min(max(_NUMBERS // columns, _ROWS), end - begin), columns))
    total = np.zeros((columns, columns))
    for start in range(begin, end, max(len(block), 1)):
        here = _filled(block, data, dtype, start, min(start + len(block), end))
        with np.errstate(all="ignore"):
            total += here.T @ here
    return total


def _each(data: list[Any], dtype: Any, size: int, found: Any, begin: int, end: int) -> None:
    """The cross-products of some of the batches, each put in its place."""
    columns = _columns(data)
    many = max(_NUMBERS // (size * columns), 1)
    block = np.empty((min(many, end - begin) * size, columns))
    for start in range(begin, end, many):
        stop = min(start + many, end)
        here = _filled(block, data, dtype, start * size, stop * size).reshape(-1, size, columns)
        with np.errstate(all="ignore"):
            _squared(here, found[start:stop])


def _squared(batches: Any, found: Any) -> None:
    if batches.shape[2] > _GENERAL:
        np.matmul(batches.transpose(0, 2, 1), batches, out=found)
        return
    np.matmul(batches.transpose(0, 2, 1), batches[:, :, 1:], out=found[:, :, 1:])
    found[:, 1:, 0] = found[:, 0, 1:]
    found[:, 0, 0] = np.einsum("bi,bi->b", batches[:, :, 0], batches[:, :, 0])


def _filled(block: Any, data: list[Any], dtype: Any, begin: int, end: int) -> Any:
    """The first rows of ``block``, filled with those of the data side by side and weighted."""
    inputs, targets, weights = data
    rows, features = slice(begin, end), inputs.shape[1]
    here = block[: end - begin]
    with np.errstate(all="ignore"):  # what is not finite is found later, with what to do about it
        here[:, :features] = inputs[rows].astype(dtype, copy=False)
        here[:, features] = 1
        here[:, features + 1 :] = targets[rows].astype(dtype, copy=False)
        if weights is not None:
            here *= np.sqrt(weights[rows].astype(dtype, copy=False).astype(np.float64))[:, None]
    return here
