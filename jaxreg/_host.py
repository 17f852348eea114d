"""Cross-products of data in the host's memory by NumPy's BLAS, each core on rows of its own.

XLA's CPU runtime multiplies a block of few columns on all cores at once, which have little to do in it each; apart, and
with the symmetric half only (BLAS's ``syrk``), they are done in less than two thirds of the time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64

# A block of the data in float64 has about so many numbers, and stays in a core's cache; but at least so many rows.
_NUMBERS, _ROWS = 1 << 18, 1 << 10
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
    from concurrent.futures import ThreadPoolExecutor  # here, since few who import jaxreg come this way

    data = [None if leaf is None else np.asarray(leaf) for leaf in (inputs, targets, weights)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ends = [len(inputs) * k // cores for k in range(cores + 1)]
    with one_thread(), ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(functools.partial(_own, data, np.dtype(dtype)), ends[:-1], ends[1:]))


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
    inputs, targets, weights = data
    features, columns = inputs.shape[1], inputs.shape[1] + 1 + targets.shape[1]
    block = np.empty((max(_NUMBERS // columns, _ROWS), columns))
    total = np.zeros((columns, columns))
    with np.errstate(all="ignore"):  # what is not finite is found later, with what to do about it
        for start in range(begin, end, len(block)):
            rows = slice(start, min(start + len(block), end))
            here = block[: rows.stop - start]
            here[:, :features] = inputs[rows].astype(dtype, copy=False)
            here[:, features] = 1
            here[:, features + 1 :] = targets[rows].astype(dtype, copy=False)
            if weights is not None:
                here *= np.sqrt(weights[rows].astype(dtype, copy=False).astype(np.float64))[:, None]
            total += here.T @ here
    return total
