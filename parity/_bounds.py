"""How far rounding alone can move each value of a training: derived from the port's own program."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity import _affine, _carried, _feed, _locked, _names
from parity._drive import Gathered, Run, slices
from parity._feed import Parts
from parity._ports import Port, of_arrays
from parity._recording import Array, Recording, Trace
from parity._replay import types_of
from parity._steps import forward_backward, free_start, free_step, locked_step, named_state, update
from parity.rounding import Format, bound

_WIDE = np.dtype(np.float64)
# Numbers that all steps together are fed and hold, below which quickly compiled code is quick enough.
_LITTLE = 20_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds in the shape of the traces they hold for: on the distance from the exact value.

    Attributes:
        locked, locked64: of one step from the recorded state, in the recording's dtype and in float64.
        likely: as ``locked``, but what independent roundings exceed once in 1e9 elements at most.
        free, free64: of a training on its own.
        open_from, open_from64: the first step at which rounding alone may move the free training's loss by more than
            the loss itself; ``None`` where there is no such step. From there on the trajectory proves nothing, and the
            locked steps alone do.
    """

    locked: Trace
    locked64: Trace
    likely: Trace
    free: Trace
    free64: Trace
    open_from: int | None
    open_from64: int | None


def derive(recording: Recording, port: Port) -> Bounds:
    """The bounds for a recorded training and its port.

    Every operation of the port's program is followed in float64 with what rounding can do to it. Along a free training
    the error is carried from step to step: by the step's own linear map where the step is affine, else entry by entry.

    Raises:
        UnsupportedError: the port's program has a primitive whose rounding is not known; it is named.
    """
    own, double = Format.of(recording.dtype.name), Format.of("float64")
    with types_of(_WIDE), jax.default_device(jax.devices("cpu")[0]):
        names = _names.of(port, recording)
        locked = _Locked(of_arrays(port), names, recording)
        free = _Free(of_arrays(port), names, recording)
        (alone, open_from), (alone64, open_from64) = free.bounds(own), free.bounds(double)
        return Bounds(
            locked=locked.bounds(own),
            locked64=locked.bounds(double),
            likely=locked.bounds(own, likely=True),
            free=alone,
            free64=alone64,
            open_from=open_from,
            open_from64=open_from64,
        )


def _is_little(recording: Recording) -> bool:
    """Whether compiling takes longer than computing."""
    data = max(sum(np.size(leaf) for leaf in jax.tree.leaves((b.inputs, b.targets))) for b in recording.batches)
    weights = sum(values.size for values in recording.initial.values())
    return (data + weights) * len(recording.batch_of_step) < _LITTLE


def _no_error(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), tree)


# -- locked


class _Locked:
    """Every kept step from what was recorded, which is exact; the error of the optimizer's state is carried along."""

    def __init__(self, port: Port, names: _names.Names, recording: Recording) -> None:
        self._recording, self._names = recording, names
        self._plan = _locked.plan(port, names, recording, _WIDE)
        self._params = names.to_port(_feed.cast(dict(recording.initial), _WIDE))
        self._start = port.optimizer.init(self._params)
        self._step = locked_step(port, names, tuple(recording.observed.state))
        quick = _is_little(recording)
        self._sequence, self._injected = Run(self._in_sequence, quick=quick), Run(self._from_recorded, quick=quick)

    def _bounded(self, mode: Any, state: Any, off: Any, recorded: Any, batch: Any, parts: Parts) -> Any:
        form, likely = mode
        follow = bound(
            lambda state, recorded, batch: self._step(state, recorded, batch, parts),
            precision=form,
            input_bounds=(off, None, None),
            narrow=False,
            probabilistic=likely,
        )
        return follow(state, recorded, batch)

    def _in_sequence(self, carry: Any, recorded: Any, batch: Any, parts: Parts) -> Any:
        mode, state, off = carry
        (state, _), (off, made) = self._bounded(mode, state, off, recorded, batch, parts)
        return (mode, state, off), made

    def _from_recorded(self, mode: Any, x: Any, batch: Any, parts: Parts) -> Any:
        recorded, kept, number = x
        state = _locked.put(self._names, self._start, self._params, kept, number)
        return mode, self._bounded(mode, state, None, recorded, batch, parts)[1][1]

    def bounds(self, form: Format, *, likely: bool = False) -> Trace:
        """For all kept steps."""
        recording, kept = self._recording, self._recording.kept
        feed, gathered = _feed.recorded(recording, _WIDE), Gathered(len(kept))
        mode = (form, jnp.asarray(likely))
        carry: Any = (mode, self._start, _no_error(self._start))
        for rows in slices(0, self._plan.sequence, recording, _WIDE):
            xs = _locked.recorded_rows(recording, _WIDE, rows)
            carry = self._sequence.over(carry, xs, feed.of_steps(kept[rows]), gathered, rows)
        for rows in slices(self._plan.sequence, len(kept), recording, _WIDE):
            numbers = kept[rows].astype(np.int32)
            xs = (_locked.recorded_rows(recording, _WIDE, rows), _locked.state_rows(recording, _WIDE, rows), numbers)
            self._injected.over(mode, xs, feed.of_steps(kept[rows]), gathered, rows)
        return gathered.trace()


# -- free


