"""Replaying a port on a recording: locked to the recorded state at every step, and free, in both precisions."""

from __future__ import annotations

import contextlib
import dataclasses
import linecache
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parity._errors import ParityError, PortError
from parity.capture import process_exit, source_places
from parity.recording.recording import Array, Recording, Tensors, Trace, Tree
from parity.replay import batches, scan_loop, shape_checks
from parity.replay.locked_inputs import StateSource
from parity.replay.session import Session


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """What the port did on a recording.

    Attributes:
        initial: the port's own initial weights, by PyTorch's names and layout.
        locked: each kept step from the recorded state, in the recording's dtype: forward, loss, gradient and model
            state at the recorded weights and buffers, the optimizer fed the recorded gradients. Losses are those of the
            kept steps.
        free: from the port's initial weights, on its own, in the recording's dtype; losses of all steps, tensors of the
            kept ones.
        locked64, free64: the same in float64, always on the CPU.
        evaluations: the free replay's answers to the recording's evaluations, a tree each.
        device: where ``locked`` and ``free`` ran.
        initial_buffers: the port's own model state before the first step, by PyTorch's buffer names.
        judged: shape ``(kept steps,)``: whether the step's optimizer could be given the state it starts with. Where it
            could not, the locked optimizer state and weights are NaN.
        data: what the port fed itself in the free replay, ``(inputs, targets)`` of each step, where it brings batches
            of its own; the same object for steps that were fed the same.
        notes: what could not be replayed, in sentences.
        conventions: by PyTorch's key and parameter, what the port's optimizer state is a multiple of PyTorch's by,
            where it keeps that in another convention.
    """

    initial: Tensors
    locked: Trace
    free: Trace
    locked64: Trace
    free64: Trace
    evaluations: tuple[Tree, ...]
    device: str
    initial_buffers: Tensors = dataclasses.field(default_factory=dict)
    judged: Array = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    data: tuple[tuple[Tree, Tree], ...] | None = None
    notes: tuple[str, ...] = ()
    conventions: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def replay(session: Session) -> Replay:
    """Run a session's port on its recording.

    Raises:
        PortError: its loss or predictions have another form than PyTorch's, or it fails when it is run.
    """
    recording, names, port = session.recording, session.names, session.port
    wide = np.dtype(np.float64)
    with failures_as_port_errors(recording):
        with types_of(recording.dtype):
            shape_checks.check(session)
            locked, source = scan_loop.locked(session, recording.dtype)
            free, after = scan_loop.free(session, recording.dtype)
        with _on_cpu(), types_of(wide):
            locked64, _ = scan_loop.locked(session, wide)
            free64, _ = scan_loop.free(session, wide)
        device = jax.devices()[0]
        own = None if names.buffers is None else names.buffers.from_port(port.state)
        return Replay(
            initial=jax.tree.map(np.asarray, names.from_port(port.params)),
            locked=locked,
            free=free,
            locked64=locked64,
            free64=free64,
            evaluations=_evaluate(session, after),
            device=f"{device.platform}: {device.device_kind}",
            initial_buffers=jax.tree.map(np.asarray, own or {}),
            judged=np.arange(len(recording.kept)) < (source.sequence if source.uncovered else len(recording.kept)),
            data=_own_data(session),
            notes=_notes(source, recording),
        )


def relocked(session: Session, replayed: Replay) -> Replay:
    """Return a replay with the locked steps of another session of the recording in place of its own."""
    locked = locked_run(session)
    with _on_cpu():
        return dataclasses.replace(replayed, locked=locked, locked64=locked_run(session, np.float64))


def locked_run(session: Session, dtype: Any = None, *, precision: str | None = None, device: Any = None) -> Trace:
    """Run the locked replay alone, of the kept steps.

    Args:
        session: the port and the recording.
        dtype: what to compute in; the recording's dtype where left out.
        precision: of matrix products, as ``jax.default_matmul_precision`` takes it.
        device: a JAX device; the default one where left out.

    Raises:
        PortError: as :func:`replay`.
    """
    return _run(scan_loop.locked, session, dtype, precision, device)


def free_run(session: Session, dtype: Any = None, *, precision: str | None = None, device: Any = None) -> Trace:
    """Run the free replay alone; arguments as :func:`locked_run`'s."""
    return _run(scan_loop.free, session, dtype, precision, device)


