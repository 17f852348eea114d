"""The report as Markdown, to be read on its own or as a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parity.report.render import folding, matrix_rows, numbers
from parity.report.render import rows as _rows
from parity.report.render.escaping import visible
from parity.report.render.numbers import Json

_HEADER = "| stage | tensor | largest difference | ULPs | float64 difference | bound used, PyTorch / JAX | holds |"
_ALIGN = "| --- | --- | ---: | ---: | ---: | ---: | --- |"
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$!])")
_LIST_START = re.compile(r"^(=|[-+](?=[-+\s]|$)|\d+(?=[.)](?:\s|$)))")


def render(document: Json) -> str:
    """Render the report; its images are the files under ``charts/`` that :func:`parity.report.write` puts beside it.

    Args:
        document: the report as ``schema.json`` describes it, encoded.
    """
    parts = [f"# {_mark(document['ok'])} {escape(document['headline'])}"]
    for program in document["programs"]:
        parts += _program(program)
    parts += ["## Where it ran", _environment(document["environment"])]
    parts += [f"This report again:\n\n{fence(document['command'], 'sh')}", f"Made on {escape(document['created'])}."]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Make text from outside stand in a line of Markdown as what it is: no markup, no HTML, no mention of anybody."""
    text = " ".join(visible(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(r"\\\1", text)
    text = _LIST_START.sub(lambda match: f"&#{ord(match[1][0])};{match[1][1:]}", text)
    # GitHub would notify a user, and make a link of an address, even where these are written as entities.
    return re.sub(r"@(?=\w)|(?<=\w)(?=://)|(?<=www)(?=\.)", lambda match: f"{match.group()}<!-- -->", text)


def fence(text: str, language: str = "") -> str:
    """Put text into a fenced block that the text itself cannot end."""
    text = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _mark(ok: bool) -> str:
    return "✅" if ok else "❌"


def _program(program: Json) -> list[str]:
    verdict = program["verdict"]
    parts = [f"## {escape(program['title'])}", f"{_mark(verdict['ok'])} **{escape(verdict['headline'])}**"]
    parts += _causes(program)
    parts += [escape(sentence) for sentence in verdict["sentences"]]
    if parting := _rows.divergence(program):
        parts.append(f"> {escape(parting)}")
    parts += _warnings(program)
    if program["facts"]:
        parts.append("\n".join(f"- {escape(fact['label'])}: {escape(fact['value'])}" for fact in program["facts"]))
    if program["findings"]:
        parts += _folded(program)
    parts += _matrix(program)
    if program["printed"]:
        parts += [_rows.printed_summary(program), _printed(program["printed"])]
    if program["final"]:
        parts.append(_final(program))
    if program["timing"] is not None:
        parts.append(_rows.timing(program["timing"], numbers.typeset))
    return parts + _images(program)


def comment(program: Json) -> str:
    """Render one program as a comment on a pull request: the verdict, what explains it, and a line for each stage.

    Args:
        program: one entry of the document's ``programs``, encoded or not.
    """
    program = numbers.encode(program)
    verdict = program["verdict"]
    parts = [f"### {_mark(verdict['ok'])} {escape(program['title'])}: {escape(verdict['headline'])}"]
    parts += _causes(program)
    if parting := _rows.divergence(program):
        parts.append(f"> {escape(parting)}")
    if program["first_divergence"] is None:
        parts += [escape(sentence) for sentence in verdict["sentences"]]
    else:
        parts += [escape(fact["value"]) for fact in program["facts"] if fact["label"] == "Note"]
    if program["findings"]:
        parts.append(_findings(_rows.findings(folding.by_stage(program["findings"]), style=numbers.typeset)))
        parts += map(escape, _rows.notes(folding.by_stage(program["findings"])))
    parts += [*_matrix(program), *_warnings(program)]
    return "\n\n".join(parts) + "\n"


def _causes(program: Json) -> list[str]:
    parts = []
    for cause in _rows.causes(program):
        parts.append(f"**Cause: {escape(cause.name)}.** {escape(cause.sentence)}")
        if cause.fix:
            parts.append(f"**Fix:** {escape(cause.fix)}")
    return parts


def _warnings(program: Json) -> list[str]:
    return ["\n".join(f"- ⚠️ {escape(text)}" for text in warnings)] if (warnings := _rows.warnings(program)) else []


def _folded(program: Json) -> list[str]:
    table = _findings(_rows.shown(program, style=numbers.typeset))
    key = [*map(escape, _rows.notes(program["findings"]))]
    if not (note := _rows.folded(program)):
        return [table, *key]
    every = _findings(_rows.findings(program["findings"], style=numbers.typeset))
    summary = f"<details>\n<summary>All {len(program['findings']):,} checks</summary>"
    return [*key, note, table, summary, every, "</details>"]


def _matrix(program: Json) -> list[str]:
    if not (rows := matrix_rows.rows(program, numbers.typeset)):
        return []
    heads = ["platform", "precision", *matrix_rows.stages(program)]
    lines = [f"| {' | '.join(map(escape, heads))} |", f"| {' | '.join('---' for _ in heads)} |"]
    for row in rows:
        cells = [f"{_mark(cell.holds)} {escape(cell.text)}" for cell in row.cells]
        if row.failure:
            cells = ["–"] * len(row.cells)
        lines.append(f"| {' | '.join([escape(row.platform), escape(row.precision), *cells])} |")
    failures = [f"- {escape(row.failure)}" for row in rows if row.failure]
    return [escape(matrix_rows.note()), "\n".join(lines), *(["\n".join(failures)] if failures else [])]


def _findings(rows: Sequence[_rows.Finding]) -> str:
    lines = [_HEADER, _ALIGN]
    for cells in rows:
        used = f"{cells.used['torch']} / {cells.used['jax']}"
        holds = f"{_mark(cells.holds) if cells.compared else numbers.NOTHING} {cells.where}".strip()
        shown = [cells.stage, cells.tensor, cells.difference, cells.ulps, cells.float64, used, holds]
        lines.append(f"| {' | '.join(escape(cell) for cell in shown)} |")
        if cells.message:
            lines.append(f"| | {escape(cells.message)} | | | | | |")
    return "\n".join(lines)


def _printed(rows: Sequence[Json]) -> str:
    lines: list[str] = []
    for block in _rows.printed(rows):
        if block.folded:
            lines.append(f"  … {len(block.lines):,} more lines, the same on both sides")
            continue
        for torch, jax, same in block.lines:
            lines += [f"  {torch}"] if same else [f"- {torch}", f"+ {jax}"]
    differ = any(not row["same"] for row in rows)
    key = "What PyTorch printed is marked `-`, the same line with JAX's numbers `+`:\n\n" if differ else ""
    return key + fence("\n".join(lines), "diff")


def _final(program: Json) -> str:
    lines = ["| final weight | PyTorch | JAX | float64 | ULPs apart |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in _rows.final(program, numbers.typeset):
        shown = [row.name, "".join(row.torch), "".join(row.jax), row.float64, row.ulps]
        lines.append(f"| {' | '.join(escape(cell) for cell in shown)} |")
    if note := _rows.final_note(program):
        lines += ["", escape(note)]
    return "\n".join(lines)


def _images(program: Json) -> list[str]:
    from parity.report.render import charts  # takes a second to import, which a comment does not need

    return [
        f"![{escape(spec['title'])}](charts/{program['name']}-{name}.svg)"
        for name, spec in charts.specs(program).items()
    ]


def _environment(environment: Json) -> str:
    rows = {
        "Python": environment["python"],
        "Platform": environment["platform"],
        "Packages": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "Devices": f"PyTorch: {environment['devices']['torch']}, JAX: {environment['devices']['jax']}",
        "Precision": environment["precision"],
        "Threads, cores": ", ".join(f"{name}: {count}" for name, count in environment["threads"].items()),
    }
    lines = [f"| {label} | {escape(value)} |" for label, value in rows.items() if value]
    return "\n".join(["| | |", "| --- | --- |", *lines])
