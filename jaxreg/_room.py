"""Room in memory: what does not fit is said before it is tried."""

from __future__ import annotations

import jax

from jaxreg._errors import ArgumentError

# So many bytes are there, or nothing works.
_SURE = 1 << 28


def check_room(size: int, what: str, instead: str) -> None:
    """Refuse to keep more than there is room for.

    Args:
        size: bytes.
        what: what they are.
        instead: what to do.

    Raises:
        ArgumentError: there are fewer bytes free.
    """
    if size < _SURE:
        return
    free = free_memory()
    if free is not None and size > free:
        raise ArgumentError(
            f"{what} would take {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free; {instead}"
        )


def free_memory() -> int | None:
    """Bytes free on the device that JAX works on, the host's where it is the CPU; ``None`` where nobody tells."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        return known["bytes_limit"] - known.get("bytes_in_use", 0) if "bytes_limit" in known else None
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
