"""The charts: what each draws, in any run, and that it draws."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree
from typing import Any

import pytest

from parity.report.render import charts
from tests.helpers import sample_report as sample
from tests.helpers.sample_report import Document
from tests.report.conftest import MAKERS

SVG = "{http://www.w3.org/2000/svg}"


def specs(document: Document) -> dict[str, dict[str, Any]]:
    return charts.specs(document["programs"][0])


@pytest.mark.parametrize("name", MAKERS)
def test_every_chart_is_drawn_with_marks(rendered: dict[str, dict[str, bytes]], name: str) -> None:
    drawings = {path: data for path, data in rendered[name].items() if path.startswith("charts/")}
    assert len(drawings) == 5 * (1 if name in ("diverging", "large") else 2)
    for data in drawings.values():
        root = xml.etree.ElementTree.fromstring(data)
        assert root.find(f"{SVG}rect[@fill='white']") is not None
        paths = [
            path.get("d", "")
            for group in root.iter(f"{SVG}g")
            if re.search(r"mark-(line|symbol) role-mark", group.get("class", ""))
            for path in group.iter(f"{SVG}path")
        ]
        assert any(paths)
        assert not any(re.search("NaN|Infinity|undefined", path) for path in paths)
        for element in root.iter():
            assert element.tag != f"{SVG}script"
            assert not any(key.startswith("on") for key in element.attrib)


def test_the_same_chart_gives_the_same_file(documents: dict[str, Document]) -> None:
    spec = specs(documents["holding"])["weights"]
    first = charts.svg(spec)
    assert "url(#clip0)" in first
    assert charts.svg(spec) == first


def test_names_and_titles(documents: dict[str, Document]) -> None:
    made = specs(documents["holding"])
    assert list(made) == ["loss", "weights", "distance-weight", "distance-bias", "data"]
    assert made["loss"]["title"].startswith("Loss: JAX’s dashed line lies on PyTorch’s")
    assert "where does" in specs(documents["failing"])["loss"]["title"]
    assert all(spec["width"] == "container" and spec["description"] for spec in made.values())
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in specs(documents["hostile"]))


def test_steps_without_finite_values_are_left_out(documents: dict[str, Document]) -> None:
    rows = documents["diverging"]["programs"][0]["series"]["loss"]
    drawn = specs(documents["diverging"])["loss"]["data"]["values"]
    assert 0 < len(drawn) < len(rows)
    assert all(math.isfinite(row["torch"]) and math.isfinite(row["jax"]) for row in drawn)


def test_what_is_exactly_equal_lies_on_the_floor() -> None:
    program = sample.holding()["programs"][0]
    row = {"tensor": "weight", "bound": "Infinity"}
    program["series"]["distance"] = [
        {**row, "step": 0, "float32": 0.0, "float64": 2e-16},
        {**row, "step": 1, "float32": 3e-7, "float64": 0.0},
    ]
    spec = charts.specs(program)["distance-weight"]
    shown = {(row["step"], row["kind"].split()[0]): row["shown"] for row in spec["data"]["values"]}
    assert shown == {(0, "as"): 1e-17, (0, "in"): 2e-16, (1, "as"): 3e-7, (1, "in"): 1e-17}
    assert "exactly equal" in charts.svg(spec)


def test_only_zeros_can_be_drawn() -> None:
    program = sample.holding()["programs"][0]
    program["series"]["distance"] = [{"tensor": "w", "step": 0, "float32": 0, "float64": 0, "bound": 0}]
    assert "exactly equal" in charts.svg(charts.specs(program)["distance-w"])


def test_without_values_there_is_no_chart() -> None:
    program = sample.holding()["programs"][0]
    program["series"] = {"loss": [], "weights": [], "distance": [], "data": None}
    assert charts.specs(program) == {}
    program["series"]["loss"] = [{"step": 0, "torch": "NaN", "jax": 1.0}]
    program["series"]["data"] = {"x_label": "", "y_label": "", "points": [{"x": 1, "y": 2}], "lines": []}
    assert list(charts.specs(program)) == ["data"]


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_single_step_can_be_drawn(value: float) -> None:
    program = sample.holding()["programs"][0]
    program["series"]["loss"] = [{"step": 0, "torch": value, "jax": value}]
    assert "<path" in charts.svg(charts.specs(program)["loss"])


def test_tensors_with_names_alike_get_charts_of_their_own_and_many_are_cut() -> None:
    program = sample.holding()["programs"][0]
    row = program["series"]["distance"][0]
    program["series"]["distance"] = [{**row, "tensor": name} for name in ("a.b", "a-b", "A b", "c", "d", "e")]
    assert list(charts.specs(program))[2:-1] == ["distance-a-b", "distance-a-b-2", "distance-a-b-3", "distance-c"]


def test_a_caller_may_change_what_it_gets(documents: dict[str, Document]) -> None:
    specs(documents["holding"])["loss"].clear()
    assert specs(documents["holding"])["loss"]
