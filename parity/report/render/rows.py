"""The document's parts put into words and formatted strings, once for the terminal, Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from parity._words import place, sentence
from parity.report.render import folding, numbers
from parity.report.render.escaping import visible
from parity.report.render.numbers import Json, JsonNumber

# What stands in place of a relative difference where there is nothing to be relative to.
ZERO = "zero"
ZERO_NOTE = "zero: float64 cannot tell any number of this tensor from zero, so nothing is relative to it."
ALIKE_NOTE = "Where an update's difference is 0 and a bound is used, both sides round to the same number."
# What stands beside a row of which no number was compared.
NOTHING_FINITE = "not finite"
NOTHING_NOTE = "A dash under largest difference: neither side has a finite number there in its own precision."
_FOLDED_RUN_LINES = 9
_HEAD_LINES, _TAIL_LINES = 3, 2
_SIDE_MESSAGES = {
    "torch": "PyTorch's side is off",
    "jax": "JAX's side is off",
    "both": "both sides are off",
    "program": "the programs differ",
}


@dataclass(frozen=True)
class Finding:
    """One row of the stage table, ready to show."""

    stage: str
    tensor: str
    difference: str
    ulps: str
    float64: str
    float64_bound: str
    relation: str
    used: dict[str, str]
    fill: dict[str, float]
    within: dict[str, bool]
    same_program: bool
    compared: bool
    holds: bool
    where: str
    message: str


def finding(row: Json, digits: int = 3, style: Callable[[str], str] = str) -> Finding:
    """Format one finding, its real numbers to so many digits; ``style`` goes over every number."""

    def write(value: JsonNumber | None) -> str:
        return style(numbers.scientific(value, digits))

    off = _SIDE_MESSAGES.get(row["off"] or "", "")
    where = "" if row["holds"] else "" if row["step"] is None else f"step {numbers.integer(row['step'])}"
    used = row["bound_used"]
    shares = {side: _share(used[side], row["within"][side], row["unbounded"]) for side in ("torch", "jax")}
    return Finding(
        stage=visible(row["stage"]),
        tensor=visible(row["tensor"]),
        difference=write(row["difference"]),
        ulps=style(numbers.ulps(row["ulps"])),
        float64=ZERO if row["zero"] else write(row["float64_difference"]),
        float64_bound=write(row["float64_bound"]),
        relation=_relation(row["float64_difference"], row["float64_bound"]),
        used={side: style(share) for side, share in shares.items()},
        fill={side: 0.0 if share == numbers.NOTHING else _fill(used[side]) for side, share in shares.items()},
        within={side: bool(row["within"][side]) for side in ("torch", "jax")},
        same_program=row["same_program"],
        compared=row.get("compared", True),
        holds=row["holds"],
        where=where,
        message="" if row["holds"] else visible(row["message"]) or off,
    )


def _share(used: JsonNumber | None, within: bool, unbounded: JsonNumber) -> str:
    """Write the used share of a bound; a dash where the bound exceeds every number of its tensor."""
    return numbers.NOTHING if within and numbers.number(unbounded) == 1 else numbers.percent(used)


def _relation(difference: JsonNumber | None, bound: JsonNumber | None) -> str:
    """Compare a difference with its bound, as numbers; empty where there are none."""
    if difference is None or bound is None:
        return ""
    return "≤" if numbers.number(difference) <= numbers.number(bound) else ">"


def findings(rows: Sequence[Json], digits: int = 3, style: Callable[[str], str] = str) -> list[Finding]:
    """Format all findings; a message that several in a row share stays at the last of them only."""
    cells = [finding(row, digits, style) for row in rows]
    after = [*(cell.message for cell in cells[1:]), None]
    return [
        replace(cell, message="") if cell.message == message else cell
        for cell, message in zip(cells, after, strict=False)
    ]


def shown(program: Json, digits: int = 3, style: Callable[[str], str] = str) -> list[Finding]:
    """Format the findings that are worth showing: all of a short table, a few for each stage of a long one."""
    return findings(folding.fold(program["findings"]), digits, style)


def notes(rows: Sequence[Json]) -> list[str]:
    """Explain what rows of the stage table need to be understood."""
    told = {
        ZERO_NOTE: any(row["zero"] for row in rows),
        NOTHING_NOTE: any(row["difference"] is None for row in rows),
        ALIKE_NOTE: any(_rounds_alike(row) for row in rows),
    }
    return [note for note, needed in told.items() if needed]


def _rounds_alike(row: Json) -> bool:
    used = (numbers.number(value) for value in row["bound_used"].values() if value is not None)
    return bool(row["stage"] == "update" and row["difference"] == 0 and max(used, default=0.0) > 0)


def folded(program: Json) -> str:
    """Say that a long table is folded; empty where it is not."""
    rows = program["findings"]
    if not folding.is_long(rows):
        return ""
    return f"Of {numbers.count(len(rows), 'check')}, each stage shows the first that fail and the worst."


@dataclass(frozen=True)
class Cause:
    """What explains a divergence, and what to change."""

    name: str
    sentence: str
    fix: str


def causes(program: Json) -> list[Cause]:
    """Return the causes that were found, the likeliest first."""
    return [
        Cause(visible(row["name"]), sentence(visible(row["sentence"])), visible(row["fix"]))
        for row in program.get("causes", [])
    ]


def warnings(program: Json) -> list[str]:
    """Return what does not break parity and should be known."""
    return [visible(text) for text in program.get("warnings", [])]


def _fill(fraction: JsonNumber) -> float:
    # NaN compares false with everything: it fills the bar, as what is not known to be inside is not inside.
    value = numbers.number(fraction)
    return round(value, 4) if 0 <= value <= 1 else 1.0


@dataclass(frozen=True)
class PrintedLines:
    """A run of printed lines: shown, or folded away because both sides printed the same many."""

    lines: list[tuple[str, str, bool]]
    folded: bool = False


def printed(rows: Sequence[Json]) -> list[PrintedLines]:
    """Group the printed lines: a long run that is the same on both sides keeps its ends and folds its middle."""
    lines = [(visible(row["torch"]), visible(row["jax"]), bool(row["same"])) for row in rows]
    blocks: list[PrintedLines] = []
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end][2] == lines[start][2]:
            end += 1
        blocks += _fold(lines[start:end])
        start = end
    return blocks


def _fold(run: list[tuple[str, str, bool]]) -> list[PrintedLines]:
    if not run[0][2] or len(run) < _FOLDED_RUN_LINES:
        return [PrintedLines(run)]
    middle = len(run) - _TAIL_LINES
    return [
        PrintedLines(run[:_HEAD_LINES]),
        PrintedLines(run[_HEAD_LINES:middle], folded=True),
        PrintedLines(run[middle:]),
    ]


def printed_summary(program: Json) -> str:
    """Say in a sentence how the printed lines compare, and how many are not compared; empty when none is."""
    rows = program["printed"]
    if not rows:
        return ""
    compared, total = len(rows), max(len(rows), program.get("printed_total", 0))
    differ = sum(not row["same"] for row in rows)
    verb = "differs" if differ == 1 else "differ"
    if compared == total == 1:
        return f"The printed line {verb if differ else 'is the same'} with JAX's numbers."
    if compared == total:
        told = (
            f"{differ:,} of {total:,} printed lines {verb}" if differ else f"All {total:,} printed lines are the same"
        )
        return f"{told} with JAX's numbers."
    lead = f"{compared:,} of {total:,} printed lines {'is' if compared == 1 else 'are'} compared"
    if compared == 1:
        return f"{lead}: it {verb if differ else 'is the same'} with JAX's numbers."
    return f"{lead}: {f'{differ:,} {verb}' if differ else 'all are the same'} with JAX's numbers."


def timing(row: Json, style: Callable[[str], str] = str) -> str:
    """Say in a sentence how long both sides took; ``style`` goes over every number."""
    ratio, low, high = (numbers.number(row[key]) for key in ("ratio", "ratio_low", "ratio_high"))
    faster = "JAX"
    if 0 < ratio < 1 and min(low, high) > 0:
        faster, ratio, low, high = "PyTorch", 1 / ratio, 1 / high, 1 / low
    ratio_told, low_told, high_told = (style(numbers.scientific(each)) for each in (ratio, low, high))
    spread = f"95% interval {low_told} to {high_told}, {numbers.count(int(row['repeats']), 'repeat')}"
    times = f" {faster} is {ratio_told} times as fast ({spread})." if math.isfinite(ratio) else ""
    torch, own, once = (style(numbers.duration(row[f"{each}_seconds"])) for each in ("torch", "jax", "compile"))
    steps = style(_steps(row["steps"]))
    return f"{steps} {torch} in PyTorch and {own} in JAX.{times} Compiling JAX's training took {once}, once."


def _steps(steps: JsonNumber) -> str:
    return "1 step takes" if numbers.number(steps) == 1 else f"{numbers.integer(steps)} steps take"


def divergence(program: Json) -> str:
    """Say where the two sides first part; empty where they do not."""
    first = program["first_divergence"]
    if first is None:
        return ""
    step = "" if first["step"] is None else f"step {numbers.integer(first['step'])}, "
    message = f" {sentence(visible(first['message']))}" if first["message"] else ""
    what = "First loss of accuracy" if program["verdict"].get("outcome") == "inaccurate" else "First parting"
    return f"{what}: {step}{place(visible(first['stage']), visible(first['tensor']))}.{message}"


@dataclass(frozen=True)
class Final:
    """A final weight, ready to show: both sides' digits that agree with float64, and the rest."""

    name: str
    torch: tuple[str, str]
    jax: tuple[str, str]
    float64: str
    ulps: str


