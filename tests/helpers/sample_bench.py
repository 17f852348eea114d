"""A benchmark's document that no machine measured: two workloads, a way that is not the same, processes, odd names."""

from __future__ import annotations

import json
from typing import Any

from parity.bench import timing

ODD = "</script><b>a way</b>"


def document() -> dict[str, Any]:
    """The same one each time."""
    made: dict[str, Any] = {
        "version": 2,
        "command": "parity bench line square start",
        "created": "2026-01-02T03:04:05+00:00",
        "clock": {"training": "A time runs from the call to the result.", "start": "A time runs to the end."},
        "cold": {"cache": 2**25, "touched": 2**26, "said": "A cold call comes after 64 MiB."},
        "memory": {"resolution": 2**19, "training": "Memory is what a call adds.", "start": "Memory is all."},
        "environment": {
            **{name: name for name in ("python", "platform", "processor", "device", "device_platform", "driver")},
            "cores": 2,
            "clocks": {"cores": [2500.0, 2600.0]},
            "threads": {"torch": 2},
            "versions": {"jax": "0.10.2", "torch": None},
            "flags": {"JAX_COMPILATION_CACHE_DIR": "programs"},
            "precision": "highest",
            "git": None,
        },
        "limits": {"bandwidth": 5e10, "single": 2e11, "double": 1e11},
        "workloads": [_workload("line", 100, 1, 1e-7), _workload("square", 10**6, 64, 0.03)],
        "starts": [_start("jaxreg", 2.0), _start("PyTorch", 3.0)],
        "starts_machine": machine(0.1, disturbed=False),
    }
    return dict(json.loads(json.dumps(made)))


def machine(drift: float, *, disturbed: bool) -> dict[str, Any]:
    """One run with such a drift."""
    return {"disturbed": disturbed, "shown": 0, "limit": 0.25, "attempts": [{"drift": drift, "spread": 0.01}]}


def _turns(seconds: float) -> list[list[float]]:
    return [[seconds, 1.2 * seconds], [0.9 * seconds]]


def _workload(name: str, rows: int, columns: int, limit: float) -> dict[str, Any]:
    ours = _turns(40 * limit)
    peers = [
        _peer("jaxreg", ours, ours),
        _peer("PyTorch eager", _turns(4e4 * limit), ours),
        _peer(ODD, _turns(2e3 * limit), ours, share=70.0),
        _peer("PyTorch by hand", [[2e7 * limit]], ours),
        {**_peer("PyTorch CUDA graph", [], ours), "why_not": "needs a GPU", "share": None, "first_seconds": None},
    ]
    sizes = {"rows": rows, "columns": columns, "epochs": 1000, "batch": 0, "settings": 0, "groups": 0}
    work = {"bytes": 4.0 * rows * (columns + 1), "operations": float(rows) * columns**2, "least_seconds": limit}
    return {
        "name": name,
        "about": f"the {name}",
        **sizes,
        **work,
        "machine": machine(0.3, disturbed=True),
        "peers": peers,
    }


def _peer(name: str, turns: list[list[float]], ours: list[list[float]], share: float = 0.1) -> dict[str, Any]:
    same = share <= 1
    cold = [[3 * turn[0]] for turn in turns[:2]] if len(turns) > 1 else []
    return {
        "name": name,
        "why_not": "",
        "same": same and bool(turns),
        "share": share,
        "prepare_seconds": 0.01,
        "first_seconds": 1.5,
        "seconds": turns,
        "median": timing.median(turns) if turns else None,
        "ratio": timing.ratio(turns, ours)._asdict() if turns and same else None,
        "cold_seconds": cold,
        "cold_median": timing.median(cold) if cold else None,
        "cold_ratio": timing.ratio(cold, [[3 * turn[0]] for turn in ours])._asdict() if cold and same else None,
        "memory": 3 * 2**20 if cold else None,
    }


def _start(name: str, seconds: float) -> dict[str, Any]:
    turns = _turns(seconds)
    return {
        "name": name,
        "printed": 1.97,
        "seconds": turns,
        "median": timing.median(turns),
        "ratio": timing.ratio(turns, _turns(2.0))._asdict(),
        "memory": 400 * 2**20,
    }
