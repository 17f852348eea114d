"""What a sweep gives back, and how it prints: a table, the best first, and a heat map."""

from __future__ import annotations

import dataclasses
import html
from typing import Any, SupportsIndex

import jax
import numpy as np
from flax import nnx

from jaxreg._errors import ArgumentError
from jaxreg._sweeps import result_table
from jaxreg._sweeps.result_table import SHOWN_ROWS, counted
from jaxreg._types import HostArray, RestState


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The outcome of :func:`jaxreg.sweep`.

    Attributes:
        settings: of each training, a dictionary; targets by their number.
        losses: shape ``(trainings, steps kept)``, the loss before each of the steps ``at``.
        params: the parameters after the last step, a tree like the model's with a leading axis for the trainings.
        plan: name of the plan that ran.
        steps: number of optimizer steps made in each training.
        at: the steps that ``losses`` are of, counted from 0.
    """

    settings: tuple[dict[str, Any], ...]
    losses: jax.Array
    params: Any
    plan: str
    steps: int
    at: HostArray | None
    start: nnx.Module
    rest: RestState

    @property
    def loss(self) -> HostArray:
        """Return the last loss kept of each training, shape ``(trainings,)``; NaN where none was kept."""
        losses = np.asarray(self.losses)
        return losses[:, -1] if losses.shape[1] else np.full(len(self.settings), np.nan)

    @property
    def best(self) -> int:
        """Return the number of the training with the lowest loss."""
        return int(self._order()[0])

    def model(self, number: SupportsIndex | None = None) -> nnx.Module:
        """Return one trained model, the best where no number is given; a number below 0 counts from the end.

        Raises:
            ArgumentError: there is no training of that number.
        """
        index, count = self.best if number is None else number, len(self.settings)
        if isinstance(index, bool) or index not in range(-count, count):
            raise ArgumentError(
                f"number must be that of a training, an integer from 0 to {count - 1:,}, got {number!r}"
            )
        index = int(index)
        graph, _, _ = nnx.split(self.start, nnx.Param, ...)
        return nnx.merge(graph, *jax.tree.map(lambda leaf: leaf[index], (self.params, self.rest)))

    def _order(self) -> HostArray:
        return np.argsort(np.where(np.isfinite(self.loss), self.loss, np.inf), kind="stable")

    def _varied(self) -> list[str]:
        return [k for k in self.settings[0] if any(one[k] != self.settings[0][k] for one in self.settings)]

    def _summary(self) -> str:
        text = f"{counted(len(self.settings), 'training')} of {counted(self.steps, 'step')}, plan {self.plan!r}"
        lost = int((~np.isfinite(self.loss)).sum()) if self.losses.shape[1] else 0
        return text + (f"; {lost:,} not finite at the end" if lost else "")

    def _rows(self) -> list[list[str]]:
        names = list(self.settings[0])
        shown = [[_said(self.settings[k][name]) for name in names] + [f"{self.loss[k]:.4e}"] for k in self._order()]
        return [[*names, "loss"], *shown[:SHOWN_ROWS]]

    def __repr__(self) -> str:
        return result_table.as_text(f"SweepResult({self._summary()})", self._rows(), len(self.settings))

    def _repr_html_(self) -> str:
        """Return the summary, the table, and a heat map where two settings were varied, as a notebook shows it."""
        return result_table.as_html(self._summary(), self._rows()) + self._heat_map()

    def _heat_map(self, cell: int = 28) -> str:
        """Return an SVG of the lowest loss over the two settings with the most values; empty where fewer vary."""
        varied = sorted(self._varied(), key=lambda name: -len({one[name] for one in self.settings}))[:2]
        if len(varied) < 2:
            return ""
        across, down = (sorted({one[name] for one in self.settings}, key=_rank) for name in varied)
        lowest = np.full((len(down), len(across)), np.nan)
        for one, loss in zip(self.settings, self.loss, strict=True):
            place = down.index(one[varied[1]]), across.index(one[varied[0]])
            lowest[place] = np.nanmin([lowest[place], loss]) if np.isfinite(loss) else lowest[place]
        known = np.isfinite(lowest)
        if not known.any():
            return ""
        scaled = np.log10(np.where(known & (lowest > 0), lowest, np.nan))
        low, span = np.nanmin(scaled), (np.nanmax(scaled) - np.nanmin(scaled)) or 1.0
        squares = []
        for row, column in np.ndindex(lowest.shape):
            share = (scaled[row, column] - low) / span
            colour = f"hsl(176 60% {25 + 65 * share:.0f}%)" if np.isfinite(share) else "#ddd"
            said = f"{varied[0]} {across[column]}, {varied[1]} {down[row]}: loss {lowest[row, column]:.4g}"
            squares.append(
                f'<rect x="{column * cell}" y="{row * cell}" width="{cell - 2}" height="{cell - 2}" fill="{colour}">'
                f"<title>{html.escape(said)}</title></rect>"
            )
        size = f'viewBox="0 0 {len(across) * cell} {len(down) * cell}" width="{min(len(across) * cell, 640)}"'
        caption = (
            f"the lowest loss, {html.escape(varied[0])} across, {html.escape(varied[1])} down; dark is low, grey lost"
        )
        return f'<svg {size} role="img" aria-label="{caption}">{"".join(squares)}</svg><p>{caption}</p>'


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rank(value: object) -> tuple[str, float | str]:
    return ("", value) if isinstance(value, int | float) else (str(type(value)), str(value))
