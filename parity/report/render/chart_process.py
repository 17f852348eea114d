"""What is drawn is drawn once; on request in a process of its own, while other work goes on.

Drawing takes seconds and holds the interpreter's lock, so a thread would not help. Whatever that process does not
deliver is drawn here.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from parity.report.render import numbers
from parity.report.render.numbers import Json

_LOG = logging.getLogger(__name__)
# Drawings of a few reports; the oldest go first.
_KEPT_DRAWINGS = 128
_kept: dict[str, str] = {}
_awaited: list[Future[dict[str, str]]] = []


def once(key: str, draw: Callable[[], str]) -> str:
    """Return the drawing called ``key``: as made before, as the helper makes it, or as ``draw`` makes it now."""
    while key not in _kept and _awaited:
        _take_in(_awaited.pop(0))
    if key not in _kept:
        _keep(key, draw())
    return _kept[key]


def _keep(key: str, drawing: str) -> None:
    _kept[key] = drawing
    while len(_kept) > _KEPT_DRAWINGS:
        del _kept[next(iter(_kept))]


def _take_in(drawn: Future[dict[str, str]]) -> None:
    try:
        for key, drawing in drawn.result().items():
            _keep(key, drawing)
    except Exception as error:  # the process died, or fails at what will fail here, too, and is told of then
        _LOG.debug("drawing here what the drawing process did not deliver: %r", error)


def _draw(program: Json | None) -> dict[str, str]:
    """Draw, in the drawing process, a program's charts, or for ``None`` the page's script; return what is new."""
    from parity.report.render import charts, html

    known = set(_kept)
    if program is None:
        html.javascript()
    else:
        for spec in charts.specs(program).values():
            charts.svg(spec)
    return {key: drawing for key, drawing in _kept.items() if key not in known}


@contextlib.contextmanager
def drawing_ahead() -> Iterator[Callable[[Json], None]]:
    """Draw meanwhile: call what this gives with each program of the document as soon as it is known."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))

    def ask(program: Any) -> None:
        try:
            _awaited.append(pool.submit(_draw, program))
        except RuntimeError as error:  # the process died
            _LOG.debug("drawing here, without the drawing process: %r", error)

    try:
        ask(None)
        yield lambda program: ask(numbers.encode(program))
    finally:
        _awaited.clear()
        pool.shutdown(cancel_futures=True)
