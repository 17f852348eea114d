"""PyTorch's own reading and multiplying, where it is the better one."""

from __future__ import annotations

import functools

import jax
import torch

from parity.bench.roofline import MATRIX_SIDE, quickest, read_bytes


def limits(device: jax.Device) -> tuple[float, float, float]:
    """Measure bytes read, and operations in float32 and float64, per second."""
    where = torch.device("cuda" if device.platform == "gpu" else "cpu")
    size = read_bytes()
    wide = torch.ones(size // 4, device=where)
    rates = []
    for dtype in (torch.float32, torch.float64):
        square = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=dtype, device=where)
        rates.append(2 * MATRIX_SIDE**3 / quickest(functools.partial(_product, square)))
    return size / quickest(lambda: wide.sum().item()), rates[0], rates[1]


def _product(square: torch.Tensor) -> float:
    return (square @ square)[0, 0].item()
