"""Faults with a number in them: the number is found from the port's own steps, and then held against all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from parity.causes.decimals import shortest
from parity.causes.optimizer.course import Course, course
from parity.causes.optimizer.steps import Columns
from parity.optimizers.rule import OptimizerRule

# Steps that a number is first found from; all of them confirm it.
_FIRST_STEPS = 4
_MOST_NEWTON_ROUNDS = 25
_MOST_STEP_HALVINGS = 6

Change = Callable[[float], OptimizerRule]


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A number, how far off it may be, and the course of the optimizer with it."""

    value: float
    slack: float
    course: Course


def estimate(columns: Columns, change: Change, starts: Iterable[float]) -> Estimate | None:
    """Return the number with which ``change`` gives the port's steps; ``None`` where there is none.

    Newton's method in one unknown on the squared distance, each number weighed by what its rounding leaves open.
    """
    short = columns.fed.first(_FIRST_STEPS)
    port = columns.jax[:_FIRST_STEPS]

    def distance(value: float) -> tuple[np.ndarray, np.ndarray]:
        made = course(change(value), short).weights
        unit = np.maximum(made.slack, np.finfo(np.float64).tiny)
        return ((made.value - port) / unit).reshape(-1), unit.reshape(-1)

    with np.errstate(all="ignore"):
        ranked = sorted(starts, key=lambda start: _size(distance(start)[0]))
        for start in ranked[:3]:
            found = _newton(distance, start)
            if found is None:
                continue
            value, slack = found
            for tried in (shortest(value, slack), value):
                made = course(change(tried), columns.fed)
                if columns.explained(made):
                    return Estimate(tried, slack, made)
    return None


def _size(residual: np.ndarray) -> float:
    return float(np.nan_to_num(residual @ residual, nan=np.inf))


def _newton(distance: Callable[[float], tuple[np.ndarray, np.ndarray]], value: float) -> tuple[float, float] | None:
    """Return the zero of the distance, and the width of the interval in which rounding cannot tell numbers apart."""
    residual, unit = distance(value)
    for _ in range(_MOST_NEWTON_ROUNDS):
        width = 1e-6 * max(abs(value), 1e-12)
        slope = (distance(value + width)[0] * distance(value + width)[1] - residual * unit) / width / unit
        curvature = float(slope @ slope)
        if not np.isfinite(curvature) or curvature == 0:
            return None
        step = -float(slope @ residual) / curvature
        for _ in range(_MOST_STEP_HALVINGS):
            new, new_unit = distance(value + step)
            if _size(new) <= _size(residual):
                break
            step /= 2
        else:
            break
        value, residual, unit = value + step, new, new_unit
        if abs(step) <= 4e-17 * abs(value) or np.abs(residual).max() <= 0.01:
            break
    # An element that rounds by one unit at the most tells the number to within its unit over its slope.
    return value, float(1 / max(np.abs(slope).max(), np.finfo(np.float64).tiny))
