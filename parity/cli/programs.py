"""Programs named on the command line: found, judged with the port that was given, shown."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.cli.terminal import HOLDS, NOT_JUDGED, PARTS, progress

if TYPE_CHECKING:
    from parity._verdict import Verdict
    from parity.porting.port import Port
    from parity.programs import BuiltInProgram
    from parity.recording.recording import Recording

# Repeats of the timing where none are asked for. A person's own program is not run again unasked: it may write files.
DEFAULT_REPEATS = 5


def chosen(names: Sequence[str]) -> list[BuiltInProgram]:
    """Return the programs named, by path or built-in name (a file goes first); all built-in ones for no name."""
    from parity.programs import BUILT_IN, BuiltInProgram

    if not names:
        return list(BUILT_IN)
    built_in = {program.name: program for program in BUILT_IN}
    return [
        built_in[name]
        if name in built_in and not os.path.exists(name)
        else BuiltInProgram(Path(name).stem, Path(name).name, Path(name), "")
        for name in names
    ]


def judge(program: BuiltInProgram, arguments: argparse.Namespace) -> Verdict:
    """Record, replay and judge one program, and time it where that was asked for."""
    import dataclasses

    from parity.recording.require_torch import require_torch

    require_torch()
    say = progress(arguments, program.name)
    from parity._check import check, make_port
    from parity.cli import measure
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
    repeats = arguments.repeats if arguments.repeats is not None else (DEFAULT_REPEATS if program.about else 0)
    if getattr(arguments, "matrix", False):
        from parity._check import with_matrix

        verdict = with_matrix(verdict, port, say)
    if repeats:
        made = make_port(verdict.recording, port)
        timing = measure.measure(program.path, verdict.recording, made, repeats=repeats, seed=arguments.seed)
        verdict = dataclasses.replace(verdict, timing=timing)
        say(f"timed both sides {numbers.count(repeats, 'time')}")
    return verdict


def _recording_of(path: Path) -> Recording | None:
    """Return the recording that a file holds; ``None`` where it is a script or a function."""
    if not isinstance(path, Path) or path.suffix != ".npz":
        return None
    from parity.recording.recording import Recording

    return Recording.load(path)


def _load_port(text: str) -> Port | Callable[[Recording], Port]:
    """Load what FILE.py:NAME names."""
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


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return the exit code: a parting goes before what could not be judged."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes <= {"holds", "not judged"}:
        return NOT_JUDGED if "not judged" in outcomes else HOLDS
    return PARTS


def show(verdict: Verdict) -> None:
    from rich.console import Console

    from parity.report.render import terminal

    Console().print(terminal.renderable(verdict.to_dict()), "")
