"""The benchmark's page, in a browser, and its table."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from parity.bench import comparison, html, table
from parity.report.render import numbers
from tests.helpers import sample_bench as sample
from tests.helpers.browser import Visit, visit

MEASURE = """const measure = (window, page) => ({
  charts: page.querySelectorAll("figure.chart").length,
  drawn: page.querySelectorAll("figure.chart .drawing svg").length,
  failed: [...page.querySelectorAll(".drawing")].filter((d) => d.textContent.includes("could not be drawn")).length,
  overflow: page.documentElement.scrollWidth - window.innerWidth,
  bold: page.querySelectorAll("b").length,
  words: page.body.innerText,
});"""
REMARK = "Another <machine>."
WIDTHS = {"wide": 1500, "narrow": 360}


@pytest.fixture(scope="module")
def seen() -> Visit:
    made = sample.document()
    changes = comparison.changes(made, made)
    page = html.render(made, changes, [REMARK]).encode()
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
    assert REMARK in seen.results["wide"]["words"]


def _printed(made: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.renderable(made))
    return console.export_text()


def test_page_and_table_say_the_same() -> None:
    made = sample.document()
    words, page = _printed(made, 160), html.render(made, [])
    for number in (
        *(
            "1,000 (1,000-1,000)",
            "7,000%: not the same",
            "needs a GPU",
            "100 ns",
            "1.50 (1.50-1.50)",
            "11.4 µs",
            "3 MiB",
            "400 MiB",
        ),
        *(
            "455,000 (–)",
            "(–): one turn",
            "No cold time: a call takes a second or more",
            "No memory: ",
            "No × jaxreg: ",
        ),
        "The machine was disturbed: a fixed computation took up to 30% longer",
        "First: JAX may have taken compiled programs from its compilation cache",
        *made["clock"].values(),
        made["cold"]["said"],
        *(made["memory"][each] for each in ("training", "start")),
    ):
        assert number in words, number
        assert number in page, number
    assert "disturbed" not in _printed({**made, "workloads": []}, 160)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    """A cell that ends in an ellipsis says another number than the JSON."""
    made = sample.document()
    made["workloads"][0]["peers"][2]["name"] = "a way to train with a name that is very long indeed"
    words = _printed(made, width)
    assert "…" not in words
    for peer in made["workloads"][0]["peers"]:
        if peer["cold_median"]:
            assert numbers.duration(peer["cold_median"]) in words


def test_a_change_is_told_only_beyond_the_noise() -> None:
    old, new = sample.document(), sample.document()
    quick: Any = new["workloads"][0]["peers"][0]
    quick["seconds"] = [[call / 3 for call in turn] for turn in quick["seconds"]]
    once = ("line", "PyTorch by hand"), ("square", "PyTorch by hand")
    kinds = {(each["workload"], each["peer"]): each["change"] for each in comparison.changes(old, new)}
    assert kinds.pop(("line", "jaxreg")) == "quicker"
    assert {kinds.pop(each) for each in once} == {"not known: one turn"}
    assert set(kinds.values()) == {"same"}
    assert not any(peer == sample.ODD for _, peer in kinds), "no ratio is given for another training"
    assert ("start", "PyTorch") in kinds
