"""Whether the machine was disturbed while it was timed, and the same once more where it was.

Two signs, each of which an undisturbed machine does not show:

- *drift*: a fixed computation on all cores, timed before the first turn and after each one, took longer at one time
  than at another;
- *spread*: in one turn the ways took longer than in their other turns: even the quickest call of a way in that turn,
  and the median over the ways, since what disturbs the machine disturbs all of them alike.

One more program that computes all the time takes 1 / (cores + 1) of the machine, and what is computed on all cores
takes 1 / cores longer. Half of that is the limit: it lies in the middle between a machine that has nothing else to do
and one that has. Beyond ten cores the limit stays at 5 %: smaller differences are left to the ratios' intervals.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parity.bench import timing
from parity.report.render import numbers

# A run that was disturbed is made again until it is not, so often in all.
ATTEMPTS = 3
_LEAST_LIMIT = 0.05
# Takes milliseconds: on a processor, where it fits into the caches, and on an accelerator.
_CPU_MATRIX_SIDE, _DEVICE_MATRIX_SIDE = 512, 4096


class Signs(NamedTuple):
    """Of one run.

    Attributes:
        drift: how much longer the fixed computation took at its slowest time than at its quickest, relative.
        spread: how much longer the ways took in the slowest turn than in their others; ``None`` with a single turn.
        limit: from where on either says that the machine was disturbed.
    """

    drift: float
    spread: float | None
    limit: float

    @property
    def worst(self) -> float:
        """The larger one."""
        return max(self.drift, self.spread or 0.0)

    @property
    def disturbed(self) -> bool:
        """Whether the machine was."""
        return self.worst > self.limit


class Attempts(NamedTuple):
    """The runs that were made until one was not disturbed.

    Attributes:
        signs: of each.
        shown: the number of the one whose times are shown: the least disturbed.
    """

    signs: tuple[Signs, ...]
    shown: int


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit(cores: int) -> float:
    """Return half of what one more busy program costs.

    >>> limit(2), limit(64)
    (0.25, 0.05)
    """
    return max(1 / (2 * cores), _LEAST_LIMIT)


def reference(device: jax.Device) -> Callable[[], None]:
    """Make the fixed computation: a product of two matrices, on all of the device."""
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    side = _CPU_MATRIX_SIDE if device.platform == "cpu" else _DEVICE_MATRIX_SIDE
    square = jax.device_put(np.ones((side, side), np.float32), device)

    def compute() -> None:
        product(square).block_until_ready()

    compute()  # compiles
    return compute


def signs(run: timing.Run, cores: int) -> Signs:
    """Return what a run shows of the machine."""
    probes = [statistics.median(calls) for calls in run.reference]
    drift = max(probes) / min(probes) - 1 if probes else 0.0
    return Signs(drift, _spread([times.turns for times in run.ways.values()]), limit(cores))


def _spread(ways: Sequence[timing.Turns]) -> float | None:
    slowest = None
    for turn in range(max(map(len, ways), default=0)):
        each = [_longer(turns, turn) for turns in ways if len(turns) > max(turn, 1)]
        if each:
            slowest = max(statistics.median(each), slowest or 0.0)
    return slowest


def _longer(turns: timing.Turns, turn: int) -> float:
    """Return how much longer a turn's quickest call took than the median of the other turns, relative."""
    others = [statistics.median(calls) for number, calls in enumerate(turns) if number != turn]
    return min(turns[turn]) / statistics.median(others) - 1


def settled(once: Callable[[], timing.Run], say: Callable[[str], None], cores: int) -> tuple[timing.Run, Attempts]:
    """Run until the machine is not disturbed, a bounded number of times; the least disturbed run."""
    runs: list[timing.Run] = []
    found: list[Signs] = []
    while len(runs) < ATTEMPTS and not (found and not found[-1].disturbed):
        if found:
            last = found[-1]
            say(f"the machine was disturbed: {described(last.drift, last.spread, last.limit)}; running again")
        runs.append(once())
        found.append(signs(runs[-1], cores))
    shown = min(range(len(found)), key=lambda number: found[number].worst)
    return runs[shown], Attempts(tuple(found), shown)


def described(drift: float, spread: float | None, limit: float) -> str:
    """Describe the signs in words.

    >>> described(0.3, None, 0.25)
    'a fixed computation took up to 30% longer at one time than at another (the limit is 25%)'
    >>> described(0.0, 0.3, 0.25)
    'the ways took up to 30% longer in one turn than in the others (the limit is 25%)'
    """
    parts = []
    if drift > limit:
        parts.append(f"a fixed computation took up to {numbers.percent(drift)} longer at one time than at another")
    if spread is not None and spread > limit:
        parts.append(f"the ways took up to {numbers.percent(spread)} longer in one turn than in the others")
    return f"{' and '.join(parts)} (the limit is {numbers.percent(limit)})"
