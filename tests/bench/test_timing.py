"""The clock: turns, medians, ratios and their intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.bench import timing

SECONDS = st.floats(1e-6, 1e3)
TURNS = st.lists(st.lists(SECONDS, min_size=1, max_size=4), min_size=1, max_size=6)


def _way(now: list[float], seconds: float, name: str = "", order: list[str] | None = None) -> Callable[[], str]:
    def way() -> str:
        now[0] += seconds
        if order is not None:
            order.append(name)
        return name

    return way


def test_ways_take_turns_and_each_begins_some(now: list[float]) -> None:
    order: list[str] = []
    ways = {"a": _way(now, 1.0, "a", order), "b": _way(now, 2.0, "b", order)}
    run = timing.interleaved(ways, repeats=3, seconds=100)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: times.turns for name, times in run.ways.items()} == {"a": [[1.0]] * 3, "b": [[2.0]] * 3}


def test_a_slow_way_sits_out_and_a_quick_one_is_called_often(now: list[float]) -> None:
    run = timing.interleaved({"slow": _way(now, 9.0), "quick": _way(now, 0.01)}, repeats=4, seconds=20)
    assert list(map(len, run.ways["slow"].turns)) == [1, 1]
    assert [len(turn) in (5, 6) for turn in run.ways["quick"].turns] == [True] * 4


def test_the_time_that_a_way_has_counts_all_its_calls(now: list[float]) -> None:
    """The one that warms and the cold one, too: else ``--seconds 10`` would take 30."""
    run = timing.interleaved({"way": _way(now, 0.9, "way")}, repeats=50, seconds=10, watch=_Watch())
    assert now[0] <= 10
    assert len(run.ways["way"].turns) == 3
    begin = now[0]
    said: list[str] = []
    timing.interleaved({"way": _way(now, 6.0)}, repeats=50, seconds=10, say=said.append)
    assert now[0] - begin == 6
    assert said == ["repeat 1 of 50"]


def test_the_first_call_of_a_quick_turn_is_not_counted_nor_a_slow_one_made_twice(now: list[float]) -> None:
    made = {"slow": 0, "quick": 0}

    def way(name: str, seconds: float) -> None:
        now[0] += seconds * (3 if made[name] == 0 else 1)  # what the way before it left
        made[name] += 1

    run = timing.interleaved(
        {"slow": lambda: way("slow", 1.0), "quick": lambda: way("quick", 0.1)}, repeats=1, seconds=9
    )
    assert run.ways["slow"].turns == [[3.0]]
    assert run.ways["quick"].turns == [[pytest.approx(0.1)]]
    assert made == {"slow": 1, "quick": 2}


class _Watch(timing.Watch):
    """Cold calls take longer by what was filled; keeps what it is told."""

    def __init__(self, fills: list[bool] | None = None) -> None:
        self.fills = [] if fills is None else fills
        self.fill_caches = lambda: self.fills.append(True)
        self.told: list[tuple[str, int]] = []
        self.lost: list[str] = []

    def after_turn(self, name: str, results: list[str]) -> None:
        assert set(results) == {name}
        self.told.append((name, len(results)))

    def failed(self, name: str, error: Exception) -> None:
        self.lost.append(f"{name}: {error}")


def test_a_quick_way_has_one_cold_call_a_turn_and_every_result_is_handed_on(now: list[float]) -> None:
    watch = _Watch()

    def quick() -> str:
        now[0] += 0.03 + (0.5 if watch.fills else 0)
        watch.fills.clear()
        return "quick"

    run = timing.interleaved({"quick": quick, "slow": _way(now, 2.0, "slow")}, repeats=2, seconds=100, watch=watch)
    assert run.ways["quick"].turns == [[pytest.approx(0.03)] * 2] * 2
    assert run.ways["quick"].cold == [[pytest.approx(0.53)]] * 2
    assert run.ways["slow"].cold == []
    assert sorted(watch.told) == [("quick", 4)] * 2 + [("slow", 1)] * 2


def test_a_way_that_fails_while_it_is_timed_is_left_out_and_the_others_go_on(now: list[float]) -> None:
    def breaks() -> str:
        if now[0] > 2:
            raise MemoryError("no room")
        return _way(now, 1.0, "breaks")()

    watch, good = _Watch(), {"good": _way(now, 1.0, "good")}
    run = timing.interleaved({"breaks": breaks, **good}, repeats=4, seconds=100, watch=watch)
    assert watch.lost == ["breaks: no room"]
    assert {name: len(times.turns) for name, times in run.ways.items()} == {"good": 4}
    with pytest.raises(MemoryError):
        timing.interleaved({"breaks": breaks}, repeats=4, seconds=100)
    assert timing.interleaved({}, repeats=4, seconds=100).ways == {}


@given(TURNS, st.floats(0.5, 2.0))
def test_ratio_of_what_is_slower_by_a_factor(turns: list[list[float]], factor: float) -> None:
    slower = [[factor * call for call in turn] for turn in turns]
    for found in (timing.ratio(slower, turns), timing.unpaired(slower, turns)):
        assert found.median == pytest.approx(factor)
        assert (found.low is None) == (found.high is None) == (len(turns) == 1)
    paired = timing.ratio(slower, turns)
    if paired.low is not None:
        # Every turn has the same ratio, so that nothing is left for chance.
        assert [paired.low, paired.high] == pytest.approx([factor, factor])


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        slow, fast = (list(row[:, None]) for row in np.exp(0.1 * random.standard_normal((2, 15))))
        found = timing.ratio([2 * turn for turn in slow], fast)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2 <= found.high
    # 95 % of 200, and three standard deviations of that count.
    assert held >= 190 - 3 * (200 * 0.95 * 0.05) ** 0.5
