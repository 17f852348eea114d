"""Long tables folded: nothing that fails is lost from sight, and the worst of each stage stays."""

from __future__ import annotations

import copy
import re

from hypothesis import given
from hypothesis import strategies as st

from parity.report.render import folding, html, markdown, numbers, terminal
from tests.helpers import large_report as large
from tests.helpers import sample_report as sample


def _rows(stage: str) -> list[sample.Document]:
    return [dict(row) for row in folding.fold(large.findings()) if row["stage"] == stage]


def test_a_short_table_is_shown_whole() -> None:
    rows = large.findings()[:24]
    assert folding.fold(rows) == rows


def test_a_stage_that_holds_is_one_row_with_its_worst() -> None:
    [row] = _rows("trajectory")
    assert row["tensor"] == "30 tensors, the worst"
    assert row["difference"] == 29 * 1e-8
    assert row["holds"]


def test_what_fails_is_shown_earliest_first_and_the_rest_counted() -> None:
    *failing, more, others = _rows("update")
    assert [row["step"] for row in failing] == [22, 23, 24, 25, 26]
    assert more["tensor"] == "4 more that fail, the worst"
    assert (more["holds"], more["step"], more["within"]["jax"]) == (False, 27, False)
    assert others["tensor"] == "21 others, the worst"
    assert others["holds"]
    assert others["bound_used"]["jax"] < 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9), st.floats(0, 2)), max_size=80))
def test_every_stage_keeps_its_first_failure_and_its_worst_numbers(
    drawn: list[tuple[str, int | None, float]],
) -> None:
    rows = [
        sample.finding(stage, f"t{place}", step=step, holds=step is None, difference=worst)
        for place, (stage, step, worst) in enumerate(sorted(drawn, key=lambda one: one[0]))
    ]
    for shown in (folding.fold(rows), folding.by_stage(rows)):
        for stage in {row["stage"] for row in rows}:
            whole = [row for row in rows if row["stage"] == stage]
            kept = [row for row in shown if row["stage"] == stage]
            assert all(row["holds"] for row in whole) == all(row["holds"] for row in kept)
            assert max(row["difference"] for row in kept) == max(row["difference"] for row in whole)
            steps = [row["step"] for row in whole if row["step"] is not None]
            assert min(steps, default=None) == min((r["step"] for r in kept if r["step"] is not None), default=None)
    if len(rows) > 24:
        assert len(folding.fold(rows)) <= 3 * 7


def test_nan_is_the_worst() -> None:
    [row] = [row for row in _rows("gradient") if not row["holds"]]
    assert row["bound_used"]["jax"] == "NaN"
    assert folding.worst(large.findings()[:30], "all")["bound_used"]["jax"] == "NaN"


def test_the_terminal_shows_a_page_and_says_where_the_rest_is() -> None:
    shown = terminal.table(large.large()["programs"][0])
    assert len(shown.splitlines()) < 70
    assert "4 more that" in shown
    assert "Of 150 checks, each stage shows the first that fail and the worst. The JSON file has them all." in " ".join(
        shown.split()
    )


def test_the_page_and_the_summary_hold_every_row_behind_details() -> None:
    document = large.large()
    for shown in (html.render(document), markdown.render(document), html.fragment(document["programs"][0])):
        before, _, behind = shown.partition("<details")
        assert "blocks.9.attn" not in before.replace("\\", "")
        assert len(re.findall(r"blocks\.9\.attn\.bias", behind.replace("\\", ""))) >= len(large.STAGES)


def test_a_comment_has_a_line_for_each_stage() -> None:
    shown = markdown.comment(large.large()["programs"][0])
    rows = [line for line in shown.splitlines() if line.startswith("| ") and "×" in line and " / " in line]
    assert [row.split("|")[1].strip() for row in rows] == list(large.STAGES)
    assert r"| update | 9 of 30 tensors, first blocks.8.attn.weight" not in shown
    assert "| 9 of 30 tensors, first blocks.2.mlp.weight |" in shown
    assert "❌ step 22" in shown
    assert len(shown) < 4000


def test_a_folded_document_is_not_changed() -> None:
    program = numbers.encode(large.large()["programs"][0])
    before = copy.deepcopy(program)
    terminal.table(program)
    markdown.comment(program)
    assert program == before
