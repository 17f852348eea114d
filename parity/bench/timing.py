"""Timing that can be believed: interleaved repeats, warm and synchronised, medians, and ratios with their interval."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_BOOTSTRAP_SAMPLES = 2000
# A quick way is called again and again for so long in its turn: a single call would be at the clock's mercy.
_TURN_SECONDS = 0.05
_CALLS_PER_TURN = 100
# A way that is done sooner is called once before it is timed: the caches, and threads that wait for more to do without
# sleeping, are then its own, as in a program that trains one model after another, and not those of the way before it.
# A slower way has no cold call either: filling the caches takes milliseconds, which cannot be seen beside a second.
_QUICK_CALL_SECONDS = 1.0
# Calls of the fixed computation, of which the median counts.
_PROBE_CALLS = 9

Turns = Sequence[Sequence[float]]


class Ratio(NamedTuple):
    """How many times as long one takes as another: the median over repeats, and its 95 % bootstrap interval.

    The interval is ``None`` where there is one repeat only.
    """

    median: float
    low: float | None
    high: float | None


class Watch:
    """What is done beside the timed calls, outside of the clock; this one does nothing.

    Attributes:
        reference: a fixed computation, timed before the first turn and after each one; ``None`` for none.
        fill_caches: fills the processor's caches with other data, for one cold call in each turn; ``None`` for none.
    """

    reference: Callable[[], None] | None = None
    fill_caches: Callable[[], None] | None = None

    def before_turn(self, name: str) -> None:
        """Prepare for a way's turn."""

    def after_first(self, name: str) -> None:
        """Look at the state after the first call of a way's turn."""

    def after_turn(self, name: str, results: list[Any]) -> None:
        """Look at what all calls of a way's turn returned."""

    def failed(self, name: str, error: Exception) -> None:
        """Handle a call that raises: the way is left out from there on, unless this raises, too."""
        raise error


@dataclasses.dataclass
class Times:
    """Seconds of one way's calls.

    Attributes:
        turns: of each turn's warm calls.
        cold: of each turn's cold call; empty where there is none.
        spent: of all calls in each turn, those that do not count, too.
    """

    turns: list[list[float]] = dataclasses.field(default_factory=list)
    cold: list[list[float]] = dataclasses.field(default_factory=list)
    spent: list[float] = dataclasses.field(default_factory=list)


class Run(NamedTuple):
    """All turns of all ways.

    Attributes:
        ways: by name; without those that failed.
        reference: seconds of the fixed computation's calls, before the first turn and after each one.
    """

    ways: dict[str, Times]
    reference: list[list[float]]


def interleaved(
    ways: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    seconds: float,
    watch: Watch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Time each call of each way, in turns, so that a disturbance meets all of them alike.

    A way must come back only when its user has the result.

    Args:
        ways: what to time, by name.
        repeats: how many turns each has at most.
        seconds: a way whose calls would take longer than that in all sits out the turns that are left; each has one
            turn at least.
        watch: what is done beside the timed calls.
        say: told of each turn.
    """
    watch = watch or Watch()
    run = Run({name: Times() for name in ways}, [_probe(watch.reference)] if watch.reference else [])
    for turn in range(repeats):
        going = [name for name, times in run.ways.items() if _has_time(times, seconds)]
        if not going:
            break
        first = turn % len(ways)
        for name in [*list(ways)[first:], *list(ways)[:first]]:
            if name not in going:
                continue
            try:
                _turn(name, ways[name], run.ways[name], watch)
            except Exception as error:
                watch.failed(name, error)
                del run.ways[name]
        if watch.reference:
            run.reference.append(_probe(watch.reference))
        say(f"repeat {turn + 1} of {repeats}")
    return run


def _has_time(times: Times, seconds: float) -> bool:
    return not times.spent or sum(times.spent) + max(times.spent) <= seconds


def _turn(name: str, way: Callable[[], Any], times: Times, watch: Watch) -> None:
    results: list[Any] = []

    def call() -> float:
        begin = time.perf_counter()
        result = way()
        taken = time.perf_counter() - begin
        results.append(result)
        return taken

    watch.before_turn(name)
    first = call()
    watch.after_first(name)
    warm, cold = [], []
    if first >= _QUICK_CALL_SECONDS:
        warm = [first]
    else:
        while not warm or (sum(warm) < _TURN_SECONDS and len(warm) < _CALLS_PER_TURN):
            warm.append(call())
        if watch.fill_caches:
            watch.fill_caches()
            cold = [call()]
    watch.after_turn(name, results)
    times.turns.append(warm)
    times.cold += [cold] if cold else []
    times.spent.append(sum(cold, sum(warm, first if first < _QUICK_CALL_SECONDS else 0.0)))


def _probe(reference: Callable[[], None]) -> list[float]:
    calls = []
    for _ in range(_PROBE_CALLS):
        begin = time.perf_counter()
        reference()
        calls.append(time.perf_counter() - begin)
    return calls


def median(turns: Turns) -> float:
    """Return the median over turns of the median call.

    >>> median([[1.0, 9.0, 1.0], [2.0], [3.0]])
    2.0
    """
    return float(statistics.median(_medians(turns)))


def ratio(slow: Turns, fast: Turns, seed: int = 0) -> Ratio:
    """Return how many times as long ``slow`` takes as ``fast``, turn against turn of the same number.

    >>> ratio([[2.0], [2.2], [1.8]], [[1.0], [1.0], [1.0], [5.0]]).median
    2.0
    """
    shared = min(len(slow), len(fast))
    shares = _medians(slow[:shared]) / _medians(fast[:shared])
    if shared == 1:
        return Ratio(float(shares[0]), None, None)
    drawn = np.random.default_rng(seed).integers(0, shared, (_BOOTSTRAP_SAMPLES, shared))
    low, high = np.quantile(np.median(shares[drawn], 1), [0.025, 0.975])
    return Ratio(float(np.median(shares)), float(low), float(high))


def unpaired(slow: Turns, fast: Turns, seed: int = 0) -> Ratio:
    """Return the ratio of two runs' medians, whose turns are resampled each by itself."""
    random = np.random.default_rng(seed)
    each = [_medians(turns) for turns in (slow, fast)]
    middle = float(np.median(each[0]) / np.median(each[1]))
    if min(map(len, each)) == 1:
        return Ratio(middle, None, None)
    medians = [np.median(random.choice(turns, (_BOOTSTRAP_SAMPLES, len(turns))), 1) for turns in each]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return Ratio(middle, float(low), float(high))


def _medians(turns: Turns) -> np.ndarray[Any, Any]:
    return np.array([statistics.median(calls) for calls in turns])