def _run(drive: Callable[..., Any], session: Session, dtype: Any, precision: str | None, device: Any) -> Trace:
    kind = session.recording.dtype if dtype is None else np.dtype(dtype)
    where = contextlib.nullcontext() if device is None else jax.default_device(device)
    products = contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
    with failures_as_port_errors(session.recording), where, products, types_of(kind):
        shape_checks.check(session)
        trace: Trace = drive(session, kind)[0]
        return trace


def training(session: Session) -> Callable[[], Any]:
    """Return the free replay as one compiled program that keeps the losses only, ready to be timed."""
    dtype = session.recording.dtype
    with types_of(dtype):
        compiled, arguments = scan_loop.losses_only(session)

    def train() -> Any:
        with types_of(dtype):
            return jax.block_until_ready(compiled(*arguments))  # type: ignore[no-untyped-call]

    return train


def types_of(dtype: np.dtype[Any]) -> Any:
    """JAX's 64-bit types for a float64 training: without them it would cut float64 to float32 and say nothing."""
    return jax.enable_x64(dtype == np.float64)


def _on_cpu() -> Any:
    return jax.default_device(jax.devices("cpu")[0])


@contextlib.contextmanager
def failures_as_port_errors(recording: Recording, when: str = "when it is run") -> Iterator[None]:
    """Tell what a port's own code raises, with its file and line; a port that ends the process ends nothing.

    What parity's or jaxreg's own code raises goes through as it is: it is no fault of the port.
    """
    try:
        with process_exit.caught():
            yield
    except (ParityError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if source_places.is_ours(error):
            raise
        where = _place(error)
        first = str(error).strip().partition("\n")[0]
        message = f"the port fails {when}{where}: {type(error).__name__}: {first}{_fed(recording)}"
        raise PortError(message) from error


def _fed(recording: Recording) -> str:
    """What the port's functions are given, where that is a tuple, which a port may not expect."""
    batch, told = recording.batches[0], ""
    for name, tree in (("inputs", batch.inputs), ("targets", batch.targets)):
        if isinstance(tree, tuple):
            parts = ", ".join(f"{np.asarray(leaf).dtype} {np.shape(leaf)}" for leaf in jax.tree.leaves(tree))
            why = "the loss is worked out from all of these" if name == "targets" else "the model is called with these"
            told += f". {name} is a tuple of {len(tree)} here, {parts}: {why}"
    return told


def _place(error: BaseException) -> str:
    """The last line that an error went through and that is the port's own: neither parity's nor a library's."""
    found = ""
    for frame, line in source_places.passed(error):
        file = frame.f_code.co_filename
        if Path(file).is_file():
            source = linecache.getline(file, line).strip()
            found = f", in {file}, line {line}" + (f" ({source})" if source else "")
    return found


def _notes(source: StateSource, recording: Recording) -> tuple[str, ...]:
    if not source.uncovered:
        return ()
    step = int(recording.kept[source.sequence])
    listed = ", ".join(source.uncovered)
    return (
        f"From step {step} on, the optimizer's own stages are not judged step by step: the steps before it were not "
        f"kept, and the recording has nothing for this part of the port's optimizer state: {listed}",
    )


def _own_data(session: Session) -> tuple[tuple[Tree, Tree], ...] | None:
    if session.port.batches is None:
        return None
    feed = session.inputs(session.recording.dtype).own
    return tuple(feed.batches[place] for place in feed.order)


def _evaluate(session: Session, after: dict[int, Any]) -> tuple[Tree, ...]:
    dtype, apply = session.recording.dtype, session.step.apply
    compiled = jax.jit(lambda params, state, inputs: apply(params, state, inputs)[0])
    answers = []
    with types_of(dtype):
        start = session.inputs(dtype).start
        for evaluation in session.recording.evaluations:
            params, state = start.params, start.model
            if evaluation.step:
                weights, buffers = after[evaluation.step]
                params, state = session.names.to_port(weights), session.model_state(buffers, weights)
            answers.append(jax.tree.map(np.asarray, compiled(params, state, batches.cast(evaluation.inputs, dtype))))
    return tuple(answers)
