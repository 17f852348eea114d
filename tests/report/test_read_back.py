"""Every number on the terminal, in Markdown and on the page, read back, is the document's to the digits shown."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.report import html, markdown, text, view
from parity.report.numbers import encode, number
from tests.report import sample

_NUMBER = re.compile(r"(?P<digits>[\d,]+(?:\.\d+)?)(?:e(?P<e>[+-]\d+)| × 10(?P<power>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?P<percent>%?)")
_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
sizes = st.floats(0, allow_nan=False) | st.floats(1e-6, 1e4) | st.sampled_from([0.00086, 9e-5, 1.0, 1.004, math.inf])


def stands_for(shown: str, value: Any) -> bool:
    """Whether a text says this number, to half a unit in its last digit."""
    if value is None:
        return shown in ("–", view.ZERO)
    wanted = number(value)
    if not math.isfinite(wanted):
        return shown == "∞"
    relation, rest = re.fullmatch(r"([<>]?) ?(.*)", shown).groups()  # type: ignore[union-attr]
    match = _NUMBER.fullmatch(rest)
    if match is None:
        return False
    digits = match["digits"].replace(",", "")
    power = int(match["e"] or (match["power"] or "0").translate(_PLAIN)) - (2 if match["percent"] else 0)
    read = Decimal(f"{digits}e{power}")
    if read == 0:
        return wanted == 0
    if relation:
        return wanted < read if relation == "<" else wanted > read
    whole, _, decimals = digits.partition(".")
    # Zeros at the end of a whole number need not be digits of it: 1,230 stands for 1,225 to 1,235.
    zeros = 0 if decimals else len(whole) - len(whole.rstrip("0")) if whole != "0" else 0
    half = Decimal(f"0.5000001e{power - len(decimals) + zeros}")
    return abs(Decimal(wanted) - read) <= half


@pytest.mark.parametrize(
    ("shown", "value", "right"),
    [
        ("0.086%", 0.00086, True),
        ("0.1%", 0.0004, False),
        ("> 100%", 1.002, True),
        ("< 0.01%", 0.00086, False),
        ("2.4 × 10⁸%", 2.4e6, True),
        ("2.4e+08", 2.4e8, True),
        ("0", 1e-9, False),
        ("–", 1.0, False),
        ("12,300", 12345.6, True),
        ("12,300", 12400.0, False),
    ],
)
def test_the_reader_reads(shown: str, value: float, right: bool) -> None:
    assert stands_for(shown, value) == right


@functools.cache
def _program() -> sample.Document:
    """A program of the document without what charts are drawn from: they take most of the time."""
    return {
        **sample.holding()["programs"][0],
        "series": {"loss": [], "weights": [], "distance": [], "data": None},
    }


def _terminal(program: sample.Document) -> Iterator[list[str]]:
    table = text.table(program, width=200)
    for line in table.splitlines():
        if line.startswith("gradient"):
            cells = re.split(r"\s{2,}| / ", line.strip())
            yield [cell for cell in cells if cell][2:7]


def _markdown(program: sample.Document) -> Iterator[list[str]]:
    for line in markdown.comment(program).splitlines():
        if line.startswith("| gradient"):
            cells = [
                re.sub(r"\\(.)", r"\1", cell).replace("&lt;", "<").replace("&gt;", ">") for cell in line.split("|")
            ]
            yield [cell.strip() for cell in [*cells[3:6], *cells[6].split("/")]]


def _page(program: sample.Document) -> Iterator[list[str]]:
    for row in html.fragment(program).split("<tr>")[1:]:
        cells = [re.sub(r"<[^>]*>", "", cell).replace("&lt;", "<").replace("&gt;", ">") for cell in row.split("</td>")]
        if cells[0] == "gradient":
            yield [cell.strip() for cell in [*cells[2:5], *cells[5].split("/")]]


@given(difference=sizes, relative=st.none() | st.tuples(sizes, sizes), used=st.tuples(sizes, sizes))
@settings(max_examples=60)
@pytest.mark.parametrize("cells", [_terminal, _markdown, _page])
def test_what_is_shown_is_what_was_computed(
    cells: Any, difference: float, relative: tuple[float, float] | None, used: tuple[float, float]
) -> None:
    ulps, float64 = relative or (None, None)
    row = sample.finding(
        *("gradient", "weight"),
        difference=difference,
        zero=relative is None,
        ulps=ulps,
        float64_difference=float64,
        bound_used={"torch": used[0], "jax": used[1]},
    )
    [shown] = cells(encode({**_program(), "findings": [row]}))
    expected = (difference, ulps, float64, *used)
    assert len(shown) == len(expected)
    for told, value in zip(shown, expected, strict=True):
        assert stands_for(told, value), (told, value)
