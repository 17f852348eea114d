"""What a training of many groups gives back, and how it prints."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import jax
import numpy as np
from flax import nnx

# Groups that a table shows.
_SHOWN = 12


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GroupsResult:
    """The outcome of :func:`jaxreg.fit_groups`.

    Attributes:
        labels: of the groups, in order; their numbers where none were given.
        sizes: rows of each group.
        losses: shape ``(groups, steps kept)``, the loss before each of the steps ``at``.
        params: the parameters after the last step, a tree like the model's with a leading axis for the groups.
        plan: name of the plan that ran.
        steps: number of optimizer steps made in each group.
        at: the steps that ``losses`` are of, counted from 0.
    """

    labels: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    losses: jax.Array
    params: Any
    plan: str
    steps: int
    at: np.ndarray[Any, Any] | None
    start: nnx.Module
    rest: Any

    def model(self, label: Any) -> nnx.Module:
        """The trained model of one group.

        Raises:
            KeyError: there is no such group.
        """
        place = np.flatnonzero(self.labels == label)
        if not place.size:
            raise KeyError(f"no group is called {label!r}")
        graph, _, _ = nnx.split(self.start, nnx.Param, ...)
        return nnx.merge(graph, *jax.tree.map(lambda leaf: leaf[place[0]], (self.params, self.rest)))

    def _summary(self) -> str:
        count = len(self.labels)
        steps = f"{self.steps:,} step{'' if self.steps == 1 else 's'}"
        text = f"{count:,} group{'' if count == 1 else 's'}, {steps}, plan {self.plan!r}"
        lost = int((~np.isfinite(np.asarray(self.losses))).any(1).sum())
        return text + (f"; {lost:,} did not stay finite" if lost else "")

    def _rows(self) -> list[list[str]]:
        losses = np.asarray(self.losses)[:_SHOWN]
        last = [f"{row[-1]:.6e}" if row.size else "" for row in losses]
        shown = zip(map(str, self.labels[:_SHOWN]), (f"{n:,}" for n in self.sizes[:_SHOWN]), last, strict=True)
        return [["group", "rows", "loss"], *map(list, shown)]

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        more = len(self.labels) - _SHOWN
        return "\n".join([f"GroupsResult({self._summary()})", *lines, *([f"and {more:,} more"] if more > 0 else [])])

    def _repr_html_(self) -> str:
        """The summary and the table, as a notebook shows it."""
        head, *rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self._rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<p>{html.escape(self._summary())}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
