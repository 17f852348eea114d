"""A benchmark against an earlier one: which times changed, and what makes the two hard to compare."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from parity._errors import BenchError
from parity._words import listed
from parity.bench import timing
from parity.bench.workloads import Workload
from parity.report.render.numbers import JsonDict

_SIZE_FIELDS = ("name", "rows", "columns", "epochs", "batch", "settings", "groups")
# Variables that change how the libraries compute.
_COMPARED_FLAGS = ("XLA_FLAGS", "OMP_NUM_THREADS")
# All versions of bench.json until now: what an earlier one has not is not compared.
_READABLE_VERSIONS = (1, 2)


def load(file: str | Path) -> JsonDict:
    """Load a document that an earlier run wrote, of this version or an earlier one.

    Raises:
        BenchError: the file is none, or of a later version.
    """
    try:
        read = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise BenchError(f"{file} is not a bench.json: it is no JSON") from None
    if not isinstance(read, dict) or not {"version", "workloads", "starts"} <= read.keys():
        raise BenchError(f"{file} is not a bench.json: it has no workloads")
    if read["version"] not in _READABLE_VERSIONS:
        known = listed([str(version) for version in _READABLE_VERSIONS])
        raise BenchError(
            f"{file} is of version {read['version']!r}, and versions {known} can be read; run the benchmark again with "
            "this version"
        )
    try:
        _sizes(read), remarks(read, read)
        sound = all(map(_is_sound, dict(_timings(read)).values()))
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise BenchError(f"{file} is not a bench.json: its workloads are not as the schema says")
    return read


def _is_sound(timed: JsonDict) -> bool:
    """Whether the times are there: numbers above 0, one at least in each turn."""
    calls = [call for turn in timed["seconds"] for call in turn or [0]]
    return bool(calls) and all(isinstance(call, (int, float)) and 0 < call < math.inf for call in calls)


def check_common(old: JsonDict, chosen: list[Workload], starts: bool) -> None:
    """Make sure, before anything is timed, that an earlier run has something to compare with.

    Args:
        old: the earlier run.
        chosen: the workloads, scaled.
        starts: whether whole processes are timed.

    Raises:
        BenchError: the two have no workload of the same size in common.
    """
    before = _sizes(old)
    if not (starts and old["starts"]) and not any(_size(vars(workload)) in before for workload in chosen):
        raise BenchError("the two runs have no workload of the same size in common; give --size as in the earlier run")


def changes(old: JsonDict, new: JsonDict) -> list[JsonDict]:
    """List what became slower or quicker, for each workload and way that is the same training in both runs.

    Both times are warm ones.
    """
    before = dict(_timings(old))
    pairs = [(key, before[key], timed) for key, timed in _timings(new) if key in before]
    return [{"workload": str(key[0]), "peer": str(key[-1]), **_change(earlier, timed)} for key, earlier, timed in pairs]


def remarks(old: JsonDict, new: JsonDict) -> list[str]:
    """List what else than a change of the code may explain a difference between the two runs."""
    found = []
    if old.get("clock") != new.get("clock"):
        found.append(
            "The two files define a time differently. In the earlier one, a time may have ended before the trained "
            "model was made."
        )
    environments = [run.get("environment", {}) for run in (old, new)]
    for name in ("device", "processor", "cores"):
        was, now = (each.get(name) for each in environments)
        if was != now:
            found.append(f"Another machine: {name} was {was}, and is {now} now.")
    for name in _COMPARED_FLAGS:
        was, now = (each.get("flags", {}).get(name, "not set") for each in environments)
        if was != now:
            found.append(f"Another setting: {name} was {was}, and is {now} now.")
    for words, run in (("The earlier run", old), ("This run", new)):
        disturbed = [one["name"] for one in run["workloads"] if (one.get("machine") or {}).get("disturbed")]
        disturbed += ["start"] if (run.get("starts_machine") or {}).get("disturbed") else []
        if disturbed:
            found.append(f"{words} was disturbed in: {', '.join(disturbed)}.")
    return found


def _sizes(made: JsonDict) -> set[tuple[object, ...]]:
    return {_size(workload) for workload in made["workloads"]}


def _size(workload: JsonDict) -> tuple[object, ...]:
    return tuple(workload[key] for key in _SIZE_FIELDS)


def _timings(made: JsonDict) -> Iterator[tuple[tuple[object, ...], JsonDict]]:
    """Iterate over the timed ways that are the same training, under workload, size and name."""
    for workload in made["workloads"]:
        for peer in workload["peers"]:
            if peer["seconds"] and peer["same"]:
                yield (*_size(workload), peer["name"]), peer
    yield from ((("start", start["name"]), start) for start in made["starts"])


def _change(old: JsonDict, new: JsonDict) -> JsonDict:
    """Time before over time now, with an interval from both runs' spread; a change where that leaves 1 out."""
    ratio = timing.unpaired(old["seconds"], new["seconds"])
    kind = "not known: one turn" if ratio.low is None or ratio.high is None else "same"
    if ratio.low is not None and ratio.low > 1:
        kind = "quicker"
    if ratio.high is not None and ratio.high < 1:
        kind = "slower"
    before, now = (timing.median(run["seconds"]) for run in (old, new))
    return {"before": before, "now": now, "ratio": ratio._asdict(), "change": kind}
