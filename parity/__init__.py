"""The proof that a training in JAX is the same as the PyTorch program it was carried over from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity import rounding
    from parity._check import check, matrix
    from parity._errors import (
        DivergenceError,
        MissingDependencyError,
        OutputError,
        ParityError,
        PortError,
        ProgramError,
        RecordingError,
        UnsupportedError,
    )
    from parity._matrix import Matrix
    from parity._verdict import Verdict
    from parity.capture.record import record
    from parity.judging.cause import Cause
    from parity.judging.finding import Finding
    from parity.porting.linear_port import port
    from parity.porting.port import Port
    from parity.porting.torch_functions.registry import register
    from parity.recording.recording import Recording

# Loaded when first asked for: PyTorch and JAX take seconds to import, and a recording is read without PyTorch.
_HOME = {
    "Cause": "parity.judging.cause",
    "DivergenceError": "parity._errors",
    "Finding": "parity.judging.finding",
    "Matrix": "parity._matrix",
    "MissingDependencyError": "parity._errors",
    "OutputError": "parity._errors",
    "ParityError": "parity._errors",
    "Port": "parity.porting.port",
    "PortError": "parity._errors",
    "ProgramError": "parity._errors",
    "Recording": "parity.recording.recording",
    "RecordingError": "parity._errors",
    "UnsupportedError": "parity._errors",
    "Verdict": "parity._verdict",
    "check": "parity._check",
    "matrix": "parity._check",
    "port": "parity.porting.linear_port",
    "record": "parity.capture.record",
    "register": "parity.porting.torch_functions.registry",
    "rounding": "parity.rounding",
}

__all__ = [
    "Cause",
    "DivergenceError",
    "Finding",
    "Matrix",
    "MissingDependencyError",
    "OutputError",
    "ParityError",
    "Port",
    "PortError",
    "ProgramError",
    "Recording",
    "RecordingError",
    "UnsupportedError",
    "Verdict",
    "check",
    "matrix",
    "port",
    "record",
    "register",
    "rounding",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'parity' has no attribute {name!r}")
    if name == "record":
        importlib.import_module("parity.recording.require_torch").require_torch()
    if name == "rounding":
        return importlib.import_module("parity.rounding")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
