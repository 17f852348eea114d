"""How far two honest runs of SGD can part: rounding, bounded as it is committed and carried from step to step.

Standard model of floating-point arithmetic (Higham, *Accuracy and Stability of Numerical Algorithms*, ch. 2): each
operation is off by a factor 1 + d, |d| <= u. A product counts three times: its constant is rounded to the format, and
so are the product and, in the 16-bit formats, what PyTorch stores between two operations. Fused multiply-add rounds
less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

Array = np.ndarray[Any, Any]
# Each recurrence neglects products of two errors; they are of the order u times the bound, far below this.
SECOND_ORDER = 1.001


@dataclasses.dataclass(frozen=True)
class Options:
    """SGD's settings but the learning rate."""

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False


@dataclasses.dataclass
class Drift:
    """A reference run in float64, and a bound on what one side in another format can be off by at each point of it.

    Attributes:
        options: the settings.
        weights: where the run stands.
        unit: unit roundoff of the format.
        tiny: what a result below the normal numbers can lose.
        size: magnitude of an array: ``np.abs`` to bound element by element, a norm to bound as a whole.
        off: bound on the weights' error.
        peak: the largest number met on the way, with its error: beyond the format's largest one side may overflow.
    """

    options: Options
    weights: Array
    unit: float
    tiny: float
    size: Callable[[Array], Any] = np.abs

    def __post_init__(self) -> None:
        self.off: Any = 0.0
        self.peak = 0.0
        self._buffer: Array | None = None
        self._buffer_off: Any = 0.0

    def step(self, gradient: Array, rate: float, *, gradient_off: Any = 0.0, rate_off: float = 0.0) -> None:
        """One step. ``gradient_off`` bounds the error of the side's own gradient, ``rate_off`` that of its rate."""
        o, u, size = self.options, self.unit, self.size
        decayed = (-gradient if o.maximize else gradient) + o.weight_decay * self.weights
        off = gradient_off + o.weight_decay * self.off
        if o.weight_decay:
            off = off + 3 * u * size(o.weight_decay * self.weights) + u * size(decayed) + self.tiny
        ahead, ahead_off = decayed, off
        if o.momentum:
            buffer, buffer_off = decayed, off
            if self._buffer is not None:
                kept, added = o.momentum * self._buffer, (1 - o.dampening) * decayed
                buffer = kept + added
                buffer_off = o.momentum * self._buffer_off + abs(1 - o.dampening) * off + 3 * self.tiny
                buffer_off = buffer_off + 3 * u * (size(kept) + size(added)) + u * size(buffer)
            self._buffer, self._buffer_off = buffer, buffer_off
            ahead, ahead_off = buffer, buffer_off
            if o.nesterov:
                ahead = decayed + o.momentum * buffer
                ahead_off = off + o.momentum * buffer_off + 3 * u * size(o.momentum * buffer) + u * size(ahead)
                ahead_off = ahead_off + 2 * self.tiny
        self.weights = self.weights - rate * ahead
        update_off = rate * ahead_off + (3 * u * rate + rate_off) * size(ahead) + 2 * self.tiny
        largest = [np.max(size(value)) for value in (decayed, ahead, self.weights)]
        self.peak = max(self.peak, *largest) + 2 * np.max(off + ahead_off + self.off)
        self.off = (self.off + update_off + u * size(self.weights)) * SECOND_ORDER


def format_of(dtype: Any) -> tuple[float, float]:
    """Unit roundoff, and what a number below the normal ones can lose: all of it where they may be flushed to 0."""
    info: Any = jnp.finfo(dtype)
    return float(info.eps) / 2, float(info.smallest_subnormal if info.bits == 16 else info.tiny)


def gamma(count: float, unit: float) -> float:
    """The most that ``count`` roundings can do, relative."""
    return count * unit / (1 - count * unit)
