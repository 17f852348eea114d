"""``matrix``: check a training, then its same steps on every platform present and at each precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from parity import _matrix
from parity._check import Progress, check, make_port
from parity._matrix import PRECISIONS, Matrix
from parity._verdict import Verdict
from parity.judging.optimizer_conventions import adapted
from parity.porting.port import Port
from parity.recording.recording import Recording


def matrix(
    program_or_recording: Any,
    port: Port | Callable[[Recording], Port] | None = None,
    *,
    precisions: Sequence[str] = PRECISIONS,
    **options: Any,
) -> Matrix:
    """Replay a training on every JAX platform present, at each precision of matrix products.

    Each step starts from the recorded state, in the recording's own dtype, and is held against float64 within the
    rounding bound of that dtype: TF32 or bfloat16 products show as errors beyond it.

    Args:
        program_or_recording, port: as :func:`parity.check` takes them.
        precisions: names that ``jax.default_matmul_precision`` takes. A layer that asks for a precision of its own,
            as jaxreg's do, runs at that one in every cell.
        options: more options of :func:`parity.check`.

    Returns:
        A :class:`Matrix`, with a cell for each platform and precision.

    Raises:
        ParityError: it cannot be judged, or a precision is none of JAX's.

    Example:
        >>> from parity.programs import BUILT_IN
        >>> matrix(BUILT_IN[1].path, precisions=["highest"]).ok
        True
    """
    verdict = check(program_or_recording, port, **options)
    return of(verdict, port, precisions, options.get("progress"))


def with_matrix(
    verdict: Verdict, port: Port | Callable[[Recording], Port] | None, progress: Progress | None = None
) -> Verdict:
    """The verdict with its matrix."""
    return dataclasses.replace(verdict, matrix=of(verdict, port, PRECISIONS, progress))


def of(
    verdict: Verdict,
    port: Port | Callable[[Recording], Port] | None,
    precisions: Sequence[str],
    progress: Progress | None,
) -> Matrix:
    """The matrix of what a verdict was made from."""
    made = adapted(make_port(verdict.recording, port), verdict.recording, verdict.replay.conventions)
    return _matrix.run(made, verdict.recording, verdict.replay, verdict.bounds, precisions, progress)
