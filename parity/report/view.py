"""The document's parts put into words and formatted strings, once for the terminal, Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.report import fold, numbers
from parity.report.plain import visible

Json = Mapping[str, Any]

# What stands in place of a relative difference where there is nothing to be relative to.
ZERO = "zero"
ZERO_NOTE = "zero: float64 cannot tell any number of this tensor from zero, so that nothing is relative to it."
ALIKE_NOTE = "Where an update's difference is 0 and a bound is used, both sides round to the same number."
_FOLD_FROM = 9
_KEPT_HEAD, _KEPT_TAIL = 3, 2
_OFF = {
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
    used: dict[str, str]
    fill: dict[str, float]
    within: dict[str, bool]
    same_program: bool
    bounded: bool
    holds: bool
    where: str
    message: str


def finding(row: Json, digits: int = 3, style: Callable[[str], str] = str) -> Finding:
    """Format one finding, its real numbers to so many digits; ``style`` goes over every number."""

    def write(value: Any) -> str:
        return style(numbers.scientific(value, digits))

    off = _OFF.get(row["off"] or "", "")
    where = "" if row["holds"] else "" if row["step"] is None else f"step {numbers.integer(row['step'])}"
    used = row["bound_used"]
    return Finding(
        stage=visible(row["stage"]),
        tensor=visible(row["tensor"]),
        difference=write(row["difference"]),
        ulps=style(numbers.ulps(row["ulps"])),
        float64=ZERO if row["zero"] else write(row["float64_difference"]),
        float64_bound=write(row["float64_bound"]),
        used={side: style(_share(used[side], row["within"][side], row["unbounded"])) for side in ("torch", "jax")},
        fill={side: _fill(used[side]) for side in ("torch", "jax")},
        within={side: bool(row["within"][side]) for side in ("torch", "jax")},
        same_program=row["same_program"],
        bounded=row["float64_bound"] is not None,
        holds=row["holds"],
        where=where,
        message="" if row["holds"] else visible(row["message"]) or off,
    )


def _share(used: Any, within: bool, unbounded: Any) -> str:
    """What is used of a bound; a dash where it says nothing of any number: it exceeds all of the tensor's."""
    return numbers.NOTHING if within and numbers.number(unbounded) == 1 else numbers.percent(used)


def findings(rows: Sequence[Json], digits: int = 3, style: Callable[[str], str] = str) -> list[Finding]:
    """Format all findings; a message that several in a row share stays at the last of them only."""
    cells = [finding(row, digits, style) for row in rows]
    messages = [cell.message for cell in cells[1:]] + [""]
    return [
        replace(cell, message="" if cell.message == after else cell.message)
        for cell, after in zip(cells, messages, strict=True)
    ]


def shown(program: Json, digits: int = 3, style: Callable[[str], str] = str) -> list[Finding]:
    """Format the findings that are worth showing: all of a short table, a few for each stage of a long one."""
    return findings(fold.fold(program["findings"]), digits, style)


def notes(rows: Sequence[Json]) -> list[str]:
    """What rows of the stage table need to be understood."""
    alike = any(_rounds_alike(row) for row in rows)
    return [*([ZERO_NOTE] if any(row["zero"] for row in rows) else []), *([ALIKE_NOTE] if alike else [])]


def _rounds_alike(row: Json) -> bool:
    used = (numbers.number(value) for value in row["bound_used"].values())
    return bool(row["stage"] == "update" and row["difference"] == 0 and max(used) > 0)


def folded(program: Json) -> str:
    """Say that a long table is folded; empty where it is not."""
    rows = program["findings"]
    if not fold.is_long(rows):
        return ""
    return f"Of {numbers.count(len(rows), 'check')}, each stage's first that fail and its worst are shown."


@dataclass(frozen=True)
class Cause:
    """What explains a divergence, and what to change."""

    name: str
    sentence: str
    fix: str


