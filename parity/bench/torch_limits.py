"""PyTorch's own reading and multiplying, where it is the better one."""

from __future__ import annotations

import time
from typing import Any

import torch

_READ, _SIDE, _REPEATS = 1 << 28, 2048, 7


def limits(device: Any) -> tuple[float, float, float]:
    """Bytes read, and multiplications and additions in float32 and float64, a second."""
    where = torch.device("cuda" if device.platform == "gpu" else "cpu")
    wide = torch.ones(_READ // 4, device=where)
    rates = []
    for dtype in (torch.float32, torch.float64):
        square = torch.ones(_SIDE, _SIDE, dtype=dtype, device=where)
        rates.append(2 * _SIDE**3 / _best(lambda a=square: (a @ a)[0, 0].item()))
    return _READ / _best(lambda: wide.sum().item()), rates[0], rates[1]


def _best(function: Any) -> float:
    function()
    taken = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return min(taken)
