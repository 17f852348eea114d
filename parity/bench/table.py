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
    """What rich prints: the machine's limits, then a table for each workload, and one of whole processes."""
    parts: list[RenderableType] = [Text(machine(document))]
    for workload in document["workloads"]:
        parts += [Text(), _workload(workload)]
    if document["starts"]:
        parts += [Text(), _starts(document["starts"])]
    return Group(*parts)


def machine(document: Json) -> str:
    """One sentence on the device and what it was measured to do."""
    limits, environment = document["limits"], document["environment"]
    return (
        f"{environment['device']} ({environment['device_platform']}), {environment['cores']} cores: reads "
        f"{limits['bandwidth'] / 1e9:.3g} GB/s, {limits['single'] / 1e9:.4g} GFLOP/s in float32, "
        f"{limits['double'] / 1e9:.4g} in float64, as measured in this run"
    )


def heading(workload: Json) -> str:
    """A workload, its size, and the least that it can take."""
    return f"{workload['name']}: {size(workload)}. The limit: {time(workload['least_seconds'])}"


def size(workload: Json) -> str:
    """Its size in words, which may be scaled.

    >>> size({"rows": 100, "columns": 8, "epochs": 1000, "batch": 0, "settings": 0, "groups": 20})
    '20 × 100 rows × 8 columns, 1,000 epochs'
    """
    many = workload["groups"] or workload["settings"]
    first = f"{many:,} × " if many else ""
    batch = f" in batches of {workload['batch']:,}" if workload["batch"] else ""
    return f"{first}{workload['rows']:,} rows × {workload['columns']} columns{batch}, {workload['epochs']:,} epochs"


COLUMNS = ("first", "median", "spread", "× jaxreg", "× limit", "of bound")


def rows(workload: Json) -> list[tuple[Json, list[str]]]:
    """The ways that were timed, quickest first, then the others, and the cells of each after its name."""
    peers = sorted(workload["peers"], key=lambda peer: peer["median"] or float("inf"))
    return [(peer, _cells(workload, peer)) for peer in peers]


def _cells(workload: Json, peer: Json) -> list[str]:
    if peer["why_not"]:
        return [peer["why_not"]]
    share = "not finite" if peer["share"] is None else f"{peer['share']:.2g}"
    return [
        time(peer["first_seconds"]),
        time(peer["median"]),
        spread(peer["seconds"]),
        ratio(peer["ratio"]),
        _plain(peer["median"] / workload["least_seconds"]),
        share if peer["same"] else f"{share}: not the same",
    ]


def spread(turns: Sequence[Sequence[float]]) -> str:
    """From the quickest to the slowest call."""
    calls = [call for turn in turns for call in turn]
    return time(calls[0]) if len(calls) == 1 else f"{time(min(calls))} - {time(max(calls))}"


def ratio(found: Json | None) -> str:
    """A ratio with its interval; nothing where there is none.

    >>> ratio({"median": 2.0, "low": 1.9, "high": 2.125}), ratio({"median": 1234.5, "low": None, "high": None})
    ('2 (1.9-2.12)', '1,234 (once)')
    """
    if found is None:
        return ""
    if found["low"] is None:
        return f"{_plain(found['median'])} (once)"
    return f"{_plain(found['median'])} ({_plain(found['low'])}-{_plain(found['high'])})"


def _plain(value: float) -> str:
    """Three digits, and no power of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _workload(workload: Json) -> Table:
    table = Table(title=Text(heading(workload)), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("way to train")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    left_out = []
    for peer, cells in rows(workload):
        if peer["why_not"]:
            left_out.append(f"{peer['name']} ({peer['why_not']})")
        else:
            table.add_row(peer["name"], *cells, style=None if peer["same"] else "magenta")
    if left_out:
        table.caption, table.caption_justify = Text("Not timed: " + ", ".join(left_out)), "left"
    return table


def _starts(starts: Sequence[Json]) -> Table:
    title = "start: the fitted line's whole process, from `python` to the printed weight"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("script", "median", "spread", "× jaxreg", "prints"):
        table.add_column(column, justify="left" if column == "script" else "right")
    for start in starts:
        cells = [time(start["median"]), spread(start["seconds"]), ratio(start["ratio"]), str(start["printed"])]
        table.add_row(start["name"], *cells)
    return table


def comparison(changes: Sequence[Json]) -> Table:
    """What changed against an earlier run."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("workload", "way to train", "before", "now", "before / now", ""):
        table.add_column(column)
    for change in changes:
        table.add_row(
            change["workload"],
            change["peer"],
            time(change["before"]),
            time(change["now"]),
            ratio(change["ratio"]),
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
