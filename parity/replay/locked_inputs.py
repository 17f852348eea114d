"""What a locked step starts from: recorded weights, gradients and buffers, and the optimizer's state before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from parity.porting import optax_state
from parity.porting.parameter_names import Names
from parity.porting.port import Port, of_arrays
from parity.recording.recording import Array, Recording, Tensors
from parity.replay import batches
from parity.replay.step import update


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """How the kept steps get the optimizer's state that they start with.

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


def plan(port: Port, names: Names, recording: Recording, dtype: np.dtype[Any]) -> Plan:
    """What can be done for this port."""
    port = of_arrays(port)
    gaps = np.flatnonzero(recording.kept != np.arange(len(recording.kept)))
    sequence = int(gaps[0]) if gaps.size else len(recording.kept)
    if sequence == len(recording.kept):
        return Plan(sequence, (), {})
    state = recording.starts.state if recording.starts is not None else {}
    still = set(recording.frozen)
    has = {
        key: names.to_port({name: np.full(values.shape, name in tensors or name in still)
                            for name, values in recording.initial.items()})
        for key, tensors in state.items()
    }  # fmt: skip
    has = {key: jax.tree.map(lambda leaf: bool(leaf.all()), tree) for key, tree in has.items()}
    params = names.to_port(batches.cast(dict(recording.initial), dtype))
    return Plan(sequence, tuple(optax_state.uncovered(port.optimizer, params, has)), has)


def recorded_rows(recording: Recording, dtype: np.dtype[Any], rows: slice) -> tuple[Any, Any, Any]:
    """Weights and buffers before some kept steps, and their gradients, by name; leading axis the rows."""
    starts = recording.starts
    after = recording.observed
    weights = starts.weights if starts else None
    buffers = starts.buffers if starts else None
    gradients = {
        name: after.gradients[name][rows] if name in after.gradients else np.zeros((_length(rows), *values.shape))
        for name, values in recording.initial.items()
    }
    given = (
        _before(recording.initial, after.weights, weights, rows),
        gradients,
        _before(recording.initial_buffers, after.buffers, buffers, rows),
    )
    made: tuple[Any, Any, Any] = batches.numbers(given, dtype)
    return made


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _before(first: Tensors, after: Tensors, starts: Tensors | None, rows: slice) -> dict[str, Array]:
    if starts is not None:
        return {name: values[rows] for name, values in starts.items()}
    if rows.start == 0:
        return {n: np.concatenate([first[n][None], values[: rows.stop - 1]]) for n, values in after.items()}
    return {name: values[rows.start - 1 : rows.stop - 1] for name, values in after.items()}


def state_rows(recording: Recording, dtype: np.dtype[Any], rows: slice) -> Any:
    """The optimizer's state that some kept steps started with, by PyTorch's key and name; leading axis the rows."""
    starts = recording.starts
    state = {} if starts is None else {key: {n: v[rows] for n, v in some.items()} for key, some in starts.state.items()}
    return batches.numbers(state, dtype)


def put(names: Names, template: Any, params: Any, state: Mapping[str, Tensors], step: Any) -> Any:
    """``template``, the optimizer's first state, as it is before ``step``, with PyTorch's recorded state in it."""
    holes = jax.tree.unflatten(names.structure, [optax.MaskedNode()] * len(names.paths))
    trees = {key: names.to_port(tensors, holes) for key, tensors in state.items()}
    return optax_state.put(template, params, trees, step)


def arguments(
    port: Port, names: Names, recording: Recording, dtype: np.dtype[Any], rows: Iterable[int] | None = None
) -> Iterator[tuple[Any, Any, Any, batches.Parts]]:
    """The arguments of :func:`parity.replay.step.locked_step` for kept steps, in their order.

    Args:
        port: the port.
        names: the mapping of its leaves.
        recording: the recording.
        dtype: float64, for which call it under ``jax.enable_x64``, or the recording's own.
        rows: which of the kept steps, ascending; all of them where left out.
    """
    port, made = of_arrays(port), plan(port, names, recording, dtype)
    feed = batches.recorded(recording, dtype)
    params = names.to_port(batches.cast(dict(recording.initial), dtype))
    template = state = port.optimizer.init(params)
    advance = jax.jit(lambda state, params, gradients: update(port, gradients, state, params)[1])
    wanted = list(range(len(recording.kept)) if rows is None else rows)
    for row in range(max(wanted, default=-1) + 1):
        step = int(recording.kept[row])
        if row >= made.sequence and row not in wanted:
            continue
        here = slice(row, row + 1)
        given = jax.tree.map(lambda leaf: batches.cast(leaf[0], dtype), recorded_rows(recording, dtype, here))
        if row >= made.sequence:
            kept = jax.tree.map(lambda leaf: leaf[0], state_rows(recording, dtype, here))
            state = put(names, template, params, kept, step)
        if row in wanted:
            place = feed.order[step]
            yield state, given, batches.cast(feed.batches[place], dtype), feed.parts[place]
        if row < made.sequence:
            state = advance(state, names.to_port(given[0]), names.to_port(given[1]))
