"""What callers give, held against what is asked for: one error that says both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jaxreg._files import can_be_named
from jaxreg._validation import is_number
from parity._errors import ParityError


def as_path(value: object, what: str, error: type[ParityError]) -> Path:
    """Return a path of text.

    Raises:
        ParityError: of the kind ``error``: it is none.
    """
    if isinstance(value, str | os.PathLike) and isinstance(named := os.fspath(value), str):
        if not can_be_named(named):
            raise error(f"expected {what}, got {_shown(value)}: no file can have that name")
        return Path(named)
    raise error(f"expected {what}, got {_shown(value)}")


def check_memory(limit: Any) -> None:
    """Refuse what is no number of bytes."""
    if not is_number(limit) or not limit > 0:
        raise ParityError(f"memory_limit must be a number of bytes above 0, such as 2e9, got {_shown(limit)}")


def check_flag(value: object, name: str) -> None:
    """Refuse what is neither ``True`` nor ``False``."""
    if not isinstance(value, bool):
        raise ParityError(f"{name} must be True or False, got {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
