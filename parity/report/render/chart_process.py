"""What is drawn is drawn once; on request in a process of its own, while other work goes on.

Drawing takes seconds and holds the interpreter's lock, so a thread would not help. Whatever that process does not
deliver is drawn here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parity.report.render import numbers

# Drawings of a few reports; the oldest go first.
_MOST = 128
_kept: dict[str, str] = {}
_helpers: list[Helper] = []


def once(key: str, draw: Callable[[], str]) -> str:
    """The drawing called ``key``: as it was made before, as the helper makes it, or as ``draw`` makes it now."""
    if key not in _kept:
        for helper in _helpers:
            helper.wait()
    if key not in _kept:
        keep(key, draw())
    return _kept[key]


def keep(key: str, drawing: str) -> None:
    """Remember a drawing."""
    _kept[key] = drawing
    while len(_kept) > _MOST:
        del _kept[next(iter(_kept))]


def kept() -> Mapping[str, str]:
    """All that is remembered."""
    return _kept


class Helper:
    """A process that draws what it is asked for, and a thread that takes in what it has drawn."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "parity.report.render"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._change = threading.Condition()
        self._awaited = 1  # the page's script, which it makes unasked
        self._thread = threading.Thread(target=self._take_in, daemon=True)
        self._thread.start()

    def ask(self, program: Mapping[str, Any]) -> None:
        """Have the charts of one program of a document drawn."""
        assert self._process.stdin is not None
        with self._change, contextlib.suppress(OSError):  # it may have died: then what it lacks is drawn here
            self._process.stdin.write(json.dumps(numbers.encode(program)) + "\n")
            self._process.stdin.flush()
            self._awaited += 1

    def wait(self) -> None:
        """Return when everything asked for is there, or will never be."""
        with self._change:
            self._change.wait_for(lambda: self._awaited <= 0)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._thread.join()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _take_in(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                drawings = json.loads(line)
                with self._change:
                    for key, drawing in drawings.items():
                        keep(key, drawing)
                    self._awaited -= 1
                    self._change.notify_all()
        with self._change:
            self._awaited = 0
            self._change.notify_all()


@contextlib.contextmanager
def drawing_ahead() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Draw meanwhile: call what this gives with each program of the document as soon as it is known."""
    helper = Helper()
    _helpers.append(helper)
    try:
        yield helper.ask
    finally:
        _helpers.remove(helper)
        helper.close()