def final(program: Json, style: Callable[[str], str] = str) -> list[Final]:
    """Format the final weights; ``style`` goes over every number."""
    return [_final(row, style) for row in program["final"]]


def _final(row: Json, style: Callable[[str], str]) -> Final:
    digits = shown_digits(row)
    torch, own = (agreeing(row[side], row["float64"], digits, style) for side in ("torch", "jax"))
    exact, ulps = style(numbers.full(row["float64"], digits)), style(numbers.ulps(row["ulps"]))
    return Final(visible(row["tensor"] + row["element"]), torch, own, exact, ulps)


def shown_digits(row: Json) -> int:
    """Count the digits that identify a final weight: fewer where both sides' are float32's."""
    values = np.array([numbers.number(row[side]) for side in ("torch", "jax")])
    with np.errstate(over="ignore"):
        narrow = np.array_equal(values, values.astype(np.float32), equal_nan=True)
    return 9 if narrow else 17


def final_note(program: Json) -> str:
    """Say that not all final weights are listed; empty where they are, or where their number is not known."""
    listed, total = len(program["final"]), program.get("final_total", 0)
    if listed >= total:
        return ""
    return f"This is the first of {total:,}." if listed == 1 else f"These are the first {listed:,} of {total:,}."


def agreeing(
    value: JsonNumber, reference: JsonNumber, digits: int = 9, style: Callable[[str], str] = str
) -> tuple[str, str]:
    """Split a value's digits into those that agree with the reference, as numbers, and the rest.

    They do where the two differ by less than half a unit of the last of them.
    """
    text = style(numbers.full(value, digits))
    shared = _shared(numbers.number(value), numbers.number(reference), digits)
    if shared == digits:
        return text, ""
    end = seen = 0
    while seen < shared:
        # Zeros before the first other digit only place the point.
        seen += text[end].isdigit() and (seen > 0 or text[end] != "0")
        end += 1
    return text[:end], text[end:]


def _shared(value: float, reference: float, digits: int) -> int:
    """Count how many of a value's significant digits agree with the reference."""
    if value == reference or (math.isnan(value) and math.isnan(reference)):
        return digits
    if value == 0 or not (math.isfinite(value) and math.isfinite(reference)):
        return 0
    gap = abs(Fraction(value) - Fraction(reference))
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return sum(2 * gap < Fraction(10) ** (power - place) for place in range(digits))
