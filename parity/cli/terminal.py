"""What the commands have in common: exit codes, and lines of progress."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

HOLDS, PARTS, NOT_JUDGED = 0, 1, 2


def progress(arguments: argparse.Namespace, name: str) -> Callable[[str], None]:
    """Return a function that prints lines of progress, with the time since now."""
    begin = time.perf_counter()

    def say(line: str) -> None:
        if not arguments.quiet:
            print(f"{name}: {line} ({time.perf_counter() - begin:.1f} s)", file=sys.stderr, flush=True)

    return say


def unread() -> int:
    """Give up printing where nobody reads it, so that Python does not find that out again as it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        print("parity: the reader of its output is gone; nothing more was printed", file=sys.stderr)
    return NOT_JUDGED


def failed(error: Exception, show: bool) -> int:
    """Tell of an error that no room foresaw, with its traceback where ``show``; it is no verdict."""
    if isinstance(error, MemoryError):
        print("parity: there is not enough memory; take fewer steps, or a smaller batch or model", file=sys.stderr)
        return NOT_JUDGED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE):
        print(f"parity: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return NOT_JUDGED
    told = "".join(traceback.format_exception(error))
    print(
        f"parity: this is a fault of parity's own, and says nothing about your program: {type(error).__name__}: "
        f"{str(error).partition(chr(10))[0]}. Please report it, with {'this traceback:' if show else _kept(told)}",
        file=sys.stderr,
    )
    if show:
        sys.stderr.write(told)
    return NOT_JUDGED


def _kept(told: str) -> str:
    """Keep the traceback in a file, and say which."""
    with tempfile.NamedTemporaryFile("w", prefix="parity-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"parity {' '.join(sys.argv[1:])}\n\n{told}")
    return f"{file.name}, in which the traceback is"
