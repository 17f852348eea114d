"""What is shown is said of what was computed: titles, legends, notes, counts."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parity
from parity._words import count
from parity.report import document as _document
from parity.report.render import charts, folding, html, markdown, numbers, terminal
from parity.report.render import rows as _rows
from tests.helpers import sample_report as sample


def program(**changes: Any) -> sample.Document:
    return {**sample.holding()["programs"][0], **changes}


def with_losses(jax: float, ok: bool = True) -> sample.Document:
    rows = [{"step": step, "torch": 1.0 - 0.1 * step, "jax": 1.0 - 0.1 * step} for step in range(5)]
    rows[3]["jax"] += jax
    made = program(verdict={"ok": ok, "headline": "", "sentences": []})
    return {**made, "series": {"loss": rows, "weights": [], "distance": [], "data": None}}


@pytest.mark.parametrize(
    ("jax", "ok", "title"),
    [
        (0.0, True, "Loss: JAX’s dashed line lies on PyTorch’s"),
        (0.005, True, "Loss: JAX’s dashed line lies on PyTorch’s"),
        (0.1, True, "Loss: the two sides part by rounding alone"),
        (0.1, False, "Loss: where does JAX’s line leave PyTorch’s?"),
    ],
)
def test_a_chart_claims_no_more_than_it_shows(jax: float, ok: bool, title: str) -> None:
    assert charts.specs(with_losses(jax, ok))["loss"]["title"] == title


def test_a_chart_asks_nothing_where_nothing_was_judged() -> None:
    made = with_losses(0.1, ok=False)
    made["verdict"]["outcome"] = "not judged"
    assert charts.specs(made)["loss"]["title"] == "Loss"


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([0.1, 0.2], "0.1 to 0.2, changing"),
        ([0.1, 0.5, 0.1], "between 0.1 and 0.5, changing"),
        ([0.1, 0.1000001], "0.1 to 0.1000001, changing"),
        ([0.1, 0.1 + 2**-56], "0.10000000000000001 to 0.10000000000000002, changing"),
    ],
)
def test_learning_rates_that_change_are_told_apart(rates: list[float], told: str) -> None:
    assert _document._changing(np.array(rates)) == told


def test_a_chart_says_nothing_of_lines_that_it_has_not() -> None:
    made = program()
    made["series"]["data"]["lines"] = []
    assert charts.specs(made)["data"]["title"] == "The data"


def test_a_description_claims_nothing_of_a_distance() -> None:
    failing = sample.failing()["programs"][0]
    assert "below its rounding bound" not in charts.specs(failing)["distance-weight"]["description"]


def test_the_legends_draw_what_the_charts_draw() -> None:
    drawn = charts.specs(program())
    torch, jax = symbols(charts.svg(drawn["loss"]))
    assert f'stroke-width="{charts._TORCH_STROKE_PIXELS}"' in torch
    assert f'stroke-dasharray="{charts._JAX_DASH_PIXELS[0]},{charts._JAX_DASH_PIXELS[1]}"' in jax
    dot, _, line = symbols(charts.svg(drawn["distance-weight"]))
    assert 'stroke-dasharray="4,3"' in line
    assert "stroke-dasharray" not in dot.replace('stroke-dasharray=""', "")


def test_steps_are_whole_numbers_beside_the_axis() -> None:
    svg = charts.svg(charts.specs(with_losses(0.0))["loss"])
    axis = svg.split("role-axis-label")[1].split("role-axis-title")[0]
    assert re.findall(r">([^<]+)</text>", axis) == ["0", "1", "2", "3", "4"]


def test_a_legend_names_only_what_is_drawn() -> None:
    made = program()
    for row in made["series"]["distance"]:
        row["bound"] = "Infinity"
    assert len(symbols(charts.svg(charts.specs(made)["distance-weight"]))) == 2


def test_no_kind_of_distance_names_a_dtype_that_may_not_be_the_training_s() -> None:
    shown = json.dumps(charts.specs(program())["distance-weight"]["data"])
    assert "float32" not in shown


def symbols(svg: str) -> list[str]:
    """The drawings of a legend's entries."""
    return [part[: part.index("/>")] for part in svg.split("role-legend-symbol")[1:]]


