"""Code of other people that would end the process: told as what it is, and not taken for a verdict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any


class Left(BaseException):
    """``os._exit`` was called: it would end Python at once, with nothing said and whatever code it was given."""

    def __init__(self, code: Any) -> None:
        super().__init__(f"os._exit({code!r})")


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Make ``os._exit`` raise :class:`Left` in this process; in children of it, which end by it, it is as it was."""
    own, here = os._exit, os.getpid()

    def leave(status: int) -> Any:
        if os.getpid() != here:
            own(status)
        raise Left(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = own
