"""A benchmark for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from parity._words import count
from parity.bench.disturbance import described
from parity.report.render import numbers
from parity.report.render.numbers import JsonDict

COLUMNS = ("first", "median", "spread", "× jaxreg", "cold", "× jaxreg cold", "memory", "× limit", "of bound")
START_COLUMNS = ("median", "spread", "× jaxreg", "memory", "prints")
# What a cell holds where there is no figure; the notes say why.
NONE = numbers.NOTHING


def renderable(document: JsonDict) -> RenderableType:
    """Build what rich prints: the machine, then a table for each workload and the processes."""
    parts: list[RenderableType] = [Text(machine(document))]
    for workload in document["workloads"]:
        parts += [Text(), _workload(document, workload)]
    if document["starts"]:
        parts += [Text(), _starts(document)]
    if document["workloads"]:
        parts += [Text(), *(Text(sentence) for sentence in sentences(document))]
    return Group(*parts)


def machine(document: JsonDict) -> str:
    """Describe the device and what it was measured to do."""
    limits, environment = document["limits"], document["environment"]
    bandwidth, single, double = (numbers.scientific(limits[key] / 1e9) for key in ("bandwidth", "single", "double"))
    return (
        f"{environment['device']} ({environment['device_platform']}), {count(environment['cores'], 'core')}. Measured "
        f"in this run: reads {bandwidth} GB/s, computes {single} GFLOP/s in float32 and {double} in float64"
    )


def sentences(document: JsonDict) -> list[str]:
    """Define a training's time, cold time and memory."""
    return [document["clock"]["training"], document["cold"]["said"], document["memory"]["training"]]


def start_sentences(document: JsonDict) -> list[str]:
    """Define the time and memory of a whole process."""
    return [document["clock"]["start"], document["memory"]["start"]]


def heading(workload: JsonDict) -> str:
    """Name a workload, its size, and the least time that it can take."""
    return f"{workload['name']}: {size(workload)}. The limit: {numbers.duration(workload['least_seconds'])}"


def size(workload: JsonDict) -> str:
    """Write a workload's size in words, which may be scaled.

    >>> size({"rows": 100, "columns": 1, "epochs": 1000, "batch": 0, "settings": 0, "groups": 20})
    '20 × 100 rows × 1 column, 1,000 epochs'
    """
    many = workload["groups"] or workload["settings"]
    first = f"{many:,} × " if many else ""
    batch = f" in batches of {workload['batch']:,}" if workload["batch"] else ""
    rows, columns = count(workload["rows"], "row"), count(workload["columns"], "column")
    return f"{first}{rows} × {columns}{batch}, {count(workload['epochs'], 'epoch')}"


def rows(document: JsonDict, workload: JsonDict) -> list[tuple[JsonDict, list[str]]]:
    """Return the timed ways, quickest first, then the others, each with its cells."""
    peers = sorted(workload["peers"], key=lambda peer: peer["median"] or float("inf"))
    return [(peer, _cells(document, workload, peer)) for peer in peers]


def _cells(document: JsonDict, workload: JsonDict, peer: JsonDict) -> list[str]:
    if peer["why_not"]:
        return [peer["why_not"]]
    judged = "not finite" if peer["share"] is None else numbers.percent(peer["share"])
    return [
        numbers.duration(peer["first_seconds"]),
        numbers.duration(peer["median"]),
        spread(peer["seconds"]),
        ratio(peer["ratio"]),
        NONE if peer["cold_median"] is None else numbers.duration(peer["cold_median"]),
        ratio(peer["cold_ratio"]),
        memory(peer["memory"], document["memory"]["resolution"]),
        numbers.scientific(peer["median"] / workload["least_seconds"]),
        judged if peer["same"] else f"{judged}: not the same",
    ]


def start_rows(document: JsonDict) -> list[tuple[JsonDict, list[str]]]:
    """Return the whole processes, each with its cells."""
    return [
        (
            start,
            [
                numbers.duration(start["median"]),
                spread(start["seconds"]),
                ratio(start["ratio"]),
                memory(start["memory"], 0),
                str(start["printed"]),
            ],
        )
        for start in document["starts"]
    ]


def memory(found: int | None, resolution: int) -> str:
    """Write bytes, as far as they can be told.

    >>> memory(None, 4096), memory(100, 4096), memory(3 * 2**20, 4096)
    ('–', '<4 KiB', '3 MiB')
    """
    if found is None:
        return NONE
    return f"<{numbers.size(resolution)}" if found < resolution else numbers.size(found)


def spread(turns: Sequence[Sequence[float]]) -> str:
    """Write the quickest and the slowest call; one call has no spread."""
    calls = [call for turn in turns for call in turn]
    return NONE if len(calls) == 1 else f"{numbers.duration(min(calls))} - {numbers.duration(max(calls))}"


def ratio(found: JsonDict | None) -> str:
    """Write a ratio with its interval, a dash for that of a single turn; a dash where there is no ratio.

    >>> ratio({"median": 2.0, "low": 1.9, "high": 2.125}), ratio({"median": 1234.5, "low": None, "high": None})
    ('2.00 (1.90-2.12)', '1,230 (–)')
    """
    if found is None:
        return NONE
    median, low, high = (numbers.scientific(found[key]) for key in ("median", "low", "high"))
    return f"{median} ({NONE})" if found["low"] is None else f"{median} ({low}-{high})"


