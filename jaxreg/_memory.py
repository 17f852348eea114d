"""Room in memory: what does not fit is said before it is tried."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

from jaxreg._errors import ArgumentError, JaxregError

Params = ParamSpec("Params")
Result = TypeVar("Result")
# So many bytes are there, or nothing works.
_ALWAYS_FREE_BYTES = 1 << 28


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
    """Return the bytes that are free where they are fewer than ``size``; else, or where nobody tells, ``None``."""
    free = _free() if size >= _ALWAYS_FREE_BYTES else None
    return free if free is not None and size > free else None


def _free() -> int | None:
    """Return the bytes free on the device that JAX works on; ``None`` where nobody tells."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return host_memory()
    known = device.memory_stats() or {}
    return known["bytes_limit"] - known.get("bytes_in_use", 0) if "bytes_limit" in known else None


def host_memory() -> int | None:
    """Return the bytes that this process may still take of the host's memory; ``None`` where nobody tells."""
    known = [free for free in (_available(), _free_for_the_process(), _free_for_the_container()) if free is not None]
    return max(min(known), 0) if known else None


def _available() -> int | None:
    free = _entry("/proc/meminfo", "MemAvailable:")
    return None if free is None else free * 1024


def _free_for_the_process() -> int | None:
    """Return what ``ulimit -v`` leaves."""
    try:
        import resource  # Windows has none

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
    except ImportError:
        return None
    taken = None if most == resource.RLIM_INFINITY else _entry("/proc/self/status", "VmSize:")
    return None if taken is None else most - taken * 1024


def _free_for_the_container() -> int | None:
    """Return what the process's control group leaves, as containers have one."""
    for folder, *names, files in _CONTROL_GROUPS:
        most, taken = (_first_line(f"{folder}/{name}") for name in names)
        if most.isdecimal() and taken.isdecimal():  # else "max", or no such file
            # The system takes back what it keeps of files that nobody has read for a while.
            return int(most) - int(taken) + (_entry(f"{folder}/memory.stat", files) or 0)
    return None


# Version 2 of control groups, and version 1.
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
)


def _first_line(path: str) -> str:
    try:
        with open(path) as lines:
            return lines.readline().strip()
    except OSError:
        return ""


def _entry(path: str, name: str) -> int | None:
    try:
        with open(path) as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None


def name_exhausted_memory(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Make JAX's errors of memory that is used up into one that says what to do."""

    @functools.wraps(function)
    def call(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            first = str(error).partition("\n")[0]
            if not isinstance(error, MemoryError) and not _EXHAUSTED.search(first):
                raise
            raise JaxregError(
                f"memory is used up: {first or type(error).__name__}. Take fewer trainings at once, record less, give "
                "the rows in parts as jaxreg.SufficientStatistics, or use a device with more memory"
            ) from error

    return call


_EXHAUSTED = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)
