"""The ``parity`` command: parse, call the library, print, set the exit code."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import _output
from parity._arguments import common, count
from parity._terminal import HOLDS, NOT_JUDGED, PARTS, failed, progress, unread
from parity.bench import command as bench

if TYPE_CHECKING:
    from parity._verdict import Verdict

# Repeats of the timing where none are asked for. A person's own program is not run again unasked: it may write files.
_REPEATS = 5
_DEFAULT_FOLDER = "parity-report"

_EPILOG = """\
exit codes:
  0  parity holds        1  the two sides part        2  it could not be judged

examples:
  parity report                          the two built-in programs, into parity-report/
  parity report train.py -o out          a program of yours: a linear layer, squared error and SGD are ported unasked
  parity check train.py --port port.py:port
                                         any program with a port of yours: port.py defines port, a parity.Port or a
                                         function from the Recording to one, such as
                                           def port(recording):
                                               return parity.Port.from_nnx(model, loss, optimizer)
  parity check run.npz --port port.py:port
                                         a recording that parity.record(...).save("run.npz") kept
  parity check train.py --json -         the verdict as JSON, for another program to read
  parity check train.py --markdown -     the verdict as Markdown, for a comment on a pull request
  parity check train.py --matrix         also on every platform JAX finds here, at each precision of products

In tests of yours, with pytest:           def test_port(parity): parity.check("train.py", port=build)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; the process's own where left out.

    Returns:
        0 where parity holds, 1 where the sides part, 2 where it could not be judged.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letters for is no reason to say nothing
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    if not getattr(arguments, "quiet", True):
        # To load them takes seconds; nothing above has.
        print("parity: loading PyTorch and JAX", file=sys.stderr, flush=True)
    from jaxreg import JaxregError
    from parity._errors import ProgramError

    try:
        code: int = arguments.run(arguments, words)
        sys.stdout.flush()
    except JaxregError as error:
        if isinstance(error, ProgramError) and error.program_traceback:
            sys.stderr.write(error.program_traceback)
        print(f"parity: {error}", file=sys.stderr)
        return NOT_JUDGED
    except KeyboardInterrupt:
        print("parity: stopped; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return unread()
    except Exception as error:
        return failed(error)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parity",
        description="Run a PyTorch training program unmodified, replay it in JAX, and say whether it is the same "
        "training: stage by stage, against tolerances derived from the program.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    report = commands.add_parser(
        "report",
        help="write a report: a page, Markdown, JSON, the recording and the JAX code",
        description="Judge programs and write a folder with report.html, report.md, report.json, the static charts, "
        "and for each program its recording and the JAX code. Without PROGRAM: the two built-in programs.",
    )
    report.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help="a PyTorch script, or the name of a built-in one"
    )
    common(report)
    report.add_argument(
        "-o", "--output", default=_DEFAULT_FOLDER, metavar="FOLDER", help=f"where to (default: {_DEFAULT_FOLDER})"
    )
    report.add_argument(
        "--repeats",
        type=count,
        metavar="N",
        help=f"time both sides N times, running the program again each time (default: {_REPEATS} for the built-in "
        "programs, 0 for yours)",
    )
    report.set_defaults(run=_report)

    check = commands.add_parser(
        "check",
        help="judge one program, in the terminal only",
        description="Judge one program and print the verdict: where the two sides first part, why, and what to change.",
    )
    check.add_argument("program", metavar="PROGRAM", help="a PyTorch script, or the name of a built-in one")
    common(check)
    check.add_argument(
        "--json", metavar="FILE", help="also write the verdict as JSON; - prints it in place of the table"
    )
    check.add_argument(
        "--markdown",
        metavar="FILE",
        help="also write the verdict as Markdown for a pull request; - prints it in place of the table",
    )
    check.add_argument(
        "--matrix",
        action="store_true",
        help="also replay every step on each platform JAX finds here, at each precision of matrix products: highest, "
        "high (TF32), the platform's default, and bfloat16",
    )
    check.set_defaults(run=_check)

    bench.add(commands)

    words = "list the built-in programs and the workloads of the benchmark"
    listing = commands.add_parser("list", help=words, description=f"{words.capitalize()}.")
    listing.set_defaults(run=_list)
    return parser


# -- the commands


def _report(arguments: argparse.Namespace, words: list[str]) -> int:
    import parity.report
    from parity._errors import PortError
    from parity.report.render import numbers

    folder = str(Path(arguments.output).resolve())  # the program may go to another one
    parity.report.check_writable(folder)
    chosen = _chosen(arguments.programs)
    if arguments.port and len(chosen) != 1:
        raise PortError(f"--port goes with one program, got {len(chosen)}; name the one it is a port of")
    with parity.report.drawing_ahead() as draw:
        verdicts: list[Verdict] = []
        for program in chosen:
            verdicts.append(_named_apart(_judge(program, arguments), verdicts))
            draw(verdicts[-1].to_dict())
        written = _write(verdicts, words, folder)
    progress(arguments, "report")(f"wrote {numbers.count(len(written), 'file')}")
    for verdict in verdicts:
        _show(verdict)
    print(f"The page: {Path(arguments.output) / 'report.html'}")
    return _code(verdicts)


