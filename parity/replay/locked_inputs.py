"""What a locked step starts from: recorded weights, gradients and buffers, and the optimizer's state before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from parity.porting import optax_state
from parity.porting.parameter_names import Names
from parity.recording.recording import Tensors
from parity.replay import batches
from parity.replay.session import Session
from parity.replay.step import StepInput


@dataclasses.dataclass(frozen=True, eq=False)
class StateSource:
    """Where the kept steps get the optimizer's state from that they start with.

    Attributes:
        sequence: so many of the first kept steps follow one another: the optimizer is fed the recorded gradients, one
            after the other, from where it starts.
        uncovered: parts of the optimizer's state that the recording does not have. Where there are any, the steps after
            the sequence cannot be given their state, and their optimizer is not judged.
        has: by PyTorch's key, a tree like the parameters: true where the recording has that state.
    """

    sequence: int
    uncovered: tuple[str, ...]
    has: Mapping[str, Any]


def state_source(session: Session, dtype: np.dtype[Any]) -> StateSource:
    """Find where the kept steps of a session get their optimizer's state from."""
    recording, names = session.recording, session.names
    gaps = np.flatnonzero(recording.kept != np.arange(len(recording.kept)))
    sequence = int(gaps[0]) if gaps.size else len(recording.kept)
    if sequence == len(recording.kept):
        return StateSource(sequence, (), {})
    state = recording.starts.state if recording.starts is not None else {}
    still = set(recording.frozen)
    has = {
        key: names.to_port({name: np.full(values.shape, name in tensors or name in still)
                            for name, values in recording.initial.items()})
        for key, tensors in state.items()
    }  # fmt: skip
    has = {key: jax.tree.map(lambda leaf: bool(leaf.all()), tree) for key, tree in has.items()}
    uncovered = optax_state.uncovered(session.port.optimizer, session.inputs(dtype).params, has)
    return StateSource(sequence, tuple(uncovered), has)


def put(names: Names, template: Any, params: Any, state: Mapping[str, Tensors], step: Any) -> Any:
    """``template``, the optimizer's first state, as it is before ``step``, with PyTorch's recorded state in it."""
    holes = jax.tree.unflatten(names.structure, [optax.MaskedNode()] * len(names.paths))
    trees = {key: names.to_port(tensors, holes) for key, tensors in state.items()}
    return optax_state.put(template, params, trees, step)


class StepArguments(NamedTuple):
    """What :meth:`parity.replay.session.Session.locked_step`'s step takes."""

    state: Any
    recorded: StepInput
    batch: Any
    parts: batches.Parts


def arguments(session: Session, dtype: np.dtype[Any], rows: Iterable[int] | None = None) -> Iterator[StepArguments]:
    """Give the arguments of the locked step for kept steps, in their order.

    Args:
        session: the session.
        dtype: float64, for which call it under ``jax.enable_x64``, or the recording's own.
        rows: which of the kept steps, ascending; all of them where left out.
    """
    recording, names, inputs = session.recording, session.names, session.inputs(dtype)
    source, feed = state_source(session, dtype), inputs.recorded
    template = state = inputs.optimizer_state
    update = session.step.update
    advance = jax.jit(lambda state, params, gradients: update(gradients, state, params)[1])
    wanted = list(range(len(recording.kept)) if rows is None else rows)
    for row in range(max(wanted, default=-1) + 1):
        step = int(recording.kept[row])
        if row >= source.sequence and row not in wanted:
            continue
        here = slice(row, row + 1)
        given = jax.tree.map(lambda leaf: batches.cast(leaf[0], dtype), inputs.step_inputs(here))
        if row >= source.sequence:
            kept = jax.tree.map(lambda leaf: leaf[0], inputs.optimizer_states(here))
            state = put(names, template, inputs.params, kept, step)
        if row in wanted:
            place = feed.order[step]
            yield StepArguments(state, given, batches.cast(feed.batches[place], dtype), feed.parts[place])
        if row < source.sequence:
            state = advance(state, names.to_port(given.weights), names.to_port(given.gradients))
