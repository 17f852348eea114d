"""The matrix of platforms and precisions, put into strings once for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parity.report.render import numbers
from parity.report.render import rows as _rows
from parity.report.render.escaping import visible
from parity.report.render.numbers import Json


@dataclass(frozen=True)
class MatrixCell:
    """One stage on one platform at one precision."""

    holds: bool
    used: str
    error: str

    @property
    def text(self) -> str:
        """Both numbers, in a line."""
        return f"{self.used}, {self.error}" if self.error else self.used


@dataclass(frozen=True)
class MatrixRow:
    """One platform at one precision."""

    platform: str
    precision: str
    device: str
    cells: list[MatrixCell]
    failure: str


def stages(program: Json) -> list[str]:
    """Return the stages that head the columns."""
    held = program.get("matrix") or {"cells": []}
    return list(dict.fromkeys(stage["stage"] for cell in held["cells"] for stage in cell["stages"]))


def rows(program: Json, style: Callable[[str], str] = str) -> list[MatrixRow]:
    """Return the rows of the matrix; none where there is no matrix. ``style`` goes over every number."""
    return [_row(cell, stages(program), style) for cell in (program.get("matrix") or {"cells": []})["cells"]]


def _row(cell: Json, columns: list[str], style: Callable[[str], str]) -> MatrixRow:
    by_name = {stage["stage"]: stage for stage in cell["stages"]}
    cells = [
        _cell(by_name[name], style) if name in by_name else MatrixCell(False, numbers.NOTHING, "") for name in columns
    ]
    failure = f"{cell['platform']}, {cell['precision']}: {cell['failure']}" if cell["failure"] else ""
    return MatrixRow(
        visible(cell["platform"]), visible(cell["precision"]), visible(cell["device"]), cells, visible(failure)
    )


def _cell(stage: Json, style: Callable[[str], str]) -> MatrixCell:
    used, error = stage["bound_used"], stage["relative_error"]
    if used is None:
        return MatrixCell(stage["holds"], numbers.NOTHING, _rows.NOTHING_FINITE)
    text = _rows.ZERO if error is None else style(numbers.scientific(error, 2))
    return MatrixCell(stage["holds"], style(numbers.percent(used)), text)


def note() -> str:
    """Say how the matrix is read."""
    return (
        "Every recorded step, replayed in its own dtype on each platform and at each precision of matrix products. A "
        "cell shows the largest share of its rounding bound that an error uses. Beside it stands the largest error, "
        "relative to its tensor's largest element over all steps."
    )
