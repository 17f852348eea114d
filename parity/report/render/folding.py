"""Long tables folded: where a model has many tensors, each stage shows what fails and its worst row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from parity.report.render import numbers

Json = Mapping[str, Any]

# So many rows are read one by one; with more of them each stage is folded, and so many of its failing rows stay.
_ROWS, _FAILING = 24, 5
_NUMBERS = ("difference", "ulps", "float64_difference", "float64_bound")
_NOTHING = -1.0  # below every number: what is relative to nothing is never the worst


def is_long(rows: Sequence[Json]) -> bool:
    """Whether a table of these findings is folded."""
    return len(rows) > _ROWS


def fold(rows: Sequence[Json]) -> list[Json]:
    """The findings worth showing: all of a short table; of a long one each stage's first that fail, and its worst."""
    if not is_long(rows):
        return list(rows)
    stages = [list(group) for _, group in itertools.groupby(rows, lambda row: row["stage"])]
    return [row for group in stages for row in _stage(group)]


def by_stage(rows: Sequence[Json]) -> list[Json]:
    """One row a stage: its worst in every column, and the first step at which any of its tensors fails."""
    stages = [list(group) for _, group in itertools.groupby(rows, lambda row: row["stage"])]
    return [group[0] if len(group) == 1 else worst(group, _told(group)) for group in stages]


def _told(group: Sequence[Json]) -> str:
    failing = [row for row in group if not row["holds"]]
    if not failing:
        return f"{len(group):,} tensors"
    first = min(failing, key=_step)["tensor"]
    return f"{len(failing):,} of {len(group):,} tensors, first {first}"


def _stage(group: Sequence[Json]) -> list[Json]:
    failing = sorted((row for row in group if not row["holds"]), key=_step)
    holding = [row for row in group if row["holds"]]
    shown, rest = failing[:_FAILING], failing[_FAILING:]
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
    """One row for several: in every column the worst of them, under a name that says so."""
    steps = [row["step"] for row in rows if row["step"] is not None]
    # A bound that says nothing of any number of its tensor is no bound of which something is used.
    bounded = [row for row in rows if numbers.number(row["unbounded"]) < 1 or not all(row["within"].values())] or rows
    return {
        **rows[0],
        **{key: max((row[key] for row in rows), key=_badness) for key in _NUMBERS},
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


def _badness(value: Any) -> float:
    if value is None:
        return _NOTHING
    number = numbers.number(value)
    return math.inf if math.isnan(number) else number


def _step(row: Json) -> float:
    return math.inf if row["step"] is None else float(row["step"])
