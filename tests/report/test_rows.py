"""What the page, the summary and the table share."""

from __future__ import annotations

from typing import Any

import pytest

from parity.report.render import numbers
from parity.report.render import rows as _rows
from tests.helpers import sample_report as sample


def lines(*same: bool) -> list[dict[str, Any]]:
    return [{"torch": str(i), "jax": str(i) if equal else "?", "same": equal} for i, equal in enumerate(same)]


def test_a_long_run_of_the_same_lines_folds_its_middle() -> None:
    blocks = _rows.printed(lines(*[True] * 20))
    assert [(len(block.lines), block.folded) for block in blocks] == [(3, False), (15, True), (2, False)]


def test_lines_that_differ_are_never_folded_and_none_is_lost() -> None:
    rows = lines(*[False] * 20, *[True] * 9, False)
    blocks = _rows.printed(rows)
    assert [line[0] for block in blocks for line in block.lines] == [row["torch"] for row in rows]
    assert all(same for block in blocks if block.folded for _, _, same in block.lines)
    assert _rows.printed([]) == []


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        ((), ""),
        ((True,), "The printed line is the same with JAX's numbers."),
        ((False,), "The printed line differs with JAX's numbers."),
        ((True, True), "All 2 printed lines are the same with JAX's numbers."),
        ((True, False, False), "2 of 3 printed lines differ with JAX's numbers."),
    ],
)
def test_the_comparison_of_printed_lines_in_words(same: tuple[bool, ...], expected: str) -> None:
    assert _rows.printed_summary({"printed": lines(*same)}) == expected


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        ((True,), "1 of 3 printed lines is compared: it is the same with JAX's numbers."),
        ((False,), "1 of 3 printed lines is compared: it differs with JAX's numbers."),
        ((True, True), "2 of 3 printed lines are compared: all are the same with JAX's numbers."),
        ((True, False), "2 of 3 printed lines are compared: 1 differs with JAX's numbers."),
        ((False, False), "2 of 3 printed lines are compared: 2 differ with JAX's numbers."),
    ],
)
def test_printed_lines_that_are_not_compared_are_counted(same: tuple[bool, ...], expected: str) -> None:
    assert _rows.printed_summary({"printed": lines(*same), "printed_total": 3}) == expected


def test_a_finding_that_fails_says_where_and_why() -> None:
    failing = sample.finding("loss", "loss", holds=False, step=1000, off="torch")
    shown = _rows.finding(failing)
    assert (shown.where, shown.message) == ("step 1,000", "PyTorch's side is off")
    shown = _rows.finding({**failing, "message": "halved", "step": None})
    assert (shown.where, shown.message) == ("", "halved")


def test_a_message_that_findings_share_is_told_once() -> None:
    rows = [sample.finding("loss", name, holds=False, message=name[0]) for name in ("a1", "a2", "b1", "a3")]
    assert [cells.message for cells in _rows.findings(rows)] == ["", "a", "b", "a"]


@pytest.mark.parametrize(("share", "fill"), [(0, 0), (0.5, 0.5), (1, 1), (7, 1), ("Infinity", 1), ("NaN", 1), (-1, 1)])
def test_a_bar_is_full_for_what_is_out_of_its_bound_or_unknown(share: Any, fill: float) -> None:
    row = sample.finding("loss", "loss", bound_used={"torch": share, "jax": 0})
    assert _rows.finding(row).fill == {"torch": fill, "jax": 0}


def timing(**changes: Any) -> dict[str, Any]:
    return {**sample.holding()["programs"][0]["timing"], **changes}


def test_time_is_told_in_words() -> None:
    assert _rows.timing(timing()) == (
        "1,000 steps take 187 ms in PyTorch and 1.31 ms in JAX. JAX is 143 times as fast (95% interval 131 to 151, "
        "7 repeats). Compiling JAX's training took 212 ms, once."
    )


def test_the_faster_side_is_named() -> None:
    told = _rows.timing(timing(ratio=0.5, ratio_low=0.25, ratio_high=0.8, repeats=1))
    assert "PyTorch is 2.00 times as fast (95% interval 1.25 to 4.00, 1 repeat)" in told


def test_a_ratio_that_is_no_number_is_not_told() -> None:
    assert "times as fast" not in _rows.timing(timing(ratio="NaN"))


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [
        (2.0150, 2.0151, ("2.015", "00000")),
        (1.5, 1.5, ("1.50000000", "")),
        (12.5, 1.25, ("", "12.5000000")),
        (1e-10, 1e-11, ("", "1.00000000e-10")),
        ("NaN", 1.0, ("", "NaN")),
        (-0.5, 0.5, ("", "-0.500000000")),
        # No digit is written alike, and seven agree.
        (1.99999999, 2.00000001, ("1.9999999", "9")),
        (0.0, 1e-300, ("", "0")),
        (0.0, 0.0, ("0", "")),
        ("Infinity", "Infinity", ("∞", "")),
        (0.012345678, 0.012345, ("0.01234", "56780")),
    ],
)
def test_digits_agree_where_the_numbers_do(value: Any, reference: Any, expected: tuple[str, str]) -> None:
    assert _rows.agreeing(value, reference) == expected
    assert "".join(expected) == numbers.full(value)


def test_where_there_is_no_bound_nothing_is_used_of_it() -> None:
    nothing = {"torch": 0.0, "jax": 0.0}
    assert _rows.finding(sample.finding("loss", "loss", bound_used=nothing, unbounded=1.0)).used["jax"] == "–"
    assert _rows.finding(sample.finding("loss", "loss", bound_used=nothing, unbounded=0.5)).used["jax"] == "0%"
