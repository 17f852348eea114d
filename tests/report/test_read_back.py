"""Every number in every view, read back, is the document's to the digits shown."""

from __future__ import annotations

import dataclasses
import functools
import html as entities
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parity.report.render import charts, html, markdown, matrix_rows, numbers, terminal
from parity.report.render import rows as _rows
from parity.report.render.numbers import encode, number
from tests.helpers import sample_report as sample

_NUMBER = re.compile(
    r"(?P<digits>[-−]?[\d,]+(?:\.\d+)?)(?:e(?P<e>[+-]\d+)| × 10(?P<power>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?P<percent>%?)"
)
_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
sizes = st.floats(0, allow_nan=False) | st.floats(1e-6, 1e4) | st.sampled_from([0.00086, 9e-5, 1.0, 1.004, math.inf])
pairs = st.tuples(sizes, sizes)


def stands_for(shown: str, value: Any) -> bool:
    """Whether a text says this number, to half a unit in its last digit."""
    if value is None:
        return shown in (numbers.NOTHING, _rows.ZERO)
    wanted = number(value)
    if not math.isfinite(wanted):
        return shown.replace("−", "-") == ("NaN" if math.isnan(wanted) else "∞" if wanted > 0 else "-∞")
    relation, rest = re.fullmatch(r"([<>]?) ?(.*)", shown).groups()  # type: ignore[union-attr]
    match = _NUMBER.fullmatch(rest)
    if match is None:
        return False
    digits = match["digits"].replace(",", "").replace("−", "-")
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


def lasts(shown: str, seconds: Any) -> bool:
    """Whether a text says this time."""
    if minutes := re.fullmatch(r"([\d,]+) min (\d+) s", shown):
        return abs(60 * int(minutes[1].replace(",", "")) + int(minutes[2]) - number(seconds)) <= 0.5
    size, _, unit = shown.rpartition(" ")
    return stands_for(size, number(seconds) / _UNITS[unit])


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
        ("−0.50", -0.504, True),
        ("0.50", -0.504, False),
        ("−∞", "-Infinity", True),
        ("NaN", 0.0, False),
    ],
)
def test_the_reader_reads(shown: str, value: Any, right: bool) -> None:
    assert stands_for(shown, value) == right


@functools.cache
def _document() -> sample.Document:
    return sample.holding()


@functools.cache
def _program() -> sample.Document:
    """A program of the document without what charts are drawn from: they take most of the time."""
    program = {**_document()["programs"][0], "series": {"loss": [], "weights": [], "distance": [], "data": None}}
    return program | {"findings": [], "final": [], "printed": [], "timing": None, "facts": []}


def _page(program: sample.Document) -> str:
    """The page without its scripts and styles, which have megabytes."""
    document = {**_document(), "programs": [program]}
    nothing: dict[str, Any] = {"programs": [{**program, "charts": []}], "policy": "", "scripts": [], "style": ""}
    return html._environment().get_template("page.html.j2").render(document=document, **nothing)


VIEWS = {
    "terminal": lambda program: terminal.table(program, width=400),
    "report": lambda program: markdown.render({**_document(), "programs": [program]}),
    "comment": markdown.comment,
    "page": _page,
    "notebook": html.fragment,
}


def plain(shown: str) -> str:
    """What a person sees of Markdown or HTML."""
    return entities.unescape(re.sub(r"\\(.)", r"\1", re.sub(r"<[^>]*>", "", shown))).strip()


