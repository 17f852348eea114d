"""A program's verdict for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from parity.report.render import folding, matrix_rows, numbers
from parity.report.render import rows as _rows
from parity.report.render.escaping import visible
from parity.report.render.numbers import Json

_PYTORCH, _JAX, _GOOD, _BAD = "dark_orange", "cyan", "green", "bold magenta"
_DEFAULT_WIDTH = 80
# The least columns of text for a column whose cells may be folded.
_STAGE_WIDTH, _TENSOR_WIDTH = 10, 7


def renderable(program: Json) -> RenderableType:
    """Build what rich prints for one program of the document: verdict, stage table, printed lines, timing.

    Args:
        program: one entry of the document's ``programs``, encoded or not.
    """
    program = numbers.encode(program)
    parts: list[RenderableType] = [_verdict(program)]
    if program["findings"]:
        parts += [Text(), _findings(program)]
        parts += [Text(note, style="dim") for note in _rows.notes(folding.fold(program["findings"]))]
        if note := _rows.folded(program):
            parts.append(Text(f"{note} The JSON file has them all.", style="dim"))
    if cells := matrix_rows.rows(program):
        parts += [Text(), Text(matrix_rows.note()), Text(), matrix(cells, matrix_rows.stages(program))]
    if program["printed"]:
        parts += [Text(), _printed(program["printed"])]
    if program["timing"] is not None:
        parts += [Text(), Text(_rows.timing(program["timing"]))]
    return Group(*parts)


def table(program: Json, *, width: int | None = None) -> str:
    """Write one program of the document as plain text, without colours.

    Args:
        program: one entry of the document's ``programs``, encoded or not.
        width: columns to fill; 80 by default.
    """
    return plain(renderable(program), width)


def matrix_alone(held: Json, *, width: int | None = None) -> str:
    """Write the matrix that ``held`` has under ``matrix``, without a program around it, as plain text."""
    rows, stages = matrix_rows.rows(held), matrix_rows.stages(held)
    return plain(Group(Text(matrix_rows.note()), Text(), matrix(rows, stages)), width)


def plain(what: RenderableType, width: int | None = None) -> str:
    """Write what rich prints as plain text, without colours and whatever the surroundings are."""
    console = Console(
        file=io.StringIO(), width=width or _DEFAULT_WIDTH, color_system=None, force_terminal=False, _environ={}
    )
    with console.capture() as capture:
        console.print(what)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _mark(good: bool) -> Text:
    return Text("✓", style=_GOOD) if good else Text("✗", style=_BAD)


def _nothing() -> Text:
    return Text(numbers.NOTHING, style="dim")


def _verdict(program: Json) -> RenderableType:
    verdict = program["verdict"]
    head = Text.assemble(_mark(verdict["ok"]), " ", (visible(program["title"]), "bold"))
    headline = Text(visible(verdict["headline"]), style=_GOOD if verdict["ok"] else _BAD)
    lines = [headline, *_causes(program), *(Text(visible(sentence)) for sentence in verdict["sentences"])]
    if parting := _rows.divergence(program):
        lines.append(Text(parting))
    lines += [Text(f"Warning: {warning}", style="yellow") for warning in _rows.warnings(program)]
    return Group(head, Padding(Group(*lines), (0, 0, 0, 2)))


def _causes(program: Json) -> list[Text]:
    lines = []
    for cause in _rows.causes(program):
        lines.append(Text.assemble((f"Cause: {cause.name}.", "bold"), f" {cause.sentence}"))
        if cause.fix:
            lines.append(Text.assemble(("Fix", "bold"), f": {cause.fix}"))
    return lines


class _Fitting:
    """A table where all of its cells have room; else the same in lines, so that no number is cut."""

    def __init__(self, table: Table, lines: Sequence[Text]) -> None:
        """Measure the table, whose columns with a least width may be folded to it."""
        self._table, self._lines = table, lines
        widths = [column.min_width or _width(column) for column in table.columns]
        self._least = sum(widths) + 2 * (len(widths) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= self._least:
            yield self._table
        else:
            yield from self._lines


def _width(column: Column) -> int:
    words = [column.header, *column.cells]
    return max(cell_len(line) for word in words for line in str(word).split("\n"))


def _findings(program: Json) -> _Fitting:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("stage", min_width=_STAGE_WIDTH)
    table.add_column("tensor", overflow="fold", min_width=_TENSOR_WIDTH)
    for title in ("largest\ndiff.", "ULPs", "float64\ndiff."):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("bound used\ntorch / jax", justify="right", no_wrap=True)
    table.add_column("holds", no_wrap=True)
    previous, lines = None, []
    for cells in _rows.shown(program, digits=2):
        held = (_mark(cells.holds) if cells.compared else _nothing()) + Text(f" {cells.where}" if cells.where else "")
        float64 = Text(cells.float64, style="" if cells.same_program else _BAD)
        row = (Text(cells.tensor), Text(cells.difference), Text(cells.ulps), float64, _used(cells), held)
        table.add_row(Text("" if cells.stage == previous else cells.stage), *row)
        previous = cells.stage
        lines += [
            held + Text(f" {cells.stage}, {cells.tensor}"),
            Text(f"  largest diff. {cells.difference}, {cells.ulps} ULPs, float64 diff. ") + float64,
            Text("  bound used, torch / jax: ") + _used(cells),
        ]
    return _Fitting(table, lines)


def _used(cells: _rows.Finding) -> Text:
    sides = ("torch", "jax")
    return Text(" / ").join(Text(cells.used[side], style="" if cells.within[side] else _BAD) for side in sides)


def matrix(rows: list[matrix_rows.MatrixRow], stages: list[str]) -> RenderableType:
    """Build the table of platforms and precisions."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("platform", "precision", *stages):
        table.add_column(title, overflow="fold")
    lines = []
    for row in rows:
        cells = [_mark(cell.holds) + Text(f" {cell.used}\n  {cell.error}") for cell in row.cells]
        text = [
            Text(f"  {name} ") + _mark(cell.holds) + Text(f" {cell.text}") for name, cell in _stage_cells(stages, row)
        ]
        if row.failure:
            cells, text = [_nothing() for _ in stages], []
        table.add_row(Text(row.platform), Text(row.precision), *cells)
        lines += [Text(f"{row.platform}, {row.precision}"), *text]
    failures = [Text("\n".join(sorted({row.failure for row in rows if row.failure})), style="dim")]
    return Group(_Fitting(table, lines), *(failures if failures[0] else []))


def _stage_cells(stages: list[str], row: matrix_rows.MatrixRow) -> list[tuple[str, matrix_rows.MatrixCell]]:
    return list(zip(stages, row.cells, strict=True))


def _printed(rows: list[Json]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=True)
    grid.add_column(Text("PyTorch printed", style=_PYTORCH), ratio=1, overflow="fold")
    grid.add_column("", width=1)
    grid.add_column(Text("with JAX's numbers", style=_JAX), ratio=1, overflow="fold")
    for block in _rows.printed(rows):
        if block.folded:
            note = Text(f"… {len(block.lines):,} more lines", style="dim")
            grid.add_row(note, Text("=", style=_GOOD), Text("… the same", style="dim"))
            continue
        for torch, jax, same in block.lines:
            grid.add_row(Text(torch), Text("=", style=_GOOD) if same else Text("≠", style=_BAD), Text(jax))
    return grid
