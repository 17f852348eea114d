"""Room in memory: what does not fit is said before it is tried."""

from __future__ import annotations

import jax

from jaxreg._errors import ArgumentError

# So many bytes are there, or nothing works.
_SURE = 1 << 28


def check_kept(size: int, steps: int, trainings: int) -> None:
    """Refuse to keep more of a training's steps than there is room for.

    Args:
        size: bytes that it would take.
        steps: of which something is kept.
        trainings: of so many steps each.

    Raises:
        ArgumentError: there are fewer bytes free.
    """
    free = short_of(size)
    if free is not None:
        many = f" of {trainings:,} trainings" if trainings > 1 else ""
        raise ArgumentError(
            f"what is kept of {steps:,} steps{many} would take {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB "
            "are free; ask for fewer of them with at=, record less, or make fewer epochs in a call"
        )


def short_of(size: int) -> int | None:
    """The bytes that are free where they are fewer than ``size``; else, or where nobody tells, ``None``."""
    free = _free() if size >= _SURE else None
    return free if free is not None and size > free else None


def _free() -> int | None:
    """Bytes free on the device that JAX works on; ``None`` where nobody tells."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return host_memory()
    known = device.memory_stats() or {}
    return known["bytes_limit"] - known.get("bytes_in_use", 0) if "bytes_limit" in known else None


def host_memory() -> int | None:
    """Bytes free in the host's memory; ``None`` where nobody tells."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
