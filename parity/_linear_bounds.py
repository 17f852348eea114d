"""What rounding can do to the predictions, the loss and the gradients of a linear layer with MSE, element by element.

Sums may be taken in any order, with or without fused multiply-add: gamma_k = k u / (1 - k u) bounds k roundings
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., ch. 3), u half the distance from 1 to the next
number.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from parity._recording import Array


@dataclasses.dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff, smallest normal number (below it results may be flushed), largest."""

    unit: float
    tiny: float
    largest: float

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> Format:
        """The format of a NumPy dtype."""
        info = np.finfo(dtype)
        return cls(float(info.eps) / 2, float(info.tiny), float(info.max))

    def gamma(self, count: int) -> float:
        """The most that ``count`` roundings can do, relative; infinite where they can do anything."""
        share = count * self.unit
        return share / (1 - share) if share < 1 else np.inf

    def unless_overflow(self, bound: Array, magnitude: Array) -> Array:
        """``bound``, or infinity where a sum on the way may pass the largest number, in some order of the work."""
        safe = np.isfinite(bound) & (magnitude < self.largest / 2)
        return np.where(safe, bound, np.inf)


class Problem(NamedTuple):
    """One backward pass: inputs ``(n, d)``, targets ``(n, o)``, the factor of the sum of squares (1/(n o) for a mean),
    and how many passes are added up.
    """

    inputs: Float64[np.ndarray, "n d"]
    targets: Float64[np.ndarray, "n o"]
    scale: float
    passes: int = 1


class ChainBounds(NamedTuple):
    """Bounds for ``s`` sets of weights: ``(s, n, o)``, ``(s,)``, and gradients ``(s, o, d)`` and ``(s, o)``."""

    predictions: Float64[np.ndarray, "s n o"]
    losses: Float64[np.ndarray, " s"]
    weight: Float64[np.ndarray, "s o d"]
    bias: Float64[np.ndarray, "s o"]


def chain_bounds(
    problem: Problem,
    weight: Float64[np.ndarray, "s o d"],
    bias: Float64[np.ndarray, "s o"],
    off_weight: Float64[np.ndarray, "s o d"],
    off_bias: Float64[np.ndarray, "s o"],
    form: Format,
) -> ChainBounds:
    """Bounds at the weights ``(s, o, d)`` and biases ``(s, o)``, which themselves may be off by so much.

    The bound is on the distance of what is computed at the given weights from the exact value at the exact ones.
    """
    x, y, scale, passes = problem
    n, d = x.shape
    size = np.abs(x)
    with np.errstate(over="ignore", invalid="ignore"):
        reach = size @ np.abs(weight).swapaxes(1, 2) + np.abs(bias)[:, None]
        spread = size @ off_weight.swapaxes(1, 2) + off_bias[:, None]
        flushed = form.tiny * (size.sum(1)[:, None] + np.abs(weight).sum(2)[:, None] + d + 2)
        rounded = form.gamma(d + 1) * reach + flushed
        predictions = rounded + spread
        residual = np.abs(x @ weight.swapaxes(1, 2) + bias[:, None] - y) + rounded
        off = predictions + form.unit * residual + form.tiny

        squares = (residual**2).sum((1, 2))
        # Four roundings beside those of the sum: the square, the mean's division, and a factor before backward() twice.
        losses = abs(scale) * (form.gamma(y.size + 3 + passes) * squares + ((2 * residual + off) * off).sum((1, 2)))
        losses = losses + form.tiny * (2 * abs(scale) * residual.sum((1, 2)) + abs(scale) * y.size + 2)

        transposed = residual.swapaxes(1, 2)
        back_off = off.swapaxes(1, 2)
        gamma = form.gamma(n + 4 + passes)
        reach_weight = 2 * transposed @ size
        off_gradient = abs(scale) * (gamma * reach_weight + 2 * (1 + gamma) * (back_off @ size))
        off_gradient = off_gradient + form.tiny * (size.sum(0) + 2 * abs(scale) * transposed.sum(2)[..., None] + n + 3)
        reach_bias = 2 * transposed.sum(2)
        off_bias_gradient = abs(scale) * (gamma * reach_bias + 2 * (1 + gamma) * back_off.sum(2)) + form.tiny * (
            2 * n + 3
        )
    return ChainBounds(
        form.unless_overflow(predictions, reach),
        form.unless_overflow(losses, squares),
        form.unless_overflow(off_gradient, reach_weight),
        form.unless_overflow(off_bias_gradient, reach_bias),
    )