def notes(document: JsonDict, workload: JsonDict) -> list[str]:
    """Explain the dashes in a workload's cells, and whether the machine was disturbed."""
    timed = [peer for peer in workload["peers"] if peer["seconds"]]
    found = disturbed(workload["machine"])
    found += _one_turn(timed)
    if "JAX_COMPILATION_CACHE_DIR" in document["environment"]["flags"]:
        found.append("First: JAX may have taken compiled programs from its compilation cache, which is set.")
    if any(peer["ratio"] is None for peer in timed):
        found.append("No × jaxreg: this way, or jaxreg itself, is not the same training.")
    if any(not peer["cold_seconds"] for peer in timed):
        touched = numbers.duration(document["cold"]["touched"] / document["limits"]["bandwidth"])
        found.append(f"No cold time: a call takes a second or more, and filling the caches takes only {touched}.")
    if any(peer["memory"] is None for peer in timed):
        found.append("No memory: the system does not report it, or the work is not done on the host.")
    return found


def start_notes(document: JsonDict) -> list[str]:
    """Explain the dashes in the cells of whole processes."""
    found = disturbed(document["starts_machine"]) + _one_turn(document["starts"])
    if any(start["memory"] is None for start in document["starts"]):
        found.append("No memory: the system does not report it.")
    return found


def _one_turn(timed: Sequence[JsonDict]) -> list[str]:
    single = any(len(one["seconds"]) == 1 for one in timed)
    return [f"({NONE}): one turn only. An interval needs two, and --seconds gives time for more."] if single else []


def disturbed(machine: JsonDict | None) -> list[str]:
    """Say that the machine was disturbed; nothing where it was not."""
    if machine is None:
        return []
    limit, attempts = machine["limit"], machine["attempts"]
    shown = attempts[machine["shown"]]
    if machine["disturbed"]:
        words = described(shown["drift"], shown["spread"], limit)
        every = f" in each of {len(attempts)} runs, of which the least disturbed is shown" if len(attempts) > 1 else ""
        return [f"The machine was disturbed{every}: {words}."]
    others = [one for number, one in enumerate(attempts) if number != machine["shown"]]
    if not others:
        return []
    words = "; ".join(described(one["drift"], one["spread"], limit) for one in others)
    return [f"The machine was disturbed in {count(len(others), 'earlier run')}, not shown here: {words}."]


class _Columns:
    """One table where the terminal is wide enough, else two below each other: a cell that is cut says another number.

    Args:
        title: above them.
        label: heads the names.
        columns: head the cells.
        rows: the name, the cells and the style of each row.
        lines: below them.
    """

    def __init__(
        self,
        title: str,
        label: str,
        columns: Sequence[str],
        rows: Sequence[tuple[str, list[str], str | None]],
        lines: Sequence[str],
    ) -> None:
        self._title, self._label, self._columns, self._rows, self._lines = title, label, columns, rows, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(self._title)
        whole = self._table(0, len(self._columns))
        if console.measure(whole, options=options.update(max_width=10**4)).maximum <= options.max_width:
            yield whole
        else:
            half = len(self._columns) // 2
            yield from (self._table(0, half), self._table(half, len(self._columns)))
        if self._lines:
            yield Text("\n".join(self._lines))

    def _table(self, first: int, last: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column(self._label, overflow="fold")
        for column in self._columns[first:last]:
            table.add_column(column, justify="right", overflow="fold")
        for name, cells, style in self._rows:
            table.add_row(Text(name), *cells[first:last], style=style)
        return table


def _workload(document: JsonDict, workload: JsonDict) -> RenderableType:
    timed, left_out = [], []
    for peer, cells in rows(document, workload):
        if peer["why_not"]:
            left_out.append(f"{peer['name']} ({peer['why_not']})")
        else:
            timed.append((peer["name"], cells, None if peer["same"] else "magenta"))
    lines = ["Not timed: " + ", ".join(left_out)] if left_out else []
    return _Columns(heading(workload), "way to train", COLUMNS, timed, lines + notes(document, workload))


def _starts(document: JsonDict) -> RenderableType:
    title = "start: the fitted line's whole process, from `python` to the printed weight"
    lines = start_sentences(document) + start_notes(document)
    timed = [(start["name"], cells, None) for start, cells in start_rows(document)]
    return _Columns(title, "script", START_COLUMNS, timed, lines)


def comparison(changes: Sequence[JsonDict], remarks: Sequence[str]) -> RenderableType:
    """Build the table of what changed against an earlier run, and of what makes the two hard to compare."""
    table = Table(title="Against the earlier run", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("workload", "way to train", "before", "now", "before / now", ""):
        table.add_column(column, overflow="fold")
    for change in changes:
        table.add_row(
            change["workload"],
            Text(change["peer"]),
            numbers.duration(change["before"]),
            numbers.duration(change["now"]),
            ratio(change["ratio"]),
            "" if change["change"] == "same" else change["change"],
        )
    lines = (
        [] if changes else ["The two runs have no way in common that was the same training on one workload and size."]
    )
    return Group(table, *map(Text, [*lines, *remarks]))
