"""Whether a timed training is the same training: its weights against float64, within what float32 rounding can do.

The trajectory is worked out in float64 on the data's cross-products, which for the whole batch is exact but for
float64's own rounding. A float32 loop makes in each step an error in the gradient of at most

    2 / n * gamma * |X|' (|X| |w| + |b| + |y|)

(Higham, *Accuracy and Stability of Numerical Algorithms*, ch. 3), with gamma that of n + d + 4 roundings, the
probabilistic one (Higham and Mary, SIAM J. Sci. Comput. 41, 2019), and in the update one of two roundings of the
weights. Along each eigenvector of the cross-products the errors of all steps add up to at most the sum of the powers of
that mode's step; that sum is what they are multiplied with.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from parity.bench.workloads import Data

Array = np.ndarray[Any, Any]
_UNIT = 2.0**-24
# One chance in 1e9 for a weight: Higham and Mary's constant for so many roundings.
_FAILURE = 1e-9
# Rows that are looked at together.
_ROWS = 1 << 16


class Trajectory(NamedTuple):
    """Where a training is in float64 after its steps, and how far float32 may be from it.

    Attributes:
        coefficients: weights and bias, shape ``(columns + 1,)``.
        bound: of each.
    """

    coefficients: Array
    bound: Array


class Sums(NamedTuple):
    """Cross-products of ``[inputs 1 targets]``, and of their absolute values, in float64."""

    products: Array
    sizes: Array
    rows: int


def sums(data: Data) -> Sums:
    """One pass over the data."""
    columns = data.x.shape[1] + 2
    products, sizes = np.zeros((columns, columns)), np.zeros((columns, columns))
    for start in range(0, len(data.x), _ROWS):
        rows = slice(start, start + _ROWS)
        block = np.concatenate([data.x[rows], np.ones((len(data.x[rows]), 1)), data.y[rows]], 1, dtype=np.float64)
        products += block.T @ block
        size = np.abs(block)
        sizes += size.T @ size
    return Sums(products, sizes, len(data.x))


def follow(given: Sums, start: Array, rate: float, steps: int) -> Trajectory:
    """Gradient descent from ``start`` on the mean squared error, with the learning rate rounded to float32."""
    rate = float(np.float32(rate))
    curvature, pull = (2 / given.rows * given.products[:-1, k] for k in (slice(None, -1), -1))
    values, vectors = np.linalg.eigh(curvature)
    w, largest = start.astype(np.float64), np.abs(start).astype(np.float64)
    for _ in range(steps):
        w = w - rate * (curvature @ w - pull)
        largest = np.maximum(largest, np.abs(w))
    count = given.rows + len(w) + 4
    gamma = _likely(count)
    gradient = 2 / given.rows * gamma * (given.sizes[:-1, :-1] @ largest + given.sizes[:-1, -1])
    each = rate * gradient + 2 * _UNIT * (largest + rate * gradient)
    powers = np.abs(1 - rate * values)
    kept = np.where(powers < 1, (1 - powers**steps) / np.where(powers < 1, 1 - powers, 1.0), float(steps))
    kept = np.where(powers > 1, powers ** float(steps) * steps, kept)
    return Trajectory(w, np.abs(vectors) @ (kept * (np.abs(vectors).T @ each)))


def _likely(count: int) -> float:
    """What ``count`` independent roundings add up to, relative, but for one chance in 1e9."""
    constant = math.sqrt(2 * math.log(2 * count / _FAILURE))
    return math.expm1(constant * math.sqrt(count) * _UNIT + count * _UNIT**2 / (1 - _UNIT))


def apart(found: Array, expected: Trajectory) -> float:
    """How far the weights are off, as a share of what they may be: at most 1 where it is the same training."""
    off = np.abs(np.asarray(found, np.float64).ravel() - expected.coefficients)
    shares = np.divide(off, expected.bound, out=np.where(off > 0, np.inf, 0.0), where=expected.bound > 0)
    return float(np.max(np.where(np.isnan(shares), np.inf, shares)))


def follow_batches(data: Data, start: Array, rate: float, epochs: int, batch: int) -> Trajectory:
    """The same in batches, in the order that the rows have.

    No two steps have one matrix, so that the errors are followed by their size: a step makes an error no larger than
    the largest stretch of its matrix does, and adds its own.
    """
    rate = float(np.float32(rate))
    ones = np.ones((len(data.x), 1))
    design = np.concatenate([data.x, ones], 1, dtype=np.float64)
    targets, w, off = data.y[:, 0].astype(np.float64), start.astype(np.float64), 0.0
    for number in range(epochs * -(-len(design) // batch)):
        first = number * batch % (-(-len(design) // batch) * batch)
        x, y = design[first : first + batch], targets[first : first + batch]
        gradient = 2 / len(x) * x.T @ (x @ w - y)
        size = 2 / len(x) * np.abs(x).T @ (np.abs(x) @ np.abs(w) + np.abs(y))
        each = rate * _likely(len(x) + len(w) + 4) * size + 2 * _UNIT * (np.abs(w) + rate * np.abs(gradient))
        values = np.linalg.eigvalsh(2 / len(x) * x.T @ x)
        off = off * float(np.abs(1 - rate * values[[0, -1]]).max()) + float(np.linalg.norm(each))
        w = w - rate * gradient
    return Trajectory(w, np.full(len(w), off))
