"""The matrix of platforms and precisions, put into strings once for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.report import numbers, view
from parity.report.plain import visible

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One stage on one platform at one precision."""

    holds: bool
    used: str
    error: str


@dataclass(frozen=True)
class Row:
    """One platform at one precision."""

    platform: str
    precision: str
    device: str
    cells: list[Cell]
    failure: str


def stages(program: Json) -> list[str]:
    """The stages that head the columns."""
    held = program.get("matrix") or {"cells": []}
    return list(dict.fromkeys(stage["stage"] for cell in held["cells"] for stage in cell["stages"]))


def rows(program: Json) -> list[Row]:
    """The rows of the matrix; none where there is no matrix."""
    return [_row(cell, stages(program)) for cell in (program.get("matrix") or {"cells": []})["cells"]]


def _row(cell: Json, columns: list[str]) -> Row:
    by_name = {stage["stage"]: stage for stage in cell["stages"]}
    cells = []
    for name in columns:
        stage = by_name.get(name)
        if stage is None:
            cells.append(Cell(False, "–", ""))
        else:
            error = stage["relative_error"]
            told = view.ZERO if error is None else numbers.scientific(error, 2)
            cells.append(Cell(stage["holds"], numbers.percent(stage["bound_used"]), told))
    failure = f"{cell['platform']}, {cell['precision']}: {cell['failure']}" if cell["failure"] else ""
    return Row(visible(cell["platform"]), visible(cell["precision"]), visible(cell["device"]), cells, visible(failure))


def note() -> str:
    """Say how the matrix is read."""
    return (
        "Each step of the recording replayed in its own dtype on each platform, at each precision of matrix products: "
        "the largest share of its rounding bound that an error uses, and the largest error relative to its tensor's "
        "largest element over all steps."
    )
