"""A benchmark as a plain document: what bench.json holds, and all that tables and pages are made of."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from parity._errors import BenchError
from parity.bench import clock
from parity.bench.limits import Limits
from parity.bench.run import Row, Timed

Json = dict[str, Any]
VERSION = 1
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def document(timed: Sequence[Timed], limits: Limits, device: Any, command: str) -> Json:
    """The document of one run."""
    return {
        "version": VERSION,
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": _environment(device),
        "limits": limits._asdict(),
        "workloads": [_workload(one, limits) for one in timed],
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
        "share": row.share,
        "prepare_seconds": row.prepare_seconds,
        "first_seconds": row.first_seconds,
        "seconds": list(row.seconds),
        "median": statistics.median(row.seconds) if row.seconds else None,
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
    if not isinstance(read, dict) or "workloads" not in read:
        raise BenchError(f"{file} is not a bench.json: it has no workloads")
    if read.get("version") != VERSION:
        raise BenchError(f"{file} is of version {read.get('version')!r}, this is version {VERSION}; run it again")
    return read


def changes(old: Json, new: Json) -> list[Json]:
    """What became slower or quicker, for every way and workload that both have.

    Raises:
        BenchError: the two have no workload of the same size in common.
    """
    sizes = ("name", "rows", "columns", "epochs", "batch", "settings", "groups")
    before = {tuple(w[key] for key in sizes): w for w in old["workloads"]}
    found = []
    for workload in new["workloads"]:
        other = before.get(tuple(workload[key] for key in sizes))
        peers = {peer["name"]: peer for peer in other["peers"]} if other else {}
        for peer in workload["peers"]:
            earlier = peers.get(peer["name"])
            if not earlier or not earlier["seconds"] or not peer["seconds"]:
                continue
            found.append({"workload": workload["name"], "peer": peer["name"], **_change(earlier, peer)})
    if not found:
        raise BenchError("the two runs have no workload of the same size in common")
    return found


def _change(old: Json, new: Json) -> Json:
    """Time before over time now, with an interval from both runs' spread; a change where that leaves 1 out."""
    ratio = clock.unpaired(old["seconds"], new["seconds"])
    kind = "quicker" if ratio.low > 1 else "slower" if ratio.high < 1 else "same"
    return {"before": old["median"], "now": new["median"], "ratio": ratio._asdict(), "change": kind}
