"""Importing torch, which a recording needs and reading one does not."""

from __future__ import annotations

import importlib.util
import sys

from parity._errors import MissingDependencyError


def require_torch() -> None:
    """Say what to install where torch is missing.

    Raises:
        MissingDependencyError: torch cannot be imported.
    """
    blocked = "torch" in sys.modules and sys.modules["torch"] is None
    if blocked or importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "PyTorch is not installed, and recording a PyTorch program needs it: pip install 'torch>=2.11,<2.14' "
            "(or pip install 'jaxreg[parity]')"
        )
