"""What this machine can do at most, measured: bytes read and numbers multiplied and added in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parity.bench import caches

# Bytes that are read at least, small enough for any machine.
_READ_BYTES = 1 << 28
MATRIX_SIDE = 2048
_ROOFLINE_CALLS = 7


class Limits(NamedTuple):
    """Of one device.

    Attributes:
        bandwidth: bytes read a second, of the best of the ways tried.
        single: float32 multiplications and additions a second, each counted.
        double: the same in float64.
    """

    bandwidth: float
    single: float
    double: float


class Work(NamedTuple):
    """What a training cannot do without: bytes read once, and multiplications and additions in float64 or float32."""

    bytes: float
    operations: float

    def seconds(self, limits: Limits) -> float:
        """Return the least time that it can take: the longer of the two."""
        return max(self.bytes / limits.bandwidth, self.operations / limits.single)


def read_bytes() -> int:
    """Return how many bytes to read for the bandwidth: more than the caches hold."""
    return max(_READ_BYTES, 2 * (caches.last_level() or 0))


def measure(device: jax.Device, others: Callable[[jax.Device], tuple[float, float, float]] | None = None) -> Limits:
    """Measure the limits of a device, by XLA and by ``others``, which may reach more."""
    found = [_xla(device), *([others(device)] if others is not None else [])]
    return Limits(*(max(column) for column in zip(*found, strict=True)))


def _xla(device: jax.Device) -> tuple[float, float, float]:
    size = read_bytes()
    with jax.enable_x64(True):
        wide = jax.device_put(np.ones(size // 4, np.float32), device)
        read = quickest(_ready(jax.jit(jnp.sum), wide))
        product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
        rates = []
        for dtype in (np.float32, np.float64):
            square = jax.device_put(np.ones((MATRIX_SIDE, MATRIX_SIDE), dtype), device)
            rates.append(2 * MATRIX_SIDE**3 / quickest(_ready(product, square)))
    return size / read, rates[0], rates[1]


def _ready(function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> Callable[[], object]:
    return lambda: np.asarray(function(argument).ravel()[0])


def quickest(call: Callable[[], object]) -> float:
    """Time the quickest of several calls: a limit is what is reached undisturbed."""
    call()
    taken = []
    for _ in range(_ROOFLINE_CALLS):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return min(taken)