def rows(shown: str, begin: str) -> Iterator[list[str]]:
    """The cells of the rows of any table whose first cell begins so."""
    if "<td" in shown:
        for row in re.findall(r"<tr.*?</tr>", shown, re.DOTALL):
            cells = [plain(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
            if cells[0].startswith(begin):
                yield cells
    for line in shown.splitlines():
        if line.startswith(f"| {begin}"):
            yield [plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        elif line.startswith(begin):
            yield re.split(r"\s{2,}", line.strip())


# -- the stage table


@given(
    difference=st.none() | sizes,
    relative=st.none() | st.tuples(sizes, sizes, sizes),
    used=pairs,
    within=st.booleans(),
    same=st.booleans(),
)
@settings(max_examples=40)
@example(difference=1.0, relative=(1.0, 0.5, 0.7), used=(0.1, 0.2), within=True, same=False)
def test_the_stage_table(
    difference: float | None,
    relative: tuple[float, ...] | None,
    used: tuple[float, float],
    within: bool,
    same: bool,
) -> None:
    ulps, float64, bound = relative or (None, None, None)
    own = dict.fromkeys(("torch", "jax")) if difference is None else {"torch": used[0], "jax": used[1]}
    row = sample.finding(
        *("gradient", "weight"),
        difference=difference,
        compared=difference is not None,
        zero=relative is None,
        ulps=ulps,
        float64_difference=float64,
        float64_bound=bound,
        same_program=same,
        bound_used=own,
        within=dict.fromkeys(own, within),
    )
    program = encode({**_program(), "findings": [row]})
    expected = [difference, ulps, float64, *own.values()]
    for name, show in VIEWS.items():
        [[_, _, *cells, sides, held]] = rows(show(program), "gradient")
        if name == "page":
            shown, relation, limit = re.fullmatch(r"(.*?)(?: ([≤>]) (.*))?", cells[2]).groups()  # type: ignore[union-attr]
            cells[2], sides = shown, sides.replace("PyTorch", "").replace("JAX", " / ")
            assert (relation is None) == (relative is None)
            if relative is not None:
                assert relation == ("≤" if relative[1] <= relative[2] else ">")
                assert stands_for(limit, bound)
        widths = [float(each) for each in re.findall(r'<span style="width:(.*?)%"></span>', show(program))]
        filled = [min(share, 1.0) for share in own.values() if share is not None and share >= 5e-5]
        assert name != "page" or widths == pytest.approx([100 * share for share in filled], abs=0.01)
        told = [*cells, *(side.strip() for side in sides.split(" / "))]
        assert [(each, value) for each, value in zip(told, expected, strict=True) if not stands_for(each, value)] == []
        assert held.startswith("–" if difference is None else ("✓", "✅"))


# -- final weights


@given(values=st.tuples(st.floats(), st.floats(), st.floats(), st.none() | sizes), wide=st.booleans())
@settings(max_examples=40)
def test_final_weights(values: tuple[float, float, float, float | None], wide: bool) -> None:
    torch, jax, exact, ulps = values
    if not wide:
        torch, jax = (float(f"{value:.2g}") for value in (torch, torch))
    row = {"tensor": "w" * 300, "element": "[0]", "torch": torch, "jax": jax, "float64": exact, "ulps": ulps}
    program = encode({**_program(), "final": [row], "final_total": 1})
    for name in ("report", "page"):
        [[_, *cells]] = rows(VIEWS[name](program), "w" * 300)
        for told, value in zip(cells, encode([torch, jax, exact, ulps]), strict=True):
            assert stands_for(told, value), (name, told, value)


near = st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e-3, 1e-3)).map(
    lambda drawn: (drawn[0], drawn[0] * (1 + drawn[1]))
)


@given(near | st.tuples(st.floats(), st.floats()), st.sampled_from([9, 17]))
@example((2.0, math.nextafter(2.0, 1.0)), 9)
@example((0.99999999, 1.00000001), 9)
def test_digits_agree_as_numbers(values: tuple[float, float], digits: int) -> None:
    value, reference = values
    bold, rest = _rows.agreeing(value, reference, digits, numbers.typeset)
    assert bold + rest == numbers.typeset(numbers.full(value, digits))
    if not (math.isfinite(value) and math.isfinite(reference)) or value == 0:
        assert (rest == "") == (value == reference or (math.isnan(value) and math.isnan(reference)))
        return
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])
    shared = digits if not rest else len(re.sub(r"\D", "", bold).lstrip("0"))
    gap = 2 * abs(Fraction(value) - Fraction(reference))
    assert shared == 0 or gap < Fraction(10) ** (power - shared + 1)
    assert shared == digits or gap >= Fraction(10) ** (power - shared)


# -- the matrix


@given(pairs, st.booleans())
@settings(max_examples=25)
def test_the_matrix(values: tuple[float, float], compared: bool) -> None:
    used, error = values if compared else (None, None)
    stages = [{"stage": "forward", "holds": True, "tensor": "w", "bound_used": used, "relative_error": error}]
    cell = {"platform": "cpu", "device": "a cpu", "precision": "high", "holds": True, "failure": "", "stages": stages}
    program = encode({**_program(), "matrix": {"holds": True, "cells": [cell]}})
    for name, show in VIEWS.items():
        shown = show(program)
        if name == "terminal":
            shown = re.sub(r"\n +(?=\S+(?: \S+)?$)", " ", shown, flags=re.MULTILINE)
        [cells] = rows(shown, "cpu")
        mark, share, told = re.fullmatch(r"(\S) ([<>]? ?\S+?(?: × [^\s,]+)?),? (.*)", cells[2]).groups()  # type: ignore[union-attr]
        assert mark in "✓✅"
        assert stands_for(share, used), (name, cells)
        assert told == _rows.NOTHING_FINITE if used is None else stands_for(told, error), (name, cells)
    assert matrix_rows.rows(program)[0].cells[0].holds


# -- timing

_TIMING = re.compile(
    r"(?P<steps>\S+) steps? takes? (?P<torch_seconds>.+?) in PyTorch and (?P<jax_seconds>.+?) in JAX\."
    r"(?: (?P<who>\w+) is (?P<ratio>.+?) times as fast \(95% interval (?P<ratio_low>.+?) to (?P<ratio_high>.+?), "
    r"(?P<repeats>\S+) repeats?\)\.)? Compiling JAX's training took (?P<compile_seconds>.+?), once\."
)
seconds = st.floats(0, 1e9) | st.floats(1e-9, 1e3) | st.sampled_from([0.0, 5e-324, 119.6])
ratios = st.floats(1e-3, 1e6) | st.sampled_from([0.0, 1.0, math.nan, math.inf])


