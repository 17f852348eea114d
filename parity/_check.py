"""``check``: record, port, replay, judge."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxreg import _forked
from parity import causes
from parity._matrix import Matrix
from parity._verdict import Verdict
from parity.bounds import derive
from parity.judging import judge, optimizer_conventions, platforms
from parity.judging.judgement import recording_file
from parity.judging.platforms import PRECISIONS
from parity.porting import jax_source
from parity.porting import port as _port
from parity.porting.float64_constants import prepared
from parity.porting.linear_port import port as translate
from parity.porting.port import Port, without_dropout
from parity.recording.recording import Recording
from parity.replay.replay import failures_as_port_errors, replay
from parity.replay.session import Session
from parity.report import document
from parity.report.render import numbers

if TYPE_CHECKING:
    from parity.capture.run_program import Program

Progress = Callable[[str], None]
# A port, or what makes one from the recording.
PortLike: TypeAlias = Port | Callable[[Recording], Port]


def _silent(_: str) -> None:
    pass


def check(
    program_or_recording: Program | Recording,
    port: PortLike | None = None,
    *,
    seed: int | None = None,
    argv: Sequence[str] = (),
    dropout: bool = True,
    memory_limit: float | None = None,
    title: str | None = None,
    progress: Progress = _silent,
) -> Verdict:
    """Say whether a PyTorch training and its JAX port are the same training.

    Args:
        program_or_recording: a script's path, a callable without arguments, or a :class:`Recording`.
        port: the JAX side: a :class:`Port`, or a function that makes one from the recording. ``None``: derived from the
            recorded torch parts by :func:`parity.port`.
        seed: as in :func:`parity.record`.
        argv: as in :func:`parity.record`.
        dropout: as in :func:`parity.record`.
        memory_limit: as in :func:`parity.record`, whose own is taken where it is left out.
        title: what the program is called in the report; its name where left out.
        progress: called with a line as each stage ends.

    Returns:
        A :class:`Verdict`.

    Raises:
        ParityError: it cannot be judged: the program fails, does something that is not supported, or the port does not
            fit.

    Example:
        >>> import torch
        >>> def program():
        ...     torch.manual_seed(0)
        ...     model, loss_fn = torch.nn.Linear(1, 1), torch.nn.MSELoss()
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     x = torch.randn(20, 1)
        ...     for _ in range(50):
        ...         loss = loss_fn(model(x), 2 * x)
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> check(program).ok
        True
    """
    _forked.check()
    if isinstance(program_or_recording, Recording):
        recording = program_or_recording
    else:
        from parity.capture.record import MEMORY_LIMIT, record

        limit = MEMORY_LIMIT if memory_limit is None else memory_limit
        recording = record(
            program_or_recording, seed=seed, argv=argv, dropout=dropout, memory_limit=limit, graphs=port is None
        )
        progress(f"recorded {numbers.count(recording.steps, 'step')} in PyTorch, and ran them again in float64")
    if port is None and recording.whole is not None:
        recording = recording.whole
    made, costs = make_port(recording, port), {"training": recording.environment.get("seconds", 0.0)}
    session = Session.of(made, recording)
    with _timed(costs, "replay"):
        replayed = replay(session)
    progress(f"replayed them in JAX ({replayed.device}) in {recording.dtype} and in float64")
    with _timed(costs, "bounds"):
        bounds = derive.derive(session, replayed.free64)
    progress("derived the rounding bounds")
    findings = judge.judge(recording, replayed, bounds)
    replayed, bounds, findings = optimizer_conventions.settled(session, replayed, bounds, findings)
    progress(f"held every stage against its bounds: {numbers.count(len(findings), 'check')}")
    with _timed(costs, "causes"):
        found = causes.find(session, replayed, bounds, findings)
    if found:
        progress(f"found {numbers.count(len(found), 'cause')}, each tested by a replay")
    name = document.slug(recording.name)
    return Verdict(
        recording=recording,
        replay=replayed,
        bounds=bounds,
        findings=findings,
        name=name,
        title=title or recording.name,
        jax_code=jax_source.write(recording, recording_file(name)) if port is None and not recording.graphs else "",
        causes=found,
        warnings=judge.warnings(findings),
        costs=costs,
    )


@contextlib.contextmanager
def _timed(costs: dict[str, float], what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    costs[what] = time.perf_counter() - begin


def make_port(recording: Recording, port: PortLike | None) -> Port:
    """Return the port that was given or made; one derived from the recording where there is none."""
    if port is None:
        return translate(recording)
    if callable(port):
        with failures_as_port_errors(recording, "when it is made"):
            port = port(recording)
    made = _port.check(port)
    if not recording.environment.get("dropout", True):
        made = without_dropout(made)
    return prepared(recording, made)


def matrix(
    program_or_recording: Program | Recording,
    port: PortLike | None = None,
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
    return _matrix_of(verdict, port, precisions, options.get("progress"))


def with_matrix(verdict: Verdict, port: PortLike | None, progress: Progress | None = None) -> Verdict:
    """Return the verdict with its matrix."""
    return dataclasses.replace(verdict, matrix=_matrix_of(verdict, port, PRECISIONS, progress))


def _matrix_of(
    verdict: Verdict,
    port: PortLike | None,
    precisions: Sequence[str],
    progress: Progress | None,
) -> Matrix:
    """Replay what a verdict was made from on every platform."""
    session = Session.of(make_port(verdict.recording, port), verdict.recording)
    session = optimizer_conventions.adapted(session, verdict.replay.conventions)
    found = platforms.run(session, verdict.replay, verdict.bounds, precisions, progress)
    return Matrix(found.cells)