def _code(verdicts: Sequence[Verdict]) -> int:
    """The exit code: a parting goes before what could not be judged."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes <= {"holds", "not judged"}:
        return NOT_JUDGED if "not judged" in outcomes else HOLDS
    return PARTS


def _write(verdicts: Sequence[Verdict], words: list[str], folder: str) -> list[Path]:
    import parity.report
    from parity.report import document

    files: dict[str, bytes] = {}
    for verdict in verdicts:
        files.update(verdict.files())
    return parity.report.write(document.report(verdicts, shlex.join(["parity", *words])), folder, files)


def _show(verdict: Verdict) -> None:
    from rich.console import Console

    Console().print(text.renderable(verdict.to_dict()), "")


def _check(arguments: argparse.Namespace, words: list[str]) -> int:
    from parity._errors import OutputError

    # The program may go to another folder, and print; what it prints goes elsewhere where a result goes to "-".
    wanted = {flag: _output.place(getattr(arguments, flag)) for flag in ("json", "markdown")}
    if list(wanted.values()).count("-") > 1:
        raise OutputError("--json - and --markdown - would print into one another; give one of them a file")
    arguments.repeats = 0
    with _output.alone() if "-" in wanted.values() else contextlib.nullcontext(sys.stdout) as stream:
        verdict = _judge(_chosen([arguments.program])[0], arguments)
        if wanted["json"] is not None:
            from parity.report.render import numbers

            text = json.dumps(numbers.encode(verdict.to_dict()), indent=1, allow_nan=False) + "\n"
            _output.put(wanted["json"], text, stream)
        if wanted["markdown"] is not None:
            _output.put(wanted["markdown"], verdict.to_markdown(), stream)
    if "-" not in wanted.values():
        _show(verdict)
    return _code([verdict]) or (HOLDS if verdict.matrix is None or verdict.matrix.ok else PARTS)


def _list(arguments: argparse.Namespace, words: list[str]) -> int:
    from parity.bench.workloads import WORKLOADS
    from parity.programs import BUILT_IN

    width = max(len(each.name) for each in (*BUILT_IN, *WORKLOADS))
    for title, listed in (("Programs of report and check:", BUILT_IN), ("Workloads of bench:", WORKLOADS)):
        print(title)
        for each in listed:
            print(f"  {each.name:{width}}  {each.about}")
    return HOLDS


# -- one program


def _chosen(names: Sequence[str]) -> list[Any]:
    """The built-in programs where none is named, else each by name or path; a file goes before a built-in name."""
    from parity.programs import BUILT_IN, Listed

    if not names:
        return list(BUILT_IN)
    built_in = {program.name: program for program in BUILT_IN}
    return [
        built_in[name]
        if name in built_in and not os.path.exists(name)
        else Listed(Path(name).stem, Path(name).name, Path(name), "")
        for name in names
    ]


def _judge(program: Any, arguments: argparse.Namespace) -> Verdict:
    """Record, replay and judge one program, and time it where that was asked for."""
    import dataclasses

    from parity.recording.require_torch import require_torch

    require_torch()
    say = progress(arguments, program.name)
    from parity import _measure
    from parity._check import check, make_port
    from parity.report.render import numbers

    port = _load_port(arguments.port) if arguments.port else None
    verdict = check(
        _recording_of(program.path) or program.path,
        port,
        seed=arguments.seed,
        dropout=arguments.dropout,
        memory_limit=arguments.memory_limit,
        title=program.title,
        progress=say,
    )
    verdict = dataclasses.replace(verdict, axes=program.axes)
    repeats = arguments.repeats if arguments.repeats is not None else (_REPEATS if program.about else 0)
    if getattr(arguments, "matrix", False):
        from parity._across import with_matrix

        verdict = with_matrix(verdict, port, say)
    if repeats:
        made = make_port(verdict.recording, port)
        timing = _measure.measure(program.path, verdict.recording, made, repeats=repeats, seed=arguments.seed)
        verdict = dataclasses.replace(verdict, timing=timing)
        say(f"timed both sides {numbers.count(repeats, 'time')}")
    return verdict


def _recording_of(path: Any) -> Any:
    """The recording that a file holds; ``None`` where it is a script or a function."""
    if not isinstance(path, Path) or path.suffix != ".npz":
        return None
    from parity.recording.recording import Recording

    return Recording.load(path)


def _named_apart(verdict: Verdict, others: Sequence[Verdict]) -> Verdict:
    """Two scripts may have one name; their files must not."""
    taken = {other.name for other in others}
    if verdict.name not in taken:
        return verdict
    number = next(n for n in range(2, len(taken) + 3) if f"{verdict.name}-{n}" not in taken)
    return verdict.renamed(f"{verdict.name}-{number}")


def _load_port(text: str) -> Any:
    """What FILE.py:NAME names."""
    import runpy

    from parity._errors import ParityError, PortError, ProgramError
    from parity.capture import process_exit
    from parity.capture.run_program import own_traceback

    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise PortError(f"--port takes FILE.py:NAME, such as port.py:build, got {text!r}")
    if not os.path.isfile(file):
        raise PortError(f"there is no file {file} to take the port {name!r} from")
    sys.path.insert(0, str(Path(file).resolve().parent))
    try:
        with process_exit.caught():
            found = runpy.run_path(file)
    except (ParityError, KeyboardInterrupt):
        raise
    except BaseException as error:  # one that ends the process is no verdict
        lines = own_traceback(error, file)
        raise ProgramError(f"{file} raised {type(error).__name__} when it was loaded", lines) from None
    finally:
        sys.path.pop(0)
    if name not in found:
        public = ", ".join(key for key in found if not key.startswith("_")) or "nothing"
        raise PortError(f"{file} has no {name!r}; it defines {public}")
    return found[name]