def causes(program: Json) -> list[Cause]:
    """The causes that were found, the likeliest first."""
    return [Cause(*(visible(row[key]) for key in ("name", "sentence", "fix"))) for row in program.get("causes", [])]


def warnings(program: Json) -> list[str]:
    """What does not break parity and should be known."""
    return [visible(text) for text in program.get("warnings", [])]


def _fill(fraction: Any) -> float:
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
    if not run[0][2] or len(run) < _FOLD_FROM:
        return [PrintedLines(run)]
    middle = len(run) - _KEPT_TAIL
    return [
        PrintedLines(run[:_KEPT_HEAD]),
        PrintedLines(run[_KEPT_HEAD:middle], folded=True),
        PrintedLines(run[middle:]),
    ]


def printed_summary(rows: Sequence[Json]) -> str:
    """Say in a sentence how the printed lines compare; empty when nothing was printed."""
    if not rows:
        return ""
    same = sum(bool(row["same"]) for row in rows)
    if same == len(rows):
        return (
            "The printed line is the same with JAX's numbers."
            if same == 1
            else f"All {same:,} printed lines are the same with JAX's numbers."
        )
    if len(rows) == 1:
        return "The printed line differs with JAX's numbers."
    differ = len(rows) - same
    verb = "differs" if differ == 1 else "differ"
    return f"{differ:,} of {len(rows):,} printed lines {verb} with JAX's numbers."


def timing(row: Json) -> str:
    """Say in a sentence how long both sides took."""
    ratio, low, high = (numbers.number(row[key]) for key in ("ratio", "ratio_low", "ratio_high"))
    faster = "JAX"
    if ratio < 1 and low > 0:
        faster, ratio, low, high = "PyTorch", 1 / ratio, 1 / high, 1 / low
    spread = f"{numbers.scientific(low)} to {numbers.scientific(high)}"
    repeats = int(row["repeats"])
    times = f"{numbers.scientific(ratio)} times as fast ({spread} over {numbers.count(repeats, 'repeat')})"
    return (
        f"{_steps(row['steps'])} PyTorch {numbers.duration(row['torch_seconds'])} and JAX "
        f"{numbers.duration(row['jax_seconds'])}{f': {faster} is {times}' if math.isfinite(ratio) else ''}; "
        f"compiling JAX's training took {numbers.duration(row['compile_seconds'])}, once."
    )


def _steps(steps: Any) -> str:
    return "1 step takes" if numbers.number(steps) == 1 else f"{numbers.integer(steps)} steps take"


def divergence(program: Json) -> str:
    """Say where the two sides first part; empty where they do not."""
    first = program["first_divergence"]
    if first is None:
        return ""
    step = "" if first["step"] is None else f", step {numbers.integer(first['step'])}"
    message = f": {visible(first['message'])}" if first["message"] else ""
    return f"First parting: {visible(first['stage'])} of {visible(first['tensor'])}{step}{message}"


def shown_digits(row: Json) -> int:
    """As many digits of a final weight as identify it: fewer where both sides' are float32's."""
    values = np.array([numbers.number(row[side]) for side in ("torch", "jax")])
    with np.errstate(over="ignore"):
        narrow = np.array_equal(values, values.astype(np.float32), equal_nan=True)
    return 9 if narrow else 17


def final_note(program: Json) -> str:
    """Say that not all final weights are listed; empty where they are, or where their number is not known."""
    listed, total = len(program["final"]), program.get("final_total", 0)
    return f" These are the first {listed:,} of {total:,}." if listed < total else ""


def agreeing(value: Any, reference: Any, digits: int = 9) -> tuple[str, str]:
    """Split a value's digits into those it shares with the reference and the rest."""
    text, other = numbers.full(value, digits), numbers.full(reference, digits)
    shared = 0
    while shared < min(len(text), len(other)) and text[shared] == other[shared]:
        shared += 1
    same_exponent = text.partition("e")[2] == other.partition("e")[2]
    same_point = text.find(".") == other.find(".")
    return (text[:shared], text[shared:]) if same_exponent and same_point else ("", text)
