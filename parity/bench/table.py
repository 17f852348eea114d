"""A benchmark for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]


def renderable(document: Json) -> RenderableType:
    """What rich prints: the machine's limits, then a table for each workload."""
    parts: list[RenderableType] = [Text(_machine(document))]
    for workload in document["workloads"]:
        parts += [Text(), _workload(workload)]
    return Group(*parts)


def _machine(document: Json) -> str:
    limits, environment = document["limits"], document["environment"]
    return (
        f"{environment['device']} ({environment['device_platform']}), {environment['cores']} cores: reads "
        f"{limits['bandwidth'] / 1e9:.3g} GB/s, {limits['single'] / 1e9:.4g} GFLOP/s in float32, "
        f"{limits['double'] / 1e9:.4g} in float64, as measured in this run"
    )


def _workload(workload: Json) -> Table:
    title = f"{workload['name']}: {workload['about']}; reading the data once takes {time(workload['least_seconds'])}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("way to train")
    for column in ("first", "median", "spread", "times jaxreg's", "times one read", "of its bound"):
        table.add_column(column, justify="right")
    for peer in sorted(workload["peers"], key=lambda peer: peer["median"] or float("inf")):
        table.add_row(*_cells(workload, peer))
    return table


def _cells(workload: Json, peer: Json) -> Sequence[str]:
    if peer["why_not"]:
        return [peer["name"], f"[dim]{peer['why_not']}[/dim]", "", "", "", "", ""]
    ratio = peer["ratio"]
    share = f"{peer['share']:.2g}" if peer["same"] else f"[bold magenta]{peer['share']:.2g}, not the same[/]"
    return [
        peer["name"],
        time(peer["first_seconds"]),
        time(peer["median"]),
        f"{time(min(peer['seconds']))} to {time(max(peer['seconds']))}",
        f"{ratio['median']:.3g} ({ratio['low']:.3g} to {ratio['high']:.3g})" if ratio else "",
        f"{peer['median'] / workload['least_seconds']:.3g}",
        share,
    ]


def comparison(changes: Sequence[Json]) -> Table:
    """What changed against an earlier run."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("workload", "way to train", "before", "now", "before / now", ""):
        table.add_column(column)
    for change in changes:
        ratio = change["ratio"]
        table.add_row(
            change["workload"],
            change["peer"],
            time(change["before"]),
            time(change["now"]),
            f"{ratio['median']:.3g} ({ratio['low']:.3g} to {ratio['high']:.3g})",
            "" if change["change"] == "same" else change["change"],
        )
    return table


def time(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> time(0.00005), time(0.25), time(90.0)
    ('50 µs', '250 ms', '90 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
