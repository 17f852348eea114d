"""The charts' axes: any number can be drawn, and those beside an axis are told apart and true."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.report.render import axes, charts, titles
from tests.helpers import sample_report as sample

LARGEST, SMALLEST = 1.7e308, 5e-324


def program(**series: Any) -> sample.Document:
    empty: dict[str, Any] = {"loss": [], "weights": [], "distance": [], "data": None}
    verdict = {"ok": True, "headline": "", "sentences": []}
    return {"verdict": verdict, "series": empty | series}


def losses(*values: float) -> sample.Document:
    return program(loss=[{"step": step, "torch": value, "jax": value} for step, value in enumerate(values)])


def distances(*values: float) -> sample.Document:
    rows = [{"tensor": "w", "step": i, "float32": v, "float64": 0.0, "bound": "Infinity"} for i, v in enumerate(values)]
    return program(distance=rows)


def data(*points: tuple[float, float]) -> sample.Document:
    rows = [{"x": x, "y": y} for x, y in points]
    return program(data={"x_label": "x", "y_label": "y", "points": rows, "lines": []})


def beside(svg: str) -> list[list[str]]:
    """The numbers beside each axis."""
    parts = [part.split("role-axis-title")[0] for part in svg.split("role-axis-label")[1:]]
    return [re.findall(r">([^<]+)</text>", part) for part in parts]


CASES = {
    "two steps": (losses(1.0, 2.0), "loss"),
    "alike to six digits": (losses(0.9442273378372192, 0.9442272), "loss"),
    "alike to fifteen digits": (losses(1.0, 1.0 + 2**-50), "loss"),
    "millions that differ by one": (losses(1234567.0, 1234568.0), "loss"),
    "below the normal numbers": (losses(SMALLEST, 0.0), "loss"),
    "all of the floats": (losses(1e300, 1e-320), "loss"),
    "from one end to the other": (losses(1e300, -1e300), "loss"),
    "many steps": (losses(*map(float, range(1, 15))), "loss"),
    "the smallest distance": (distances(SMALLEST, 0.0), "distance-w"),
    "the largest distance": (distances(LARGEST, 1.0), "distance-w"),
    "all distances": (distances(LARGEST, SMALLEST, 0.0), "distance-w"),
    "small data": (data((4e-6, 3e-7), (0.0, 0.0)), "data"),
    "large data": (data((4e6, 3e11), (0.0, 0.0)), "data"),
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_beside_an_axis_are_told_apart_and_stand_in_order(name: str) -> None:
    made, chart = CASES[name]
    svg = charts.svg(charts.specs(made)[chart])
    assert not re.search("NaN|Infinity|undefined", svg.split("</style>")[-1])
    for shown in beside(svg):
        read = [float(text.replace(",", "").replace("−", "-")) for text in shown]
        assert len(read) > 1
        assert read == sorted(set(read))
        # From a thousandth to a million numbers are written out, all others with a power of ten.
        for text, value in zip(shown, read, strict=True):
            assert ("e" in text) == (value != 0 and not 1e-3 <= abs(value) < 1e6), text
            assert "+" not in text


def test_what_is_too_large_to_be_drawn_is_left_out() -> None:
    made = charts.specs(losses(LARGEST, 1.0, 2.0))["loss"]
    assert [row["torch"] for row in made["data"]["values"]] == [1.0, 2.0]
    assert charts.specs(losses(LARGEST)) == {}


def test_no_distance_but_zero_lies_where_sides_are_exactly_equal() -> None:
    drawn = charts.specs(distances(SMALLEST, 0.0, LARGEST))["distance-w"]["data"]["values"]
    shown = {row["value"]: row["shown"] for row in drawn}
    assert 0 < shown[0.0] < shown[SMALLEST] < shown[LARGEST] < math.inf


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_few_whole_steps_stand_beside_their_axis(a: int, b: int) -> None:
    first, last = sorted((a, b))
    ticks = axes.whole(first, last)
    assert 1 <= len(ticks) <= 7
    assert all(first <= tick <= last for tick in ticks)
    assert len({after - before for before, after in itertools.pairwise(ticks)}) <= 1


@given(st.lists(st.floats(-axes.LARGEST, axes.LARGEST), min_size=1, max_size=4))
def test_an_axis_holds_its_values_and_can_be_divided(values: list[float]) -> None:
    low, high = axes.linear(values)
    assert low <= min(values) <= max(values) <= high
    assert math.isfinite(high - low)
    assert high == low or math.isfinite(1 / (high - low))
    assert re.search(r"\.\d+~r", axes.label(values))
    pairs = [{"torch": value, "jax": value} for value in values]
    assert titles.together(pairs, [low, high], 0.02)
