"""Peak memory: what a call adds at most to the memory that this process has resident, as Linux counts it.

What the C library's allocator was given back and keeps, in spite of being asked for it, is used again and not counted:
the figure may be too small by that, and is never too large by more than the resolution of Linux's counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os

import jax

_LOG = logging.getLogger(__name__)

_STATUS_FILE, _RESET_FILE = "/proc/self/status", "/proc/self/clear_refs"


def begin(device: jax.Device) -> int | None:
    """Give back what is free, forget the highest count so far, and tell the bytes that are resident now.

    ``None`` where the figure cannot be had: the system is not Linux or forbids it, or the work is not done on the host.
    """
    if device.platform != "cpu":
        return None
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # Else what was freed, and is still held for the next one who asks, would hide what the call takes.
        ctypes.CDLL(None).malloc_trim(0)
    now = _count("VmRSS")
    try:
        with open(_RESET_FILE, "w") as file:
            file.write("5")
    except OSError as error:
        _LOG.debug("the highest memory cannot be reset: %r", error)
        return None
    return now


def added(before: int | None) -> int | None:
    """Return the most bytes resident since :func:`begin`, less those resident then."""
    highest = _count("VmHWM")
    return None if before is None or highest is None else max(highest - before, 0)


def resolution() -> int:
    """Return by how many bytes two of Linux's counts may differ: each core keeps a few pages to itself."""
    cores = os.cpu_count() or 1
    return 2 * cores * max(32, 2 * cores) * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def _count(name: str) -> int | None:
    try:
        with open(_STATUS_FILE) as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError) as error:
        _LOG.debug("%s does not tell %s: %r", _STATUS_FILE, name, error)
        return None
