"""Where in the program's own code something happens, for messages."""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    *(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)


def frames() -> Iterator[FrameType]:
    """The frames that are running, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def own_frame() -> FrameType | None:
    """The innermost frame of the program's own code: of no library, of parity or of what was never a file."""
    for frame in frames():
        file = frame.f_code.co_filename
        if not file.startswith(("<", *_LIBRARIES)):
            return frame
    return None


def told_of(error: BaseException) -> str:
    """The same of an error: where the program was when it was raised."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(("<", *_LIBRARIES)):
            found = _line(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return found


def told() -> str:
    """A sentence that names the line of the program that is running; empty where there is none."""
    if torch.compiler.is_compiling():  # a hook that is compiled with the model has no frames to look at
        return ""
    frame = own_frame()
    if frame is None:
        return ""
    return _line(frame, frame.f_lineno)


def _line(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    text = linecache.getline(file, line, frame.f_globals).strip()
    return f". In {Path(file).name}, line {line}" + (f": {text}" if text else "")
