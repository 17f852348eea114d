"""parity's branch of the exception tree; the command line turns each into one message and exit code 2."""

from __future__ import annotations

from jaxreg._errors import JaxregError


class ParityError(JaxregError):
    """Base of parity's errors: the question could not be judged."""


class ProgramError(ParityError):
    """The PyTorch program itself failed or cannot be run.

    Attributes:
        program_traceback: the program's own traceback as text, without any frame of parity; empty where there is none.
    """

    def __init__(self, message: str, program_traceback: str = "") -> None:
        super().__init__(message)
        self.program_traceback = program_traceback


class UnsupportedError(ParityError):
    """The program does something that parity cannot record or port by itself."""


class PortError(ParityError):
    """A port does not fit the recording, or fails when it is run."""


class RecordingError(ParityError):
    """A file is not a recording that this version can read."""


class OutputError(ParityError):
    """The results cannot be written where they were asked for."""


class MissingDependencyError(ParityError):
    """An optional package is needed and not installed."""


class BenchError(ParityError):
    """A benchmark was asked for that cannot be run here."""


class DivergenceError(ParityError, AssertionError):
    """The two sides part; raised on request by ``Verdict.raise_for_divergence``."""
