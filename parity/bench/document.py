"""A benchmark as a plain document: what bench.json holds, and all that tables and pages are made of."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

import jax

from parity.bench import disturbance, memory, timing
from parity.bench.environment import environment
from parity.bench.roofline import Limits
from parity.bench.run import Measured, PeerResult, TimedWorkload
from parity.bench.startup import Start
from parity.report.render import numbers
from parity.report.render.numbers import JsonDict

# 2: says what the clock covers; cold calls, memory, and what the machine showed.
VERSION = 2
_CLOCK_SENTENCES = {
    "training": "A time begins with the call; the data are already on the device, in the library’s own arrays. It ends "
    "when weights and bias are arrays on the host. Where the way has a model and losses, they are ready too.",
    "start": "A time begins with the start of `python` and ends when the process has printed the weight and ended.",
}


def document(
    measured: Measured, starts: Sequence[Start], attempts: disturbance.Attempts | None, device: jax.Device, command: str
) -> JsonDict:
    """Return the document of one run, as ``schema.json`` describes it.

    Args:
        measured: the workloads.
        starts: the whole processes.
        attempts: what their runs showed of the machine; ``None`` where there are none.
        device: that JAX ran on.
        command: as the user gave it.
    """
    return {
        "version": VERSION,
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "clock": _CLOCK_SENTENCES,
        "cold": {"cache": measured.cache, "touched": measured.touched, "said": _cold(measured)},
        "memory": {"resolution": memory.resolution(), "training": _MEMORY_SENTENCE, "start": _START_MEMORY_SENTENCE},
        "environment": environment(device),
        "limits": measured.limits._asdict(),
        "workloads": [_workload(one, measured.limits) for one in measured.timed],
        "starts": [_start(start) for start in starts],
        "starts_machine": _machine(attempts),
    }


_MEMORY_SENTENCE = (
    "Memory is the most that a warm call adds to the process’s resident memory, as Linux counts it. The data, compiled "
    "programs and freed memory that is used again do not count."
)
_START_MEMORY_SENTENCE = "Memory is the process’s largest resident memory."


def _cold(measured: Measured) -> str:
    known = f"is {numbers.size(measured.cache)}" if measured.cache else "has a size that is not known here"
    touched = numbers.size(measured.touched)
    return f"Before a cold call, {touched} of other data are read and written. The last-level cache {known}."


def _machine(attempts: disturbance.Attempts | None) -> JsonDict | None:
    if attempts is None:
        return None
    return {
        "disturbed": attempts.signs[attempts.shown].disturbed,
        "shown": attempts.shown,
        "limit": attempts.signs[0].limit,
        "attempts": [{"drift": one.drift, "spread": one.spread} for one in attempts.signs],
    }


def all_same(made: JsonDict) -> bool:
    """Whether every way that was timed is the same training."""
    return all(peer["same"] for workload in made["workloads"] for peer in workload["peers"] if peer["seconds"])


def _start(start: Start) -> JsonDict:
    return {**start._asdict(), "seconds": [[s] for s in start.seconds], "ratio": start.ratio._asdict()} | {
        "median": timing.median([[s] for s in start.seconds])
    }


def _workload(timed: TimedWorkload, limits: Limits) -> JsonDict:
    return {
        "name": timed.workload.name,
        "about": timed.workload.about,
        "rows": timed.workload.rows,
        "columns": timed.workload.columns,
        "epochs": timed.workload.epochs,
        "batch": timed.workload.batch,
        "settings": timed.workload.settings,
        "groups": timed.workload.groups,
        "bytes": timed.work.bytes,
        "operations": timed.work.operations,
        "least_seconds": timed.work.seconds(limits),
        "machine": _machine(timed.attempts),
        "peers": [_peer_result(row) for row in timed.rows],
    }


def _peer_result(row: PeerResult) -> JsonDict:
    return {
        "name": row.peer,
        "why_not": row.why_not,
        "same": row.is_same,
        "share": row.share if row.share is None or math.isfinite(row.share) else None,
        "prepare_seconds": row.prepare_seconds,
        "first_seconds": row.first_seconds,
        "seconds": [list(turn) for turn in row.seconds],
        "median": timing.median(row.seconds) if row.seconds else None,
        "ratio": row.ratio._asdict() if row.ratio else None,
        "cold_seconds": [list(turn) for turn in row.cold],
        "cold_median": timing.median(row.cold) if row.cold else None,
        "cold_ratio": row.cold_ratio._asdict() if row.cold_ratio else None,
        "memory": row.memory,
    }
