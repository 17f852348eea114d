"""What a training of many groups gives back, and how it prints."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxreg._sweeps import result_table
from jaxreg._sweeps.result_table import SHOWN_ROWS, counted
from jaxreg._types import HostArray, RestState


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

    labels: HostArray
    sizes: HostArray
    losses: jax.Array
    params: Any
    plan: str
    steps: int
    at: HostArray | None
    start: nnx.Module
    rest: RestState

    def model(self, label: object) -> nnx.Module:
        """Return the trained model of one group.

        Raises:
            KeyError: there is no such group.
        """
        place = np.flatnonzero(self.labels == label)
        if not place.size:
            raise KeyError(f"no group is called {label!r}")
        graph, _, _ = nnx.split(self.start, nnx.Param, ...)
        return nnx.merge(graph, *jax.tree.map(lambda leaf: leaf[place[0]], (self.params, self.rest)))

    def _summary(self) -> str:
        text = f"{counted(len(self.labels), 'group')}, {counted(self.steps, 'step')}, plan {self.plan!r}"
        lost = int((~np.isfinite(np.asarray(self.losses))).any(1).sum())
        return text + (f"; {lost:,} did not stay finite" if lost else "")

    def _rows(self) -> list[list[str]]:
        losses = np.asarray(self.losses)[:SHOWN_ROWS]
        last = [f"{row[-1]:.4e}" if row.size else "" for row in losses]
        shown = zip(map(str, self.labels[:SHOWN_ROWS]), (f"{n:,}" for n in self.sizes[:SHOWN_ROWS]), last, strict=True)
        return [["group", "rows", "loss"], *map(list, shown)]

    def __repr__(self) -> str:
        return result_table.as_text(f"GroupsResult({self._summary()})", self._rows(), len(self.labels))

    def _repr_html_(self) -> str:
        """Return the summary and the table, as a notebook shows it."""
        return result_table.as_html(self._summary(), self._rows())
