"""The terminal's table."""

from __future__ import annotations

import functools
import io
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from parity.report.render import numbers, rows, terminal
from parity.report.render.numbers import encode
from tests.helpers import sample_report as sample
from tests.helpers.sample_report import Document
from tests.report.conftest import MAKERS


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", MAKERS)
def test_it_keeps_to_its_columns(documents: dict[str, Document], name: str, columns: int) -> None:
    for program in documents[name]["programs"]:
        lines = terminal.table(program, width=columns).splitlines()
        assert max(map(width, lines)) <= columns


any_size = st.floats(0, allow_nan=False)


@given(st.tuples(*[any_size] * 5), st.integers(0, 10**9), st.integers(50, 120))
@settings(max_examples=40)
def test_no_number_is_cut_whatever_the_width(values: tuple[float, ...], step: int, columns: int) -> None:
    difference, ulps, float64, torch, jax = values
    row = sample.finding(
        *("optimizer state", "exp_avg_sq/layers.0.weight"),
        difference=difference,
        ulps=ulps,
        float64_difference=float64,
        bound_used={"torch": torch, "jax": jax},
        holds=False,
        step=step,
        off="jax",
    )
    stage = {"stage": "forward", "holds": True, "tensor": "w", "bound_used": torch, "relative_error": float64}
    stages = [{**stage, "stage": name} for name in ("forward", "loss", "gradient", "update")]
    cell = {"platform": "cpu", "device": "a cpu", "precision": "highest", "holds": True, "failure": ""}
    program = encode({**sample_program(), "findings": [row], "matrix": {"cells": [{**cell, "stages": stages}]}})
    shown = terminal.table(program, width=columns)
    assert max(map(width, shown.splitlines())) <= columns
    cells = rows.finding(program["findings"][0], digits=2)
    assert f"step {step:,}" in " ".join(shown.split())
    for told in (cells.difference, cells.ulps, cells.float64, *cells.used.values(), "exp_avg"):
        assert told in shown
    matrix = terminal.matrix_alone(program, width=columns)
    for told in (numbers.percent(torch), numbers.scientific(float64, 2)):
        assert matrix.count(told) >= 4


@functools.cache
def sample_program() -> Document:
    return {**sample.holding()["programs"][0], "printed": [], "timing": None}


def test_what_holds(documents: dict[str, Document]) -> None:
    shown = terminal.table(documents["holding"]["programs"][0])
    assert shown.startswith("✓ The fitted line\n  The same training.\n")
    row = next(line for line in shown.splitlines() if line.startswith("forward"))
    assert row.split() == ["forward", "predictions", "2.4e-07", "2", "1.6e-16", "3.1%", "/", "2.5%", "✓"]
    assert "JAX is 143 times as fast" in shown
    assert "✗" not in shown


def test_what_fails(documents: dict[str, Document]) -> None:
    shown = terminal.table(documents["failing"]["programs"][0])
    assert shown.startswith("✗ The fitted line\n  Not the same training")
    row = next(line for line in shown.splitlines() if line.startswith("gradient"))
    assert row.split() == ["gradient", "weight", "1.9", "8.4e+06", "0.50", "6%", "/", "2.4e+08%", "✗", "step", "1"]
    assert "First parting: step 1, gradient, weight. The gradient is 0.5 times" in " ".join(shown.split())
    assert "Estimated weight: 1.9984               ≠  Estimated weight: 1.8611" in shown


def test_many_lines_that_are_the_same_are_folded(documents: dict[str, Document]) -> None:
    shown = terminal.table(documents["holding"]["programs"][1])
    assert "… 6 more lines" in shown
    assert "Epoch [300/1000]" in shown
    assert "Epoch [400/1000]" not in shown


def test_text_from_outside_is_neither_markup_nor_an_escape_sequence() -> None:
    program = sample.holding()["programs"][0]
    program["title"] = "[bold]not[/bold] [/] \x1b[31mred :smile:"
    program["findings"][0]["tensor"] = "[red]x"
    shown = terminal.table(program)
    assert "[bold]not[/bold] [/] ␛[31mred :smile:" in shown
    assert "[red]x" in shown
    assert "\x1b" not in terminal.table(sample.hostile()["programs"][0])


def test_values_need_not_be_encoded(documents: dict[str, Document]) -> None:
    program = documents["diverging"]["programs"][0]
    raw = json.loads(json.dumps(program), parse_constant=float)
    raw["findings"][0]["difference"] = float("nan")
    assert "NaN" in terminal.table(raw)


def test_on_a_terminal_it_has_colours(documents: dict[str, Document]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=80, _environ={})
    console.print(terminal.renderable(documents["failing"]["programs"][0]))
    assert "\x1b[1;35m✗" in stream.getvalue()


def test_the_surroundings_do_not_change_the_text(
    documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = documents["holding"]["programs"][0]
    expected = terminal.table(program)
    for name, value in {"COLUMNS": "30", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert terminal.table(program) == expected
    assert terminal.table(program, width=80) == expected