class _Free:
    """The port on its own, from its own start, to which it is exact."""

    def __init__(self, port: Port, names: _names.Names, recording: Recording) -> None:
        self._port, self._names, self._recording = port, names, recording
        self._feed = _feed.own(port, recording, _WIDE)
        self._start = free_start(port, _WIDE)
        self._flat = _affine.Flat((self._start[0], self._start[1]))
        self._step = free_step(port, names, tuple(recording.observed.state))
        self._run = Run(self._bounded, quick=_is_little(recording))
        self._maps = self._linear_maps()

    def _bounded(self, carry: Any, x: Any, batch: Any, parts: Parts) -> Any:
        form, inner, off = carry
        if x is not None:
            # What the error is where it is known better, and whether only what the step itself adds is asked for.
            limit, alone = x
            near = jax.tree.map(jnp.minimum, off[:2], self._flat.tree(limit, off[:2]))
            off = jax.tree.map(lambda e: jnp.where(alone, 0.0, e), (*near, off[2]))
        follow = bound(
            lambda inner, batch: self._step(inner, None, batch, parts),
            precision=form,
            input_bounds=(off, None),
            narrow=False,
        )
        (inner, made), (off, errors) = follow(inner, batch)
        told = (jnp.abs(made[1]), self._flat.vector(off[:2]) if x is not None else jnp.zeros(0))
        return (form, inner, off), (*errors, told)

    def bounds(self, form: Format) -> tuple[Trace, int | None]:
        """For all steps, and the first one at which the loss is open."""
        if self._maps is None:
            return self._over(form, None)
        steps = len(self._feed.order)
        anything = np.full((steps, self._flat.size), np.inf)
        gathered, rows = Gathered(steps), slice(0, steps)
        carry = (form, self._start, _no_error(self._start))
        self._run.over(carry, (anything, np.ones(steps, bool)), self._feed, gathered, rows)
        after = _carried.carried(self._maps, gathered.rest[1])
        before = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
        trace, open_from = self._over(form, (before, np.zeros(steps, bool)))
        return self._sharpened(trace, after), open_from

    def _over(self, form: Format, xs: Any) -> tuple[Trace, int | None]:
        """In pieces, and not beyond the point from which on rounding decides."""
        recording, kept = self._recording, self._recording.kept
        steps = len(self._feed.order)
        losses, pieces, open_from = np.full(steps, np.inf), [], None
        carry: Any = (form, self._start, _no_error(self._start))
        for rows in slices(0, steps, recording, _WIDE):
            length = rows.stop - rows.start
            gathered = Gathered(length)
            given = jax.tree.map(lambda leaf: leaf[rows], xs)  # noqa: B023
            carry = self._run.over(
                carry, given, self._feed.of_steps(np.arange(steps)[rows]), gathered, slice(0, length)
            )
            trace = gathered.trace()
            losses[rows] = trace.losses
            pieces.append((trace, np.flatnonzero(np.isin(np.arange(steps)[rows], kept))))
            beyond = np.flatnonzero(~(trace.losses <= gathered.rest[0]))
            if beyond.size and open_from is None:
                open_from = rows.start + int(beyond[0])
            if beyond.size == length:
                break
        return _joined(pieces, losses, recording), open_from

    def _sharpened(self, trace: Trace, after: Array) -> Trace:
        """Weights and optimizer state with what is known from the maps."""
        named = jax.vmap(lambda row: self._named(row))(after[self._recording.kept])
        weights, state = jax.tree.map(np.asarray, named)
        return dataclasses.replace(
            trace,
            weights={name: np.minimum(values, weights[name]) for name, values in trace.weights.items()},
            state=jax.tree.map(np.minimum, trace.state, {key: state[key] for key in trace.state}),
        )

    def _named(self, row: Any) -> Any:
        params, state = self._flat.tree(row, self._start[:2])
        keys = tuple(self._recording.observed.state)
        return self._names.from_port(params), named_state(self._names, state, params, keys)

    def _linear_maps(self) -> Array | None:
        """The linear map of each step, where the step is affine in parameters and optimizer state."""
        params, kept, state = self._start
        recording, port = self._recording, self._port
        if state is not None or recording.thinned is not None:
            return None

        def gradient(params: Any, batch: Any, parts: Parts) -> Any:
            return forward_backward(port, params, None, batch, parts)[2]

        def advance(kept: Any, _: Any) -> Any:
            return update(port, jax.tree.map(jnp.zeros_like, params), kept, params)[1], kept

        # Of an affine step the map may depend on the number of the step, and on nothing else in the state.
        _, states = jax.jit(lambda kept: lax.scan(advance, kept, length=len(self._feed.order)))(kept)
        batches = list(zip(self._feed.batches, self._feed.parts, strict=True))
        return _affine.step_maps(
            gradient, lambda *given: update(port, *given), params, states, batches, self._feed.order
        )


def _joined(pieces: list[tuple[Trace, Array]], losses: Array, recording: Recording) -> Trace:
    """The kept rows of all pieces; infinite at kept steps that were not reached."""
    reached = sum(len(rows) for _, rows in pieces)
    missing = len(recording.kept) - reached

    def together(*parts: Array) -> Array:
        rows = [part[chosen] for part, (_, chosen) in zip(parts, pieces, strict=True)]
        if missing:
            rows.append(np.broadcast_to(np.inf, (missing, *parts[0].shape[1:])))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    predictions = [trace.predictions[row] for trace, rows in pieces for row in rows]
    predictions += [
        jax.tree.map(lambda leaf: np.broadcast_to(np.inf, np.shape(leaf)), tree)
        for tree in recording.observed.predictions[reached:]
    ]
    traces = [trace for trace, _ in pieces]
    return Trace(
        predictions=tuple(predictions),
        losses=losses,
        gradients=jax.tree.map(together, *[trace.gradients for trace in traces]),
        state=jax.tree.map(together, *[trace.state for trace in traces]),
        weights=jax.tree.map(together, *[trace.weights for trace in traces]),
        buffers=jax.tree.map(together, *[trace.buffers for trace in traces]),
    )
