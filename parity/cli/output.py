"""Where a command's results go: files named before the program runs, and standard output with nothing else on it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def checked_target(file: str | None) -> str | None:
    """Return a file's whole path, checked before any work; ``"-"`` and ``None`` as they are.

    Raises:
        OutputError: it is a folder, its folder is not there, or there can be no such name.
    """
    from parity._errors import OutputError

    if file is None or file == "-":
        return file
    path = Path(file)
    problem = "it is a folder" if os.path.isdir(path) else ""
    if not os.path.isdir(path.parent):
        problem = "its folder is not there"
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or one with a NUL in it
        problem = problem or (error.strerror if isinstance(error, OSError) else None) or str(error)
    if problem:
        raise OutputError(f"cannot write {path}: {problem}")
    return str(path.resolve())


def write_result(file: str, content: str, stream: TextIO) -> None:
    """Write a result into a file, or onto the stream where the file is ``"-"``."""
    from parity.recording import archive

    if file == "-":
        stream.write(content)
    else:
        archive.write(Path(file), content.encode())


@contextlib.contextmanager
def stdout_for_result() -> Iterator[TextIO]:
    """Keep standard output for the result: what the program, its children or a port print goes to standard error."""
    try:
        number, other = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):  # no file, as in a notebook: nothing can go past it
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(number)
    os.dup2(other, number)
    try:
        with open(os.dup(kept), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors) as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(kept, number)
        os.close(kept)
