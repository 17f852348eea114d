"""Timing that can be believed: interleaved repeats, warm and synchronised, medians, and ratios with their interval."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_RESAMPLED = 2000
# A quick way is called again and again for so long in its turn: a single call would be at the clock's mercy.
_TURN = 0.05
_MOST_CALLS = 100
# A way that is done sooner is called once before it is timed: the caches, and threads that wait for more to do without
# sleeping, are then its own, as in a program that trains one model after another, and not those of the way before it.
_SOON = 1.0

Turns = Sequence[Sequence[float]]


class Ratio(NamedTuple):
    """How many times as long one takes as another: the median over repeats, and its 95 % bootstrap interval.

    The interval is ``None`` where there is one repeat only.
    """

    median: float
    low: float | None
    high: float | None


def interleaved(
    ways: dict[str, Callable[[], Any]], *, repeats: int, seconds: float, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[list[float]]]:
    """Seconds of each call of each way, in turns, so that what disturbs the machine disturbs all of them alike.

    A way must come back only when its user has the result, and be warm.

    Args:
        ways: what to time, by name.
        repeats: how many turns each has at most.
        seconds: a way that would exceed so many in all sits out the turns that are left; each has one turn at least.
        say: told of each turn.

    Returns:
        For each way its turns, each the seconds of one call or, of a quick way, of many.
    """
    taken: dict[str, list[list[float]]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(repeats):
        here = turn % len(names)
        for name in names[here:] + names[:here]:
            spent = [sum(calls) for calls in taken[name]]
            if spent and sum(spent) + max(spent) > seconds:
                continue
            taken[name].append(_turn(ways[name]))
        say(f"repeat {turn + 1} of {repeats}")
    return taken


def _turn(way: Callable[[], Any]) -> list[float]:
    first = _seconds(way)
    if first >= _SOON:
        return [first]
    calls: list[float] = []
    while not calls or (sum(calls) < _TURN and len(calls) < _MOST_CALLS):
        calls.append(_seconds(way))
    return calls


def _seconds(way: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin


def median(turns: Turns) -> float:
    """The median over turns of the median call.

    >>> median([[1.0, 9.0, 1.0], [2.0], [3.0]])
    2.0
    """
    return float(statistics.median(_medians(turns)))


def ratio(slow: Turns, fast: Turns, seed: int = 0) -> Ratio:
    """How many times as long ``slow`` takes as ``fast``: its turns are held against ``fast``'s of the same numbers.

    >>> ratio([[2.0], [2.2], [1.8]], [[1.0], [1.0], [1.0], [5.0]]).median
    2.0
    """
    shared = min(len(slow), len(fast))
    shares = _medians(slow[:shared]) / _medians(fast[:shared])
    if shared == 1:
        return Ratio(float(shares[0]), None, None)
    drawn = np.random.default_rng(seed).integers(0, shared, (_RESAMPLED, shared))
    low, high = np.quantile(np.median(shares[drawn], 1), [0.025, 0.975])
    return Ratio(float(np.median(shares)), float(low), float(high))


def unpaired(slow: Turns, fast: Turns, seed: int = 0) -> Ratio:
    """The same over turns of two runs: of their medians, each drawn again by itself."""
    random = np.random.default_rng(seed)
    each = [_medians(turns) for turns in (slow, fast)]
    middle = float(np.median(each[0]) / np.median(each[1]))
    if min(map(len, each)) == 1:
        return Ratio(middle, None, None)
    medians = [np.median(random.choice(turns, (_RESAMPLED, len(turns))), 1) for turns in each]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return Ratio(middle, float(low), float(high))


def _medians(turns: Turns) -> np.ndarray[Any, Any]:
    return np.array([statistics.median(calls) for calls in turns])
