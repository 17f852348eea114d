"""What a chart's title says of its lines: no more than they show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity.report.render.numbers import Json


def title(what: str, together: str, apart: str, ok: bool | None, lie_together: bool) -> str:
    """Say what is to be seen: the lines lie together, part by rounding alone, or where do they part?

    Nothing is said where it is not known whether the two are the same training: ``ok`` is ``None``.
    """
    if ok is None:
        return what
    if not ok:
        return f"{what}: {apart}"
    return f"{what}: {together}" if lie_together else f"{what}: the two sides part by rounding alone"


def together(pairs: Sequence[Json], seen: Sequence[float], stroke: float, log: bool = False) -> bool:
    """Whether JAX's line stays within the breadth of PyTorch's: this share of an axis over what is ``seen``."""
    scale = math.log if log else float
    places = [scale(value) for value in seen]
    gap = max(abs(scale(row["torch"]) - scale(row["jax"])) for row in pairs)
    return gap <= (max(places) - min(places)) * stroke


def both(rows: Sequence[Json]) -> list[float]:
    """Return the values of both sides."""
    return [row[side] for row in rows for side in ("torch", "jax")]
