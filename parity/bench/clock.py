"""Timing that can be believed: interleaved repeats, warm and synchronised, medians, and ratios with their interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_RESAMPLED = 2000


class Ratio(NamedTuple):
    """How many times as long one takes as another: the median over repeats, and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


def interleaved(
    ways: dict[str, Callable[[], Any]], *, repeats: int, seconds: float, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[float]]:
    """Seconds of each repeat of each way, in turns, so that what disturbs the machine disturbs all of them alike.

    Each is called once before, to be warm. A way must come back only when its work is done.

    Args:
        ways: what to time, by name.
        repeats: how often each is timed at most.
        seconds: after so many, no further turn is begun; each way is timed at least once.
        say: told of each turn.
    """
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names, begin = list(ways), time.perf_counter()
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - start)
        say(f"repeat {turn + 1} of {repeats}")
        if time.perf_counter() - begin > seconds:
            break
    return taken


def ratio(slow: list[float], fast: list[float], seed: int = 0) -> Ratio:
    """How many times as long ``slow`` takes as ``fast``, over repeats that were made in turns.

    >>> ratio([2.0, 2.2, 1.8], [1.0, 1.0, 1.0]).median
    2.0
    """
    shares = np.array(slow) / np.array(fast)
    drawn = np.random.default_rng(seed).integers(0, len(shares), (_RESAMPLED, len(shares)))
    low, high = np.quantile(np.median(shares[drawn], 1), [0.025, 0.975])
    return Ratio(float(np.median(shares)), float(low), float(high))


def unpaired(slow: list[float], fast: list[float], seed: int = 0) -> Ratio:
    """The same over repeats of two runs: of their medians, each drawn again by itself."""
    random = np.random.default_rng(seed)
    medians = [np.median(random.choice(each, (_RESAMPLED, len(each))), 1) for each in (slow, fast)]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return Ratio(float(np.median(slow) / np.median(fast)), float(low), float(high))
