"""The report of the two built-in programs: its document, and its page in a real browser."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from parity import cli
from parity.programs import BUILT_IN
from parity.report.render import charts, html
from tests.helpers.browser import visit

MEASURE = """
function measure(window, page) {
  return {
    drawn: [...page.querySelectorAll("figure.chart")].map((figure) => figure.querySelectorAll("svg").length),
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    headline: page.querySelector("h1").textContent,
    requests: window.performance.getEntriesByType("resource").map((entry) => entry.name),
  };
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("work") / "report"
    assert cli.main(["report", "-q", "-o", str(out), "--repeats", "2"]) == 0
    return out


@pytest.fixture(scope="module")
def document(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def test_document_follows_its_schema(document: Any) -> None:
    schema = json.loads(files("parity.report").joinpath("schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert [program["name"] for program in document["programs"]] == [program.name for program in BUILT_IN]


def test_page_is_made_of_the_document_alone(folder: Path, document: Any) -> None:
    assert html.render(document) == (folder / "report.html").read_text()


def test_document_tells_what_was_run_and_measured(document: Any) -> None:
    for program in document["programs"]:
        stages = {finding["stage"] for finding in program["findings"]}
        assert stages == {"forward", "loss", "gradient", "update", "trajectory", "final weights"}
        assert program["timing"]["steps"] == 1000
        assert program["timing"]["ratio_low"] <= program["timing"]["ratio"] <= program["timing"]["ratio_high"]
        assert program["code"]["torch"]["text"].count("optimizer.step()") == 1
        assert "jaxreg.fit(" in program["code"]["jax"]["text"]
        assert len(program["series"]["data"]["points"]) in (10, 100)
        assert program["series"]["loss"][-1]["step"] == 999
        assert program["series"]["distance"][-1]["step"] == 1000
        for row in program["series"]["distance"]:
            assert row["float32"] <= row["bound"]
    assert document["environment"]["versions"]["torch"].startswith("2.")
    assert document["command"].startswith("parity report -q -o")


def test_page_in_a_browser(folder: Path, document: Any) -> None:
    seen = visit(
        {"report": (folder / "report.html").read_bytes()},
        {"narrow": ("report", 400), "wide": ("report", 1280)},
        MEASURE,
    )
    assert seen.console == []
    expected = sum(len(charts.specs(program)) for program in document["programs"])
    assert expected == 10
    for result in seen.results.values():
        assert result["drawn"] == [1] * expected
        assert result["overflow"] <= 0
        assert result["requests"] == []
        assert "Parity holds" in result["headline"]
