"""Long tables folded: where a model has many tensors, each stage shows what fails and its worst row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from parity.report.render import numbers
from parity.report.render.numbers import Json, JsonNumber

# So many rows are read one by one; with more of them each stage is folded, and so many of its failing rows stay.
_LONG_TABLE_ROWS, _SHOWN_FAILING_ROWS = 24, 5
_NUMBER_COLUMNS = ("difference", "ulps", "float64_difference", "float64_bound")
_BELOW_ALL_NUMBERS = -1.0  # below every number: what is relative to nothing is never the worst


def is_long(rows: Sequence[Json]) -> bool:
    """Whether a table of these findings is folded."""
    return len(rows) > _LONG_TABLE_ROWS


def fold(rows: Sequence[Json]) -> list[Json]:
    """Select the findings worth showing: of a long table, each stage's first that fail and its worst."""
    if not is_long(rows):
        return list(rows)
    stages = [list(group) for _, group in itertools.groupby(rows, lambda row: row["stage"])]
    return [row for group in stages for row in _stage(group)]


def by_stage(rows: Sequence[Json]) -> list[Json]:
    """Return one row a stage: its worst in every column, and the first step at which any tensor fails."""
    stages = [list(group) for _, group in itertools.groupby(rows, lambda row: row["stage"])]
    return [group[0] if len(group) == 1 else worst(group, _stage_label(group)) for group in stages]


def _stage_label(group: Sequence[Json]) -> str:
    failing = [row for row in group if not row["holds"]]
    if not failing:
        return f"{len(group):,} tensors"
    first = min(failing, key=_step)["tensor"]
    return f"{len(failing):,} of {len(group):,} tensors, first {first}"


def _stage(group: Sequence[Json]) -> list[Json]:
    failing = sorted((row for row in group if not row["holds"]), key=_step)
    holding = [row for row in group if row["holds"]]
    shown, rest = failing[:_SHOWN_FAILING_ROWS], failing[_SHOWN_FAILING_ROWS:]
    if len(rest) == 1:
        shown, rest = failing, []
    if rest:
        shown.append(worst(rest, f"{len(rest):,} more that fail, the worst"))
    if len(holding) == 1:
        return [*shown, *holding]
    if holding:
        what = "others" if failing else "tensors"
        shown.append(worst(holding, f"{len(holding):,} {what}, the worst"))
    return shown


def worst(rows: Sequence[Json], tensor: str) -> Json:
    """Merge several rows into one: the worst of every column, under a name that says so."""
    steps = [row["step"] for row in rows if row["step"] is not None]
    # A bound that says nothing of any number of its tensor is no bound of which something is used.
    bounded = [row for row in rows if numbers.number(row["unbounded"]) < 1 or not all(row["within"].values())] or rows
    return {
        **rows[0],
        **{key: max((row[key] for row in rows), key=_badness) for key in _NUMBER_COLUMNS},
        "zero": all(row["zero"] for row in rows),
        "compared": any(row.get("compared", True) for row in rows),
        "tensor": tensor,
        "holds": all(row["holds"] for row in rows),
        "same_program": all(row["same_program"] for row in rows),
        "unbounded": min((row["unbounded"] for row in bounded), key=numbers.number),
        "bound_used": {
            side: max((row["bound_used"][side] for row in bounded), key=_badness) for side in ("torch", "jax")
        },
        "within": {side: all(row["within"][side] for row in rows) for side in ("torch", "jax")},
        "off": None,
        "step": min(steps, default=None),
        "message": "",
    }


def _badness(value: JsonNumber | None) -> float:
    if value is None:
        return _BELOW_ALL_NUMBERS
    number = numbers.number(value)
    return math.inf if math.isnan(number) else number


def _step(row: Json) -> float:
    return math.inf if row["step"] is None else float(row["step"])
