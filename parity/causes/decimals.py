"""Numbers as people wrote them: the shortest one that is near enough."""

from __future__ import annotations

import math


def shortest(value: float, slack: float) -> float:
    """Return the number of fewest digits within ``slack`` of ``value``."""
    if not math.isfinite(value) or value == 0:
        return value
    for digits in range(1, 17):
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded - value) <= slack:
            return rounded
    return value


def digits(value: float, slack: float) -> str:
    """Return ``value`` with as many digits as ``slack`` leaves certain."""
    short = shortest(value, slack)
    if slack <= 0 or not math.isfinite(slack):
        return repr(short)
    certain = max(1, min(17, 1 + math.floor(math.log10(abs(value) or 1.0)) - math.ceil(math.log10(slack))))
    return f"{short:.{certain}g}"
