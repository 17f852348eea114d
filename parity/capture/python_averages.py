"""Means and sums of losses that a program works out with Python's floats, told by all their digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.capture.number_reads import Read, Reads, Shown

_EPSILON = 2.0**-52
# Losses that are looked at in all, so that a program that prints at every step is not slowed down.
_MOST = 5_000_000


class _Run:
    """Losses read one a step, of steps that follow one another, all with the same factor."""

    def __init__(self, factor: float) -> None:
        self.factor, self.first = factor, 0
        self.values: list[float] = []

    @property
    def end(self) -> int:
        """The step after the last."""
        return self.first + len(self.values)

    def add(self, step: int, value: float) -> None:
        """Take up the loss of ``step``; what does not follow begins a new run."""
        if not self.values or step not in (self.end - 1, self.end):
            self.first, self.values = step, []
        self.values[step - self.first :] = [value]

    def fitting(self, value: float, rows: dict[int, int], most: int) -> Iterator[tuple[int, bool, float]]:
        """How many of the last losses, whether each counts as its rows, and what their sum is divided by."""
        losses = np.array(self.values[-most:][::-1])
        sizes = np.array([rows.get(step, 0) for step in range(self.end - 1, self.end - 1 - len(losses), -1)])
        lengths = np.arange(1, len(losses) + 1)
        for weighted, terms, counts in ((False, losses, lengths), (True, losses * sizes, np.cumsum(sizes))):
            sums, roundings = np.cumsum(terms), lengths * _EPSILON * np.cumsum(np.abs(terms))
            for divisors in (counts, np.ones_like(counts)):
                near = (abs(value * divisors - sums) <= roundings) & (divisors > 0)
                yield from ((int(length), weighted, float(divisors[length - 1])) for length in lengths[near])


class Averages:
    """Which losses a float is the mean or the sum of, where there is one answer.

    The program's own float is at hand, not only the digits that it prints: it must be such a mean to within the
    rounding of the addition, in double precision. Which losses: those since the same line was last printed, an epoch
    as a rule, or as many of the last as no other number fits.

    Args:
        reads: the losses that the program has read, in their order.
    """

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._runs: dict[float, _Run] = {}
        self._shown: dict[Any, int] = {}
        self._searched = 0

    def of(self, value: float, place: Any) -> Shown | None:
        """What ``value`` is, printed at this place of the program; ``None`` where that is not known."""
        self._take_up()
        since, self._shown[place] = self._shown.get(place, 0), self._reads.done()
        if not np.isfinite(value) or value == 0:
            return None
        rows, runs = self._reads.rows, list(self._runs.values())
        expected = ((run, run.end - since) for run in runs if run.first <= since < run.end)
        fits = [(run, *fit) for run, length in expected for fit in run.fitting(value, rows, length) if fit[0] == length]
        if not fits and self._searched < _MOST:
            self._searched += sum(len(run.values) for run in runs)
            fits = [(run, *fit) for run in runs for fit in run.fitting(value, rows, len(run.values))]
        if len({(run.end - length, run.end, run.factor) for run, length, *_ in fits}) != 1:
            return None
        run, length, weighted, divisor = fits[0]
        return Shown(Read("loss", "", run.end - length, run.end - 1, 0, run.factor, weighted), 1.0, divisor)

    def _take_up(self) -> None:
        """Put what was read in its order; what is not known to be a loss before ``backward()`` may be one after."""
        later = []
        for read, value in self._reads.read_losses:
            if read.kind == "loss":
                self._runs.setdefault(read.factor, _Run(read.factor)).add(read.first, value)
            elif read.first == self._reads.done():
                later.append((read, value))
        self._reads.read_losses.clear()
        self._reads.read_losses.extend(later)
