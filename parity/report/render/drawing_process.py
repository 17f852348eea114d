"""A process that draws a report's charts while other work goes on.

Drawing takes seconds and holds the interpreter's lock, so a thread would not help.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from parity.report.render import drawings, numbers
from parity.report.render.numbers import Json

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def drawing_ahead() -> Iterator[Callable[[Json], None]]:
    """Draw meanwhile: call what this gives with each program of the document as soon as it is known."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))

    def ask(program: Json | None) -> None:
        try:
            drawings.expect(pool.submit(_draw, program))
        except RuntimeError as error:  # the process died
            _LOG.debug("drawing without the drawing process: %r", error)

    try:
        ask(None)
        yield lambda program: ask(numbers.encode(program))
    finally:
        drawings.expect_nothing()
        pool.shutdown(cancel_futures=True)


def _draw(program: Json | None) -> dict[str, str]:
    """Draw, in the drawing process, a program's charts, or for ``None`` the page's script; return what is new."""
    from parity.report.render import charts, html

    known = set(drawings.kept())
    if program is None:
        html.javascript()
    else:
        for spec in charts.specs(program).values():
            charts.svg(spec)
    return {key: drawing for key, drawing in drawings.kept().items() if key not in known}
