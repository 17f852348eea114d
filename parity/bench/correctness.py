"""Whether a timed training is the same training: its weights against float64, within what float32 rounding can do.

The trajectory is worked out in float64 on the data's cross-products, which for the whole batch is exact but for
float64's own rounding. A float32 loop makes in each step an error in the gradient of at most

    2 / n * gamma * |X|' (|X| |w| + |b| + |y|)

(Higham, *Accuracy and Stability of Numerical Algorithms*, ch. 3), with gamma that of n + d + 4 roundings, the
probabilistic one (Higham and Mary, SIAM J. Sci. Comput. 41, 2019); the update rounds the weights twice, and its own
size three times, once with the learning rate. Along each eigenvector of the cross-products the errors of all steps add
up to at most the sum of the powers of that mode's step; that sum is what they are multiplied with. The roundings of
different weights are independent and add up as the root of their squares; that of the learning rate is one for all.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from parity.bench.workloads import Data, Workload
from parity.rounding.formats import likely_gamma

Array = np.ndarray[Any, Any]
_UNIT_ROUNDOFF = 2.0**-24
# Rows that are looked at together.
_BLOCK_ROWS = 1 << 16


class Trajectories(NamedTuple):
    """Where trainings are in float64 after their steps, and how far float32 may be from it.

    Attributes:
        coefficients: weights and bias of each training, shape ``(trainings, columns + 1)``.
        bound: of each.
    """

    coefficients: Array
    bound: Array


class Sums(NamedTuple):
    """Cross-products of ``[inputs 1 targets]``, and of their absolute values, in float64; a leading axis for groups."""

    products: Array
    sizes: Array
    rows: int


def expected(workload: Workload, data: Data, given: Sums | None = None) -> Trajectories:
    """Train each training of a workload in float64.

    Args:
        workload: what is trained.
        data: its data.
        given: their sums, where they are at hand.
    """
    start = np.append(data.weight, data.bias)
    if workload.batch:
        return _follow_batches(data, start, workload)
    return _follow(given or sums(data), start, workload.rates, workload.epochs)


def apart(found: ArrayLike, trajectories: Trajectories) -> float:
    """Return the distance of weights, as a share of its bound: at most 1 for the same training."""
    off = np.abs(np.asarray(found, np.float64).reshape(trajectories.bound.shape) - trajectories.coefficients)
    shares = np.divide(off, trajectories.bound, out=np.where(off > 0, np.inf, 0.0), where=trajectories.bound > 0)
    return float(np.max(np.where(np.isnan(shares), np.inf, shares)))


def sums(data: Data) -> Sums:
    """Sum the cross-products in one pass over the data."""
    if data.x.ndim == 3:
        parts = [sums(dataclasses.replace(data, x=x, y=y)) for x, y in zip(data.x, data.y, strict=True)]
        return Sums(np.stack([p.products for p in parts]), np.stack([p.sizes for p in parts]), data.x.shape[1])
    columns = data.x.shape[1] + 2
    products, sizes = np.zeros((columns, columns)), np.zeros((columns, columns))
    for start in range(0, len(data.x), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = np.concatenate([data.x[rows], np.ones((len(data.x[rows]), 1)), data.y[rows]], 1, dtype=np.float64)
        products += block.T @ block
        size = np.abs(block)
        sizes += size.T @ size
    return Sums(products, sizes, len(data.x))


def _follow(given: Sums, start: Array, rates: Array, steps: int) -> Trajectories:
    """Run gradient descent on the mean squared error, with learning rates rounded to float32; once a rate, or
    for each group."""
    rate = rates.astype(np.float32).astype(np.float64)[:, None]
    curvature, pull = (2 / given.rows * given.products[..., :-1, k] for k in (slice(None, -1), -1))
    values, vectors = np.linalg.eigh(curvature)
    pull = np.broadcast_to(pull, (max(len(rate), *pull.shape[:-1], 1), len(start)))
    w = np.broadcast_to(start, pull.shape).astype(np.float64)
    largest = np.abs(w)
    for _ in range(steps):
        w = w - rate * (_times(curvature, w) - pull)
        np.maximum(largest, np.abs(w), out=largest)
    gamma = _likely(given.rows + len(start) + 4)
    update = rate * 2 / given.rows * (_times(given.sizes[..., :-1, :-1], largest) + given.sizes[..., :-1, -1])
    kept = _sum_of_powers(np.abs(1 - rate * values), steps)
    apart = (gamma * update + 2 * _UNIT_ROUNDOFF * largest) ** 2
    spread = np.sqrt(_times(vectors**2, kept**2 * _times(vectors.swapaxes(-1, -2) ** 2, apart)))
    alike = kept.max(-1, keepdims=True) * np.linalg.norm(3 * _UNIT_ROUNDOFF * update, axis=-1, keepdims=True)
    return Trajectories(w, spread + alike)


def _times(matrix: Array, vectors: Array) -> Array:
    """Multiply one matrix with each vector, or each with its own."""
    return vectors @ matrix.T if matrix.ndim == 2 else (matrix @ vectors[..., None])[..., 0]


def _sum_of_powers(base: Array, steps: int) -> Array:
    """Return at least ``1 + base + ... + base**(steps - 1)``."""
    with np.errstate(over="ignore"):
        shrinking = (1 - base**steps) / np.where(base < 1, 1 - base, 1.0)
        return np.where(base < 1, np.minimum(shrinking, steps), steps * np.maximum(base, 1.0) ** steps)


def _follow_batches(data: Data, start: Array, workload: Workload) -> Trajectories:
    """Run gradient descent in batches, in the order of the rows.

    No two steps have one matrix, so that the errors are followed by their size: a step makes an error no larger than
    the largest stretch of its matrix does, and adds its own.
    """
    rate = float(np.float32(workload.learning_rate))
    design = np.concatenate([data.x, np.ones((len(data.x), 1))], 1, dtype=np.float64)
    targets, w, off = data.y[:, 0].astype(np.float64), start.astype(np.float64), 0.0
    for first in [*range(0, len(design), workload.batch)] * workload.epochs:
        x, y = design[first : first + workload.batch], targets[first : first + workload.batch]
        gradient = 2 / len(x) * x.T @ (x @ w - y)
        update = rate * 2 / len(x) * np.abs(x).T @ (np.abs(x) @ np.abs(w) + np.abs(y))
        each = (_likely(len(x) + len(w) + 4) + 3 * _UNIT_ROUNDOFF) * update + 2 * _UNIT_ROUNDOFF * np.abs(w)
        values = np.linalg.eigvalsh(2 / len(x) * x.T @ x)
        off = off * float(np.abs(1 - rate * values[[0, -1]]).max()) + float(np.linalg.norm(each))
        w = w - rate * gradient
    return Trajectories(w[None], np.full((1, len(w)), off))


def _likely(count: int) -> float:
    """Return what ``count`` independent roundings add up to, relative, but for one chance in 1e9."""
    return float(likely_gamma(count, _UNIT_ROUNDOFF, count, np))
