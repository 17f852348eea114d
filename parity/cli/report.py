"""``parity report``: judge programs and write a folder for people to read."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.cli.arguments import Commands, common, count
from parity.cli.programs import DEFAULT_REPEATS, chosen, exit_code, judge, show
from parity.cli.terminal import progress

if TYPE_CHECKING:
    from parity._verdict import Verdict

_DEFAULT_FOLDER = "parity-report"


def add(commands: Commands) -> None:
    """Add the command to the parser's commands."""
    report = commands.add_parser(
        "report",
        help="judge programs and write a report: a page, Markdown, JSON, charts, recordings and JAX code",
        description="Judge programs and write a folder: report.html, report.md, report.json, the charts as images, and "
        "each program's recording and JAX code. Without PROGRAM, the two built-in programs are judged.",
    )
    report.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help="a PyTorch script, or the name of a built-in one"
    )
    common(report)
    report.add_argument(
        "-o",
        "--output",
        default=_DEFAULT_FOLDER,
        metavar="FOLDER",
        help=f"write to FOLDER (default: {_DEFAULT_FOLDER})",
    )
    report.add_argument(
        "--repeats",
        type=count,
        metavar="N",
        help=f"time both sides N times; each time runs the program again (default: {DEFAULT_REPEATS} for the built-in "
        "programs, 0 for yours)",
    )
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace, words: list[str]) -> int:
    import parity.report
    from parity._errors import PortError
    from parity.report.render import numbers

    folder = str(Path(arguments.output).resolve())  # the program may go to another one
    parity.report.check_writable(folder)
    programs = chosen(arguments.programs)
    if arguments.port and len(programs) != 1:
        raise PortError(f"--port goes with one program, got {len(programs)}; name the one it is a port of")
    with parity.report.drawing_ahead() as draw:
        verdicts: list[Verdict] = []
        for program in programs:
            verdicts.append(_named_apart(judge(program, arguments), verdicts))
            draw(verdicts[-1].to_dict())
        written = _write(verdicts, words, folder)
    progress(arguments, "report")(f"wrote {numbers.count(len(written), 'file')}")
    for verdict in verdicts:
        show(verdict)
    print(f"The page: {Path(arguments.output) / 'report.html'}")
    return exit_code(verdicts)


def _write(verdicts: Sequence[Verdict], words: list[str], folder: str) -> list[Path]:
    import parity.report
    from parity.report import document

    files: dict[str, bytes] = {}
    for verdict in verdicts:
        files.update(verdict.files())
    return parity.report.write(document.report(verdicts, shlex.join(["parity", *words])), folder, files)


def _named_apart(verdict: Verdict, others: Sequence[Verdict]) -> Verdict:
    """Give a verdict another name where one of the others has the same, for their files' sake."""
    taken = {other.name for other in others}
    if verdict.name not in taken:
        return verdict
    number = next(n for n in range(2, len(taken) + 3) if f"{verdict.name}-{n}" not in taken)
    return verdict.renamed(f"{verdict.name}-{number}")
