"""The charts' axes: which numbers can be drawn, over what range, and how the numbers beside an axis are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from parity.report.render import numbers
from parity.report.render.numbers import Json, JsonDict

# What is drawn stays so far from the ends of the floats that differences and quotients are floats too.
LARGEST, SMALLEST = 1e300, 1e-300
# A range narrower than this, relative to its numbers, has too few floats to divide it by.
_LEAST_RELATIVE_RANGE = 1e-12
_LOG_AXIS_RATIO = 50
_TICK_COUNT = 6
_LABEL_DIGITS, _LARGEST_LABEL_DIGITS = 6, 17


def drawable(rows: Sequence[Json], *keys: str) -> list[JsonDict]:
    """Keep the rows in which every one of ``keys`` is a finite number that an axis can hold."""
    return [dict(row) for row in rows if all(abs(numbers.number(row[key])) <= LARGEST for key in keys)]


def is_log(values: Sequence[float]) -> bool:
    """Whether values span so much that a linear axis would hide most of them."""
    return min(values) > 0 and max(values) > _LOG_AXIS_RATIO * min(values)


def label(values: Sequence[float]) -> str:
    """Return the expression that writes a number beside an axis, with the digits that tell neighbours apart.

    It is written out where that is short, else with its power of ten.
    """
    largest, span = max(map(abs, values)), max(values) - min(values)
    needed = math.ceil(math.log10(largest) - math.log10(span)) + 2 if span else 0
    digits = min(max(needed, _LABEL_DIGITS), _LARGEST_LABEL_DIGITS)
    return (
        f"datum.value == 0 || abs(datum.value) >= 1e-3 && abs(datum.value) < 1e6 ? format(datum.value, ',.{digits}~r') "
        f": replace(format(datum.value, '.{digits - 1}~e'), 'e+', 'e')"
    )


def linear(values: Sequence[float]) -> list[float]:
    """Return the ends of a linear axis, a little beyond the values where they are too near to divide."""
    low, high = min(values), max(values)
    least = max(_LEAST_RELATIVE_RANGE * max(map(abs, values)), SMALLEST)
    return [low - least, high + least] if 0 < high - low < least else [low, high]


def axis(field: str, title: str, values: Sequence[float], log: bool = False) -> alt.Y:
    """Return a vertical axis over ``values``."""
    ticks = alt.Axis(tickCount=5, labelExpr=label(values if log else linear(values)))
    return alt.Y(field=field, type="quantitative", title=title, scale=_scale(values, log), axis=ticks)


def across(field: str, title: str, values: Sequence[float]) -> alt.X:
    """Return a horizontal axis over ``values``."""
    ticks = alt.Axis(grid=False, tickCount=_TICK_COUNT, labelExpr=label(linear(values)))
    return alt.X(field=field, type="quantitative", title=title, scale=_scale(values, False), axis=ticks)


def _scale(values: Sequence[float], log: bool) -> alt.Scale:
    if log:
        return alt.Scale(type="log")
    ends = linear(values)
    return alt.Scale(zero=False) if ends == [min(values), max(values)] else alt.Scale(zero=False, domain=ends)


def steps(rows: Sequence[Json]) -> alt.X:
    """Return the axis of steps, with whole numbers beside it."""
    first, last = rows[0]["step"], max(row["step"] for row in rows)
    ticks = alt.Axis(grid=False, values=whole(first, last), format=",d")
    scale = alt.Scale(nice=False, domain=[first, last])
    return alt.X(field="step", type="quantitative", title="step", scale=scale, axis=ticks)


def whole(first: int, last: int) -> list[int]:
    """Return a few round whole numbers from ``first`` to ``last``.

    >>> whole(0, 1), whole(0, 1000), whole(3, 3), whole(1, 14)
    ([0, 1], [0, 200, 400, 600, 800, 1000], [3], [5, 10])
    """
    if first == last:
        return [first]
    sizes = (unit * 10**power for power in range(len(str(last)) + 1) for unit in (1, 2, 5))
    size = next(each for each in sizes if (last - first) <= _TICK_COUNT * each)
    return list(range(-(-first // size) * size, last + 1, size))
