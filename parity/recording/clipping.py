"""How gradients are clipped before a step, as a recording keeps it, told in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Clipping = Mapping[str, Any]


def told(clipping: Clipping) -> str:
    """Describe in words how gradients are clipped."""
    if "clip_value" in clipping:
        return f"to ±{clipping['clip_value']:g} each"
    kind = "" if clipping["norm_type"] == 2 else f" of order {clipping['norm_type']:g}"
    return f"to a norm{kind} of {clipping['max_norm']:g} together"
