"""Which steps' tensors are kept within a memory limit, decided while the training goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from parity._errors import UnsupportedError
from parity.recording import trees
from parity.recording.recording import Array, Starts, Trace, Tree

_DOUBLE = np.dtype(np.float64).itemsize


class Schedule:
    """The first steps and then every ``stride``-th, thinner whenever it is asked to be.

    Args:
        first: how many steps from the start on are kept for as long as there is room.
    """

    def __init__(self, first: int = 4) -> None:
        self.first, self.stride = first, 1

    def keeps(self, step: int) -> bool:
        """Whether this step is kept, beside the last one."""
        return step < self.first or step % self.stride == 0

    def sparser(self, steps: int) -> bool:
        """Keep fewer of ``steps`` steps from now on; whether that is possible."""
        if self.stride < steps:
            self.stride *= 2
        elif self.first > 1:
            self.first //= 2
        else:
            return False
        return True


@dataclasses.dataclass(eq=False)
class After:
    """What a step left, or what was there before the first one.

    ``others`` are the optimizer's values that have another shape than the parameter, by parameter name and key.
    """

    weights: dict[str, Array]
    state: dict[str, dict[str, Array]]
    buffers: dict[str, Array]
    others: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class Row:
    """One step: what it started from, what it computed and what it left."""

    before: After
    predictions: Tree
    gradients: dict[str, Array]
    after: After | None = None

    def cost(self) -> int:
        """Bytes of its tensors, of where it started, and of the two float64 runs beside it."""
        assert self.after is not None
        own = (self.predictions, self.gradients, self.after.weights, self.after.state, self.after.buffers)
        before = (self.before.weights, self.before.state, self.before.buffers)
        leaves = trees.leaves(own)
        return sum(leaf.nbytes + 2 * _DOUBLE * leaf.size for leaf in leaves) + trees.size(before)


class Keeper:
    """The steps of one run, of which as many are kept as the limit has room for.

    Args:
        limit: bytes.
        start: what was there before the first step.
    """

    def __init__(self, limit: float, start: After) -> None:
        self.limit, self.last, self.done = limit, start, 0
        self.rows: dict[int, Row] = {}
        self.kept: list[int] = []
        self.befores: list[tuple[dict[str, dict[str, Any]], dict[str, Array]]] = []
        self._costs: dict[int, int] = {}
        self._schedule = Schedule()
        self._open: Row | None = None

    @property
    def complete(self) -> bool:
        """Whether every step is kept."""
        return len(self.rows or self.kept) == self.done

    def begin(self, predictions: Tree, gradients: dict[str, Array]) -> None:
        """Take up a step about to be made."""
        self._open = Row(self.last, predictions, gradients)

    def end(self, after: After, taken: int) -> None:
        """Take up what the step left; ``taken`` bytes of the limit are already used by the data.

        Raises:
            UnsupportedError: not even the first step and this one fit within the limit.
        """
        row, step = self._open, self.done
        assert row is not None
        row.after, self.last, self._open = after, after, None
        if step and not self._schedule.keeps(step - 1):
            self._drop(step - 1)
        self.rows[step], self._costs[step] = row, row.cost()
        self.done += 1
        while sum(self._costs.values()) > self.limit - taken:
            if not self._schedule.sparser(self.done):
                raise UnsupportedError(
                    f"the tensors of two steps take {sum(self._costs.values()):,} bytes with their float64 runs, and "
                    f"{self.limit - taken:,.0f} are left of the memory limit. Record with a larger memory_limit, on "
                    "the command line --memory-limit BYTES"
                )
            for kept in list(self.rows):
                if kept != step and not self._schedule.keeps(kept):
                    self._drop(kept)

    def _drop(self, step: int) -> None:
        self.rows.pop(step, None)
        self._costs.pop(step, None)

    def finish(self, losses: Array, fresh: Callable[[str, str, Array], Array]) -> tuple[Trace, Starts | None]:
        """The kept steps as arrays, and what they started from; ``None`` where every step is kept.

        Args:
            losses: of every step.
            fresh: the state a step starts from by its key, parameter name and a like array, where there was none.
        """
        names, rows = self.changing(), list(self.rows.values())
        starts = None if self.complete else self._starts(names, fresh)
        self.befores = [(row.before.others, _whole_numbers(row.before.buffers)) for row in rows]
        self.kept = list(self.rows)
        self.rows = {}
        made = [(row.predictions, row.gradients, row.after) for row in rows if row.after]
        del rows
        return trace(made, losses, names), starts

    def _starts(self, names: list[str], fresh: Callable[[str, str, Array], Array]) -> Starts:
        befores = [row.before for row in self.rows.values()]
        state = {
            key: stacked(
                [dict(one.state.get(key) or {name: fresh(key, name, like[name]) for name in like}) for one in befores]
            )
            for key, like in self.last.state.items()
        }
        return Starts(
            weights=stacked([dict(one.weights) for one in befores]),
            state=state,
            buffers=stacked([{name: one.buffers[name] for name in names} for one in befores]),
        )

    def changing(self) -> list[str]:
        """The floating buffers that a step changed: the model's own state; the others are constants of the model."""
        rows = list(self.rows.values())
        if not rows:
            return []
        first = rows[0].before.buffers
        seen = [row.after.buffers for row in rows if row.after] + [row.before.buffers for row in rows]
        return [
            name
            for name, values in first.items()
            if np.issubdtype(values.dtype, np.floating) and any(one[name] is not values for one in seen)
        ]


def _whole_numbers(buffers: dict[str, Array]) -> dict[str, Array]:
    return {name: values for name, values in buffers.items() if not np.issubdtype(values.dtype, np.floating)}


def stacked(rows: list[dict[str, Array]]) -> dict[str, Array]:
    """Rows as arrays with a leading axis, each let go of as soon as it is copied."""
    if not rows:
        return {}
    return {name: np.stack([row.pop(name) for row in rows]) for name in list(rows[0])}


def trace(rows: list[tuple[Tree, dict[str, Array], After]], losses: Array, buffers: list[str]) -> Trace:
    """Steps as a trace: predictions, gradients and what was left, with the losses of all steps. Empties the rows."""
    keys = list(rows[-1][2].state)
    return Trace(
        predictions=tuple(predictions for predictions, _, _ in rows),
        losses=losses,
        gradients=stacked([made for _, made, _ in rows]),
        state={key: stacked([after.state[key] for _, _, after in rows]) for key in keys},
        weights=stacked([after.weights for _, _, after in rows]),
        buffers=stacked([{name: after.buffers[name] for name in buffers} for _, _, after in rows]),
    )
