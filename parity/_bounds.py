"""How far rounding alone can move each value of a training: derived from the port's own program."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity import _affine, _names, rounding
from parity._ports import Port
from parity._recording import Array, Recording, Trace
from parity._replay import forward_backward, named_buffers, named_state, resolved, types_of, update
from parity.rounding import Format

# Training runs of at most so many numbers (parameters and optimizer state, all steps) are bounded in one program.
_IN_ONE = 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds in the shape of the traces they hold for: on the distance from the exact value.

    Attributes:
        locked, locked64: of one step from the recorded state, in the recording's dtype and in float64.
        likely: as ``locked``, but what rounding exceeds with a probability of 1e-9 at most, if it is random.
        free, free64: of a training on its own.
        open_from: the first step at which rounding alone may move the free training's loss by more than its own size,
            in the recording's dtype and in float64; ``None`` where that is never so.
    """

    locked: Trace
    locked64: Trace
    likely: Trace
    free: Trace
    free64: Trace
    open_from: tuple[int | None, int | None]


def derive(recording: Recording, port: Port) -> Bounds:
    """The bounds for a recorded training and its port.

    Every operation of the port's program is followed in float64 with what rounding can do to it. Along a free training
    the error is carried from step to step: by the step's own linear map where the step is affine, else entry by entry.

    Raises:
        UnsupportedError: the port's program has a primitive whose rounding is not known; it is named.
    """
    own, double = Format.of(recording.dtype), Format.of(np.dtype(np.float64))
    with types_of(np.dtype(np.float64)), jax.default_device(jax.devices("cpu")[0]):
        walk = _Walk(port, recording)
        locked, locked64, likely = (walk.locked(form) for form in (own, double, own.likely()))
        maps = walk.maps()
        (free, open_own), (free64, open64) = (walk.free(form, maps) for form in (own, double))
    return Bounds(locked, locked64, likely, free, free64, (open_own, open64))


class _Walk:
    """One port on one recording, step by step, with bounds. A step is fed its own gradients, or the recorded ones."""

    def __init__(self, port: Port, recording: Recording) -> None:
        self._port, self._recording = port, recording
        self._names = resolved(port, recording)
        self._batches = batches_of(recording, np.dtype(np.float64))
        own = cast(port.params, np.dtype(np.float64))
        self._start = (own, cast(port.state, np.dtype(np.float64)), port.optimizer.init(own))
        self._flat = _affine.Flat((self._start[0], self._start[2]))
        uniform = len({_shapes(batch) + batch.parts for batch in recording.batches}) == 1
        small = recording.steps * _affine.Flat(self._start).size <= _IN_ONE
        self._in_one = uniform and small and recording.thinned is None
        self._step = jax.jit(self._bounded, static_argnames="parts")
        self._all = jax.jit(self._scan)

    def _bounded(self, mode: Any, carry: Any, recorded: Any, limit: Any, batch: Any, parts: Any) -> Any:
        """One step with its bounds: values and errors go in, values and errors come out."""
        form, locked, local = mode
        (params, state, kept), off = carry
        weights, buffers, gradients = recorded
        if limit is not None:
            tight = self._flat.tree(limit, (off[0], off[2]))
            near = jax.tree.map(jnp.minimum, (off[0], off[2]), tight)
            off = (near[0], off[1], near[1])
        params, state = _either(locked, (weights, buffers), (params, state))
        off = (*_either(locked, jax.tree.map(jnp.zeros_like, off[:2]), off[:2]), off[2])
        off = _either(local, jax.tree.map(jnp.zeros_like, off), off)

        def step(carry: Any, gradients: Any, batch: Any) -> Any:
            params, state, kept = carry
            predictions, value, own, state = forward_backward(self._port, params, state, batch, parts)
            params, kept = update(self._port, _either(locked, gradients, own), kept, params)
            names = self._names
            out = (predictions, value, names.from_port(own), named_state(names, kept), names.from_port(params))
            return (params, state, kept), (*out, named_buffers(names, state))

        exact = jax.tree.map(_no_error, (gradients, batch))
        bounded = rounding.bound(step, precision=form, input_bounds=(off, *exact), narrow=False)
        (carry, _), (off, out) = bounded((params, state, kept), gradients, batch)
        return (carry, off), out

    def _scan(self, mode: Any, carry: Any, recorded: Any, limits: Any, data: Any, order: Any) -> Any:
        parts = self._recording.batches[0].parts

        def body(carry: Any, item: Any) -> Any:
            recorded, limit, place = item
            carry, out = self._bounded(mode, carry, recorded, limit, jax.tree.map(lambda leaf: leaf[place], data), parts)
            return carry, (out, self._flat.vector((carry[1][0], carry[1][2])) if limits is not None else None)

        return lax.scan(body, carry, (recorded, limits, order))[1]

    # -- the two kinds of run

    def locked(self, form: Format) -> Trace:
        """Every step starts from the recorded state; the error in the optimizer's is carried along."""
        mode = (form, True, False)
        if self._in_one:
            return self._whole(mode, None)[0]
        raise NotImplementedError

    def free(self, form: Format, maps: Array | None) -> tuple[Trace, int | None]:
        """The port on its own, from its own start."""
        if not self._in_one:
            raise NotImplementedError
        limits = None
        if maps is not None:
            anything = np.full((self._recording.steps, self._flat.size), np.inf)
            local = self._whole((form, False, True), anything)[1]
            limits = _affine.carried(maps, local)
            limits = np.concatenate([np.zeros_like(limits[:1]), limits[:-1]])
        trace, _ = self._whole((form, False, False), limits)
        if maps is not None:
            ...
        return trace, None

    def _whole(self, mode: Any, limits: Any) -> tuple[Trace, Any]:
        recording = self._recording
        data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self._batches)
        carry = (self._start, jax.tree.map(_no_error, self._start))
        out, off = self._all(mode, carry, self._recorded(), limits, data, jnp.asarray(recording.batch_of_step))
        return _trace(out), off

    def maps(self) -> Array | None:
        """The linear map of each step, where the step is affine in parameters and optimizer state."""
        recording, port = self._recording, self._port
        params, state, kept = self._start
        if state is not None or not self._in_one:
            return None

        def gradient(params: Any, batch: Any) -> Any:
            return forward_backward(port, params, None, batch, recording.batches[0].parts)[2]

        def advance(kept: Any, _: Any) -> Any:
            return update(port, jax.tree.map(jnp.zeros_like, params), kept, params)[1], kept

        _, states = jax.jit(lambda kept: lax.scan(advance, kept, length=recording.steps))(kept)
        return _affine.step_maps(
            gradient, lambda *given: update(port, *given), params, states, self._batches, recording.batch_of_step
        )