def final(torch: float, jax: float, float64: float, ulps: float | None) -> dict[str, Any]:
    return {"tensor": "weight", "element": "[0]", "torch": torch, "jax": jax, "float64": float64, "ulps": ulps}


def test_float64_values_that_differ_are_shown_to_differ() -> None:
    row = final(0.1, 0.1 + 2**-56, 0.1, 1.0)
    shown = markdown._final(program(final=[row], final_total=1))
    assert "0.10000000000000001" in shown
    assert "0.10000000000000002" in shown.replace("0.10000000000000001", "") or "0.1000000000000000" in shown
    assert _rows.shown_digits(final(0.5, 0.5, 0.1, 0.0)) == 9


@pytest.mark.parametrize("total", [1, 40])
def test_an_extract_of_the_weights_is_said_to_be_one(total: int) -> None:
    made = program(final=[final(0.5, 0.5, 0.5, None)], final_total=total)
    document = {**sample.holding(), "programs": [made]}
    views = markdown.render(numbers.encode(document)), html.render(numbers.encode(document))
    for shown in views:
        assert ("This is the first of 40." in shown) == (total == 40)
    assert "| – |" in views[0]


def test_an_update_that_both_sides_round_alike_is_explained() -> None:
    row = sample.finding("update", "weight", difference=0.0, bound_used={"torch": 0.97, "jax": 0.97})
    made = program(findings=[row])
    for shown in (terminal.table(made), markdown.comment(made), html.fragment(made)):
        assert "both sides round to the same number" in " ".join(shown.split())
    moved = program(findings=[{**row, "difference": 1e-7}])
    assert "both sides round to the same number" not in " ".join(terminal.table(moved).split())


def test_a_share_of_no_bound_is_neither_shown_nor_the_worst_of_many() -> None:
    none = sample.finding("gradient", "a", bound_used={"torch": 0.4, "jax": 0.4}, unbounded=1.0)
    some = sample.finding("gradient", "b", bound_used={"torch": 4e-4, "jax": 4e-4}, unbounded=0.2)
    assert _rows.finding(none).used["jax"] == "–"
    assert _rows.finding(some).used["jax"] == "0.04%"
    assert _rows.finding(folding.worst([none, some], "2 tensors")).used["jax"] == "0.04%"
    assert _rows.finding(folding.worst([none, none], "2 tensors")).used["jax"] == "–"
    beyond = {**none, "within": {"torch": True, "jax": False}, "bound_used": {"torch": 0.4, "jax": 7.0}}
    assert _rows.finding(beyond).used == {"torch": "–", "jax": "700%"}


def test_a_row_without_a_relative_figure_has_no_bound_beside_it() -> None:
    row = sample.finding("gradient", "a", ulps=None, float64_difference=None, float64_bound=None)
    cells = _rows.finding(row)
    assert (cells.ulps, cells.float64, cells.relation) == ("–", "–", "")
    page = html.render(numbers.encode({**sample.holding(), "programs": [program(findings=[row])]}))
    assert "≤ –" not in page


@given(st.integers(0, 10**9))
def test_one_is_singular_and_all_else_plural(number: int) -> None:
    told = count(number, "step")
    assert told.endswith(" step") == (number == 1)
    assert int(told.split()[0].replace(",", "")) == number


def test_a_recording_of_one_step_says_so() -> None:
    import torch

    def once() -> None:
        model, x = torch.nn.Linear(1, 1), torch.ones(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.nn.functional.mse_loss(model(x), 2 * x).backward()
        optimizer.step()

    recording = parity.record(once)
    assert "1 step, 1 row)" in repr(recording)
    from parity.porting import jax_source

    assert "1 time: one compiled program" in jax_source.write(recording, "a.npz")
