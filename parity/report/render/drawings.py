"""What is drawn is drawn once, here or in the drawing process. Whatever that process does not deliver is drawn here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future

_LOG = logging.getLogger(__name__)
# Drawings of a few reports; the oldest go first.
_KEPT_DRAWINGS = 128
_kept: dict[str, str] = {}
_awaited: list[Future[dict[str, str]]] = []


def once(key: str, draw: Callable[[], str]) -> str:
    """Return the drawing called ``key``: as made before, as it is expected, or as ``draw`` makes it now."""
    while key not in _kept and _awaited:
        _take_in(_awaited.pop(0))
    if key not in _kept:
        _keep(key, draw())
    return _kept[key]


def expect(drawn: Future[dict[str, str]]) -> None:
    """Wait for these drawings before another one is made here."""
    _awaited.append(drawn)


def expect_nothing() -> None:
    """Wait for no drawings any more."""
    _awaited.clear()


def kept() -> Mapping[str, str]:
    """Return all remembered drawings."""
    return _kept


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
