"""A benchmark as a plain document: what bench.json holds, and all that tables and pages are made of."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from parity._errors import BenchError
from parity.bench import clock
from parity.bench.cold import Start
from parity.bench.limits import Limits
from parity.bench.run import Row, Timed

Json = dict[str, Any]
VERSION = 1
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def document(timed: Sequence[Timed], starts: Sequence[Start], limits: Limits, device: Any, command: str) -> Json:
    """The document of one run, as ``schema.json`` describes it."""
    return {
        "version": VERSION,
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": _environment(device),
        "limits": limits._asdict(),
        "workloads": [_workload(one, limits) for one in timed],
        "starts": [_start(start) for start in starts],
    }


def all_same(made: Json) -> bool:
    """Whether every way that was timed is the same training."""
    return all(peer["same"] for workload in made["workloads"] for peer in workload["peers"] if peer["seconds"])


def _start(start: Start) -> Json:
    return {**start._asdict(), "seconds": [[s] for s in start.seconds], "ratio": start.ratio._asdict()} | {
        "median": clock.median([[s] for s in start.seconds])
    }


def _workload(timed: Timed, limits: Limits) -> Json:
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
        "peers": [_row(row) for row in timed.rows],
    }


def _row(row: Row) -> Json:
    return {
        "name": row.peer,
        "why_not": row.why_not,
        "same": row.is_same,
        "share": row.share if row.share is None or math.isfinite(row.share) else None,
        "prepare_seconds": row.prepare_seconds,
        "first_seconds": row.first_seconds,
        "seconds": [list(turn) for turn in row.seconds],
        "median": clock.median(row.seconds) if row.seconds else None,
        "ratio": row.ratio._asdict() if row.ratio else None,
    }


def _environment(device: Any) -> Json:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device.device_kind,
        "device_platform": device.platform,
        "driver": getattr(device.client, "platform_version", ""),
        "clocks": _clocks(device.platform),
        "threads": _threads(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "OMP_NUM_THREADS") if name in os.environ},
        "precision": jax.config.jax_default_matmul_precision or "highest",  # type: ignore[attr-defined]
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _threads() -> Json:
    """How many threads the libraries compute with."""
    found: Json = {
        "cores allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    }
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found


def _clocks(platform_name: str) -> Json:
    """Clock rates in MHz as the system tells them: of the processor's cores now, of a GPU now and at most."""
    if platform_name == "gpu":
        words = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
        command = ["nvidia-smi", f"--query-gpu={words}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
            return dict(zip(words.split(","), map(float, done.stdout.splitlines()[0].split(",")), strict=True))
        return {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        return {"cores": found} if found else {}
    return {}


def _git() -> str | None:
    """The commit of the tree that this package lies in, with a mark where files are changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def load(file: str | Path) -> Json:
    """A document that an earlier run wrote.

    Raises:
        BenchError: the file is none, or of another version.
    """
    try:
        read = json.loads(Path(file).read_text())
    except OSError as error:
        raise BenchError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError:
        raise BenchError(f"{file} is not a bench.json: it is no JSON") from None
    if not isinstance(read, dict) or not {"version", "workloads", "starts"} <= read.keys():
        raise BenchError(f"{file} is not a bench.json: it has no workloads")
    if read["version"] != VERSION:
        raise BenchError(f"{file} is of version {read['version']!r}, this is version {VERSION}; run it again")
    return read


def changes(old: Json, new: Json) -> list[Json]:
    """What became slower or quicker, for every way and workload that both have.

    Raises:
        BenchError: the two have no workload of the same size in common.
    """
    before = dict(_timings(old))
    pairs = [(key, before[key], timed) for key, timed in _timings(new) if key in before]
    if not pairs:
        raise BenchError("the two runs have no workload of the same size in common")
    return [{"workload": str(key[0]), "peer": str(key[-1]), **_change(earlier, timed)} for key, earlier, timed in pairs]


def _timings(made: Json) -> Iterator[tuple[tuple[Any, ...], Json]]:
    """Every timed way, under its workload with its size, and its name."""
    for workload in made["workloads"]:
        size = tuple(workload[key] for key in ("name", "rows", "columns", "epochs", "batch", "settings", "groups"))
        yield from (((*size, peer["name"]), peer) for peer in workload["peers"] if peer["seconds"])
    yield from ((("start", start["name"]), start) for start in made["starts"])


def _change(old: Json, new: Json) -> Json:
    """Time before over time now, with an interval from both runs' spread; a change where that leaves 1 out."""
    ratio = clock.unpaired(old["seconds"], new["seconds"])
    kind = "not known: one repeat" if ratio.low is None or ratio.high is None else "same"
    if ratio.low is not None and ratio.low > 1:
        kind = "quicker"
    if ratio.high is not None and ratio.high < 1:
        kind = "slower"
    return {"before": old["median"], "now": new["median"], "ratio": ratio._asdict(), "change": kind}