@given(st.integers(0, 10**12), st.integers(1, 10**4), st.tuples(seconds, seconds, seconds), ratios, pairs)
@settings(max_examples=40)
def test_timing(
    steps: int, repeats: int, times: tuple[float, float, float], ratio: float, around: tuple[float, float]
) -> None:
    names = ("torch_seconds", "jax_seconds", "compile_seconds")
    low, high = sorted(around)
    row = {"steps": steps, "repeats": repeats, "ratio": ratio, "ratio_low": low, "ratio_high": high}
    row |= dict(zip(names, times, strict=True))
    program = encode({**_program(), "timing": row})
    for name in ("terminal", "report", "page", "notebook"):
        shown = VIEWS[name](program)
        match = _TIMING.search(plain(shown) if name in ("page", "notebook") else shown)
        assert match, shown
        assert stands_for(match["steps"], steps)
        assert all(lasts(match[key], row[key]) for key in names)
        assert (match["ratio"] is None) == (not math.isfinite(ratio))
        if match["ratio"] is not None:
            turned = match["who"] == "PyTorch"
            assert turned == (0 < ratio < 1 and low > 0)
            bounds = (1 / ratio, 1 / high, 1 / low) if turned else (ratio, low, high)
            told = [match[key] for key in ("ratio", "ratio_low", "ratio_high")]
            assert all(map(stands_for, told, bounds)), (told, bounds)
            assert match["repeats"] == f"{repeats:,}"
    bars = re.findall(r'class="(torch|jax)"><dt>.*?</span></span>(.*?)</dd>', _page(program))
    assert [lasts(shown, row[f"{side}_seconds"]) for side, shown in bars] == [True, True]


# -- printed lines


@given(st.lists(st.tuples(st.floats(), st.floats(), st.booleans()), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=25)
def test_printed_lines(drawn: list[tuple[float, float, bool]], uncompared: int) -> None:
    lines = [(f"loss: {a!r}", f"loss: {a!r}" if same else f"loss: {b!r} .") for a, b, same in drawn]
    printed = [{"torch": torch, "jax": jax, "same": torch == jax} for torch, jax in lines]
    total = len(lines) + uncompared
    program = encode({**_program(), "printed": printed, "printed_total": total})
    differ = sum(not row["same"] for row in printed)
    page = _page(program)
    shown = [
        (plain(a), plain(b)) for a, b in re.findall(r'class="torch"><code>(.*?)</code>.*?"jax"><code>(.*?)<', page)
    ]
    assert shown == lines
    every = "\n".join(line for pair in lines for line in pair)
    for name in ("terminal", "report"):
        for line in VIEWS[name](program).splitlines():
            for told in re.findall(r"loss: \S+(?: \.)?", line):
                assert told in every
    for name in ("report", "page"):
        found = [int(each.replace(",", "")) for each in re.findall(r"[\d,]+", _rows.printed_summary(program))]
        assert _rows.printed_summary(program) in plain(VIEWS[name](program))
    expected = ([len(lines)] if uncompared else []) + ([total] if total > 1 else [])
    assert sorted(found) == sorted(expected + ([differ] if differ and len(lines) > 1 else []))


# -- charts


@pytest.mark.parametrize("make", [sample.holding, sample.failing, sample.diverging])
def test_a_chart_draws_the_document_s_numbers(make: Any) -> None:
    program = make()["programs"][0]
    series, drawn = program["series"], charts.specs(program)
    for name in ("loss", "weights"):
        for row in drawn[name]["data"]["values"]:
            assert row in series[name]
    for tensor in ("weight", "bias"):
        known = {row["step"]: row for row in series["distance"] if row["tensor"] == tensor}
        for row in drawn[f"distance-{tensor}"]["data"]["values"]:
            key = dict(zip(charts._DISTANCES, ("float32", "float64", "bound"), strict=True))[row["kind"]]
            assert row["value"] == known[row["step"]][key]
    for layer in drawn["data"]["layer"]:
        values = layer.get("data", {}).get("values", [])
        assert all(row in series["data"]["points"] + series["data"]["lines"] for row in values)


def test_every_number_of_a_finding_is_in_a_view() -> None:
    """A number that a view has and the reader above does not look at would be read back by nobody."""
    fields = {field.name for field in dataclasses.fields(_rows.Finding)}
    texts = {"stage", "tensor", "where", "message", "relation"}
    assert fields - texts == {
        *("difference", "ulps", "float64", "float64_bound", "used", "fill", "within"),
        *("same_program", "compared", "holds"),
    }
