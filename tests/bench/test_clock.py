"""The clock: turns, medians, ratios and their intervals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.bench import clock

SECONDS = st.floats(1e-6, 1e3)
TURNS = st.lists(st.lists(SECONDS, min_size=1, max_size=4), min_size=1, max_size=6)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is moved."""
    at = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: at[0])
    return at


def test_ways_take_turns_and_each_begins_some(now: list[float]) -> None:
    order: list[str] = []

    def way(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    taken = clock.interleaved({"a": lambda: way("a", 1.0), "b": lambda: way("b", 2.0)}, repeats=3, seconds=100)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [[1.0]] * 3, "b": [[2.0]] * 3}


def test_a_slow_way_sits_out_and_a_quick_one_is_called_often(now: list[float]) -> None:
    def way(seconds: float) -> None:
        now[0] += seconds

    ways = {"slow": lambda: way(9.0), "quick": lambda: way(0.01)}
    taken = clock.interleaved(ways, repeats=4, seconds=20)
    assert list(map(len, taken["slow"])) == [1, 1]
    assert [len(turn) in (5, 6) for turn in taken["quick"]] == [True] * 4


def test_the_first_call_of_a_quick_turn_is_not_counted_nor_a_slow_one_made_twice(now: list[float]) -> None:
    made = {"slow": 0, "quick": 0}

    def way(name: str, seconds: float) -> None:
        now[0] += seconds * (3 if made[name] == 0 else 1)  # what the way before it left
        made[name] += 1

    taken = clock.interleaved(
        {"slow": lambda: way("slow", 1.0), "quick": lambda: way("quick", 0.1)}, repeats=1, seconds=9
    )
    assert taken == {"slow": [[3.0]], "quick": [[pytest.approx(0.1)]]}
    assert made == {"slow": 1, "quick": 2}


@given(TURNS, st.floats(0.5, 2.0))
def test_ratio_of_what_is_slower_by_a_factor(turns: list[list[float]], factor: float) -> None:
    slower = [[factor * call for call in turn] for turn in turns]
    for found in (clock.ratio(slower, turns), clock.unpaired(slower, turns)):
        assert found.median == pytest.approx(factor)
        assert (found.low is None) == (found.high is None) == (len(turns) == 1)
    paired = clock.ratio(slower, turns)
    if paired.low is not None:
        # Every turn has the same ratio, so that nothing is left for chance.
        assert [paired.low, paired.high] == pytest.approx([factor, factor])


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        slow, fast = (list(row[:, None]) for row in np.exp(0.1 * random.standard_normal((2, 15))))
        found = clock.ratio([2 * turn for turn in slow], fast)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2 <= found.high
    # 95 % of 200, and three standard deviations of that count.
    assert held >= 190 - 3 * (200 * 0.95 * 0.05) ** 0.5
