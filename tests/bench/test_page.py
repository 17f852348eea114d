"""The benchmark's page, in a browser, and its table."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from parity.bench import document, html, table
from tests.bench import sample
from tests.report.browser import Visit, visit

MEASURE = """const measure = (window, page) => ({
  charts: page.querySelectorAll("figure.chart").length,
  drawn: page.querySelectorAll("figure.chart .drawing svg").length,
  failed: [...page.querySelectorAll(".drawing")].filter((d) => d.textContent.includes("could not be drawn")).length,
  overflow: page.documentElement.scrollWidth - window.innerWidth,
  bold: page.querySelectorAll("b").length,
  words: page.body.innerText,
});"""
WIDTHS = {"wide": 1500, "narrow": 360}


@pytest.fixture(scope="module")
def seen() -> Visit:
    made = sample.document()
    changes = document.changes(made, made)
    page = html.render(made, changes).encode()
    return visit({"page": page}, {name: ("page", width) for name, width in WIDTHS.items()}, MEASURE)


def test_the_sample_is_what_the_schema_says() -> None:
    schema = json.loads(files("parity.bench").joinpath("schema.json").read_text())
    jsonschema.validate(sample.document(), schema)


def test_the_page_draws_everything_and_asks_for_nothing(seen: Visit) -> None:
    assert seen.console == []
    assert [path for path in seen.requests if path not in ("/", "/page")] == []
    for name in WIDTHS:
        found = seen.results[name]
        # Two workloads, the processes, and the roofline.
        assert (found["charts"], found["drawn"], found["failed"]) == (4, 4, 0)
        assert found["overflow"] <= 0, name


def test_what_is_named_oddly_stays_words(seen: Visit) -> None:
    assert seen.results["wide"]["bold"] == 0
    assert sample.ODD in seen.results["wide"]["words"]


def test_page_and_table_say_the_same() -> None:
    made = sample.document()
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.renderable(made))
    words, page = console.export_text(), html.render(made, [])
    for number in ("1,000 (1,000-1,000)", "70: not the same", "needs a GPU", "100 ns", "1.5 (1.5-1.5)"):
        assert number in words, number
        assert number in page, number


def test_a_change_is_told_only_beyond_the_noise() -> None:
    old, new = sample.document(), sample.document()
    quick: Any = new["workloads"][0]["peers"][0]
    quick["seconds"] = [[call / 3 for call in turn] for turn in quick["seconds"]]
    kinds = {(each["workload"], each["peer"]): each["change"] for each in document.changes(old, new)}
    assert kinds.pop(("line", "jaxreg")) == "quicker"
    assert set(kinds.values()) == {"same"}
    assert ("start", "PyTorch") in kinds
