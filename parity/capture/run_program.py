"""Running a program as Python would, with its output kept and the interpreter put back as it was afterwards."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import random
import runpy
import sys
import textwrap
import tokenize
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch

from parity import _validation
from parity._errors import ParityError, ProgramError, UnsupportedError
from parity.capture import process_exit, source_places

Program = str | os.PathLike[str] | Callable[[], Any]


# Programs that are running, the innermost last: a script's whole path, or a function.
_RUNNING: list[Any] = []


class _Again(BaseException):
    """A program asks for itself to be run: what comes before that is what it trains."""


class _LineSink(io.RawIOBase):
    """A byte stream that hands on each line as soon as it is whole."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._rest.append(bytes(data))
        if b"\n" in self._rest[-1]:
            *lines, rest = b"".join(self._rest).split(b"\n")
            self._rest = [rest]
            for line in lines:
                self._on_line(line.decode("utf-8", "replace"))
        return len(data)

    def finish(self) -> None:
        if any(self._rest):
            self.write(b"\n")


class _Output(io.TextIOWrapper):
    """A text stream that tells what is written to it, and by which frame."""

    def __init__(self, sink: _LineSink, on_write: Callable[[str, FrameType], None]) -> None:
        super().__init__(io.BufferedWriter(sink), encoding="utf-8", line_buffering=True)
        self._on_write = on_write

    def write(self, text: str) -> int:
        if isinstance(text, str):
            self._on_write(text, sys._getframe(1))
        return super().write(text)


@contextlib.contextmanager
def _output_to(on_line: Callable[[str], None], on_write: Callable[[str, FrameType], None]) -> Iterator[None]:
    sink = _LineSink(on_line)
    stream = _Output(sink, on_write)
    try:
        with contextlib.redirect_stdout(stream):
            yield
    finally:
        if not stream.closed:  # the program's own doing
            stream.flush()
        sink.finish()


def _always(own_seed: Any, number: int) -> Any:
    def manual_seed(seed: Any) -> torch.Generator:
        return own_seed(number)

    return manual_seed


@contextlib.contextmanager
def _put_back(seed: int | None) -> Iterator[None]:
    """Give the program its seed, and leave the global settings of torch, NumPy and Python as they were found."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    precision = torch.get_float32_matmul_precision()
    own_seed = torch.manual_seed
    try:
        if seed is not None:
            own_seed(seed)
            # The program's own call is kept as a call, with another number: the seed is the recorder's to choose.
            torch.manual_seed = torch.random.manual_seed = _always(own_seed, seed)
        with np.errstate(), warnings.catch_warnings():
            # The program's own processes compute with torch: that JAX may have started here is nothing to them.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            yield
    finally:
        torch.manual_seed = torch.random.manual_seed = own_seed
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def _as_main(path: Path, argv: Sequence[str]) -> Iterator[None]:
    """``sys.argv`` and ``sys.path`` as for ``python path``; modules from the script's own folder are forgotten."""
    folder = str(path.resolve().parent)
    before = sys.argv, list(sys.path), set(sys.modules)
    sys.argv, sys.path[:0] = [str(path), *argv], [folder]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        for name in set(sys.modules) - before[2]:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == Path(folder):
                del sys.modules[name]


def describe(program: Program) -> tuple[str, str]:
    """A program's name and source.

    Raises:
        ProgramError: there is no such file, or it is no program.
    """
    if callable(program):
        try:
            source = textwrap.dedent(inspect.getsource(program))
        except (OSError, TypeError):
            source = ""
        return getattr(program, "__name__", type(program).__name__), source
    path = _validation.as_path(program, "a script's path, or a function without arguments", ProgramError)
    if os.path.isdir(path):  # where a name is too long, Path.is_dir raises
        raise ProgramError(f"{path} is a folder; name a Python script in it")
    try:
        # As Python reads it: a line at its begin may say that it is in Latin-1.
        with tokenize.open(path) as file:
            return path.stem, file.read()
    except FileNotFoundError:
        raise ProgramError(f"there is no program {path}; name a Python script, such as train.py") from None
    except OSError as error:
        raise ProgramError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, SyntaxError):
        raise ProgramError(
            f"{path} is not a Python script: it is not text in UTF-8, or as its first lines say"
        ) from None


def run(
    program: Program,
    on_line: Callable[[str], None],
    on_write: Callable[[str, FrameType], None] = lambda *_: None,
    *,
    seed: int | None = None,
    argv: Sequence[str] = (),
) -> None:
    """Run ``program`` to its end; ``on_line`` is given each line it prints, ``on_write`` each text before.

    Raises:
        ProgramError: it raised, or exited with another status than 0; its own traceback is attached.
        UnsupportedError: it is run by a program that is running in the same way.
    """
    name, _ = describe(program)
    with _running(program), _put_back(seed), _output_to(on_line, on_write), process_exit.caught():
        try:
            if callable(program):
                program()
            else:
                with _as_main(Path(program), argv):
                    runpy.run_path(str(program), run_name="__main__")
        except (ParityError, KeyboardInterrupt):
            raise
        except _Again:
            pass
        except process_exit.Left as leave:
            raise ProgramError(
                f"{name} calls {leave}, which ends Python before anything can be judged; let it run to its end"
                f"{source_places.told_of(leave)}"
            ) from None
        except SystemExit as leave:
            if leave.code not in (None, 0):
                raise ProgramError(f"{name} exited with status {leave.code!r}") from None
        except BaseException as error:
            if source_places.is_of_a_hook(error):
                raise UnsupportedError(
                    f"{name} does something that cannot be followed while it is recorded, though it may run by itself "
                    f"({type(error).__name__}: {str(error).partition(chr(10))[0]}){source_places.told_of(error)}"
                ) from error
            raise ProgramError(
                f"{name} raised {type(error).__name__}; it must run to its end by itself first",
                own_traceback(error, _file_of(program)),
            ) from None


@contextlib.contextmanager
def _running(program: Program) -> Iterator[None]:
    this = program if callable(program) else str(Path(program).resolve())
    if this in _RUNNING:
        raise _Again
    if _RUNNING:
        raise UnsupportedError("a program that is run by parity has parity run another one; check each by itself")
    _RUNNING.append(this)
    try:
        yield
    finally:
        _RUNNING.pop()


def _file_of(program: Program) -> str:
    code = getattr(program, "__code__", None)
    return str(code.co_filename if code else program)


def own_traceback(error: BaseException, file: str) -> str:
    """The traceback from the first frame in ``file`` on, as Python would print it without parity."""
    frame: TracebackType | None = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != file:
        frame = frame.tb_next
    if frame is None:
        return "".join(traceback.format_exception_only(error))
    return "".join(traceback.format_exception(type(error), error, frame))
