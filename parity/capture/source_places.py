"""Where in the program's own code something happens, for messages."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

_PATHS = sysconfig.get_paths()
# With the separator: a folder beside them may begin with the same letters.
_OURS = tuple(str(Path(__file__).parents[2] / package) + os.sep for package in ("parity", "jaxreg"))
_LIBRARIES = (*(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), *_OURS)

_JAX_FRAMES_REMOVED = "JAX has removed its internal frames"
Function = TypeVar("Function", bound=Callable[..., Any])
_HOOKS: set[CodeType] = set()


@functools.cache
def is_own(file: str) -> bool:
    """Whether code is a user's: of no library, of parity or of what was never a file."""
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    return not installed and not file.startswith(("<", *_LIBRARIES))


def frames() -> Iterator[FrameType]:
    """The frames that are running, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def own_frame() -> FrameType | None:
    """The innermost frame of the program's own code."""
    return next((frame for frame in frames() if is_own(frame.f_code.co_filename)), None)


def passed(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """The frames and lines of the user's own code that an error went through, the outermost first."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if is_own(frame.f_code.co_filename):
            yield frame, line


def hook(function: Function) -> Function:
    """Mark a function that PyTorch calls while the program runs: what it raises is a fault of ours.

    What stands in the place of PyTorch's own functions, and calls them, is not meant: they raise what they would.
    """
    _HOOKS.add(function.__code__)
    return function


def is_of_a_hook(error: BaseException) -> bool:
    """Whether an error came out of a function that :func:`hook` marks."""
    return any(frame.f_code in _HOOKS for frame, _ in traceback.walk_tb(error.__traceback__))


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised in parity's own code or jaxreg's, with no code of a user's on the way there.

    JAX takes its own frames out of an error's traceback and says so in a note: such an error was raised by JAX.
    """
    if any(_JAX_FRAMES_REMOVED in note for note in getattr(error, "__notes__", ())):
        return False
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].startswith(_OURS) and not any(map(is_own, frames))


def told_of(error: BaseException) -> str:
    """The same of an error: where the program was when it was raised."""
    lines = list(passed(error))
    return _line(*lines[-1]) if lines else ""


def told() -> str:
    """A sentence that names the line of the program that is running; empty where there is none."""
    import torch  # which a replay, too, that looks for lines here need not have

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
