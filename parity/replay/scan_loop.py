"""Running a step over all steps of a recording: one compiled program where the batches' shapes allow."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxreg._plans.training_step import unroll
from parity.recording.recording import Array, Recording, Trace
from parity.replay import locked_inputs
from parity.replay.batches import Feed
from parity.replay.locked_inputs import StateSource
from parity.replay.session import Session
from parity.replay.step import Carry, Step

_LOG = logging.getLogger(__name__)
# Bytes of recorded tensors that are laid out for JAX at once.
_BYTES_AT_ONCE = 2**28


def locked(session: Session, dtype: np.dtype[Any]) -> tuple[Trace, StateSource]:
    """Run each kept step from what was recorded. Optimizer stages that cannot be judged are NaN; see the source."""
    recording, inputs = session.recording, session.inputs(dtype)
    source = locked_inputs.state_source(session, dtype)
    step, feed, template = session.locked_step(), inputs.recorded, inputs.optimizer_state
    kept = len(recording.kept)
    recorder = StepRecorder(kept)

    def injected(carry: Any, x: Any, batch: Any, parts: Any) -> tuple[Any, Any]:
        recorded, state, number = x
        return carry, step(
            locked_inputs.put(session.names, template, inputs.params, state, number), recorded, batch, parts
        )[1]

    carry, loop = template, ScanLoop(step)
    for rows in chunks(0, source.sequence, recording, dtype):
        xs = inputs.step_inputs(rows)
        carry = loop.run(carry, xs, feed.of_steps(recording.kept[rows]), recorder, rows)
    loop = ScanLoop(injected)
    for rows in chunks(source.sequence, kept, recording, dtype):
        number = recording.kept[rows].astype(np.int32)
        given = inputs.step_inputs(rows), inputs.optimizer_states(rows)
        loop.run(0, (*given, number), feed.of_steps(recording.kept[rows]), recorder, rows)
    trace = recorder.trace()
    return (_unjudged(trace, source.sequence) if source.uncovered else trace), source


def chunks(start: int, stop: int, recording: Recording, dtype: np.dtype[Any]) -> list[slice]:
    """Cut rows into pieces of about one size, none of them with more than a bounded number of bytes."""
    if start == stop:
        return []
    size = 2 * sum(values.size for values in recording.initial.values())
    size += sum(values[0].size for some in recording.observed.state.values() for values in some.values())
    number = max(1, -(-(stop - start) * size * dtype.itemsize // _BYTES_AT_ONCE))
    length = -(-(stop - start) // min(number, stop - start))
    return [slice(at, min(at + length, stop)) for at in range(start, stop, length)]


def _unjudged(trace: Trace, judged: int) -> Trace:
    def blank(values: Array) -> Array:
        values = values.copy()
        values[judged:] = np.nan
        return values

    return dataclasses.replace(
        trace, state=jax.tree.map(blank, trace.state), weights=jax.tree.map(blank, trace.weights)
    )


@functools.cache
def quick_options() -> dict[str, Any] | None:
    """Return options that let XLA's CPU compiler skip what makes code fast, or ``None`` if it does not know them."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except Exception:
        _LOG.debug("XLA does not take the options that compile quickly.", exc_info=True)
        return None
    return options


class ScanLoop:
    """A step, compiled once for each shape of what it is fed.

    Args:
        step: the step.
        quick: compile in a fraction of the time to slower code, where there is little to compute.
    """

    def __init__(self, step: Step, *, quick: bool = False) -> None:
        options = quick_options() if quick else None
        self.one = jax.jit(step, static_argnums=3, compiler_options=options)

        def whole(carry: Any, xs: Any, data: Any, order: Any, parts: Any, single: bool) -> Any:
            def body(carry: Any, item: Any) -> tuple[Any, Any]:
                x, place = item
                return step(carry, x, chosen(data, place, single), parts)

            return lax.scan(body, carry, (xs, order))

        self._whole = jax.jit(whole, static_argnums=(4, 5), compiler_options=options)

    def run(self, carry: Any, xs: Any, feed: Feed, recorder: StepRecorder, rows: slice) -> Any:
        """Run the steps of ``xs``, one after the other; what they make goes to ``rows`` of ``recorder``."""
        if feed.uniform:
            order, single = jnp.asarray(feed.order, jnp.int32), len(feed.batches) == 1
            carry, made = self._whole(carry, xs, stacked(feed), order, feed.parts[0], single)
            recorder.add(rows, made)
            return carry
        for row, place in enumerate(feed.order):
            x = jax.tree.map(lambda leaf: leaf[row], xs)  # noqa: B023
            carry, made = self.one(carry, x, feed.batches[place], feed.parts[place])
            at = rows.start + row
            recorder.add(slice(at, at + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
        return carry


def stacked(feed: Feed) -> Any:
    """Stack all batches along a new first axis; a single batch stays as it is, and is not looked up at every step."""
    if len(feed.batches) == 1:
        return jax.tree.map(jnp.asarray, feed.batches[0])
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *feed.batches)


def chosen(data: Any, place: Any, single: bool) -> Any:
    """Return the batch at ``place`` of :func:`stacked` ones."""
    return data if single else jax.tree.map(lambda leaf: leaf[place], data)


def free(session: Session, dtype: np.dtype[Any]) -> tuple[Trace, dict[int, Any]]:
    """Run the port on its own.

    Returns:
        Tensors of the kept steps and losses of all; and weights and buffers after each step that an evaluation follows.
    """
    recording, inputs = session.recording, session.inputs(dtype)
    step, feed, carry = session.free_step(), inputs.own, inputs.start
    asked = {evaluation.step - 1 for evaluation in recording.evaluations if evaluation.step}
    slots = np.array(sorted(set(recording.kept.tolist()) | asked))
    recorder = StepRecorder(len(slots))
    if feed.uniform:
        losses = _free_at_once(step, carry, feed, slots, recorder)
    else:
        losses = _free_one_by_one(step, carry, feed, slots, recorder)
    trace = dataclasses.replace(recorder.trace(), losses=losses)
    after = {
        int(slots[row]) + 1: jax.tree.map(lambda values: values[row], (trace.weights, trace.buffers))  # noqa: B023
        for row in np.flatnonzero(np.isin(slots, list(asked)))
    }
    return _rows(trace, np.flatnonzero(np.isin(slots, recording.kept))), after


def _rows(trace: Trace, rows: Array) -> Trace:
    """Keep the tensors of some of the rows; the losses stay those of all steps."""
    if len(rows) == len(trace.predictions):
        return trace

    def some(tree: Any) -> Any:
        return jax.tree.map(lambda values: values[rows], tree)

    return Trace(
        predictions=tuple(trace.predictions[row] for row in rows),
        losses=trace.losses,
        gradients=some(trace.gradients),
        state=some(trace.state),
        weights=some(trace.weights),
        buffers=some(trace.buffers),
    )


def _free_at_once(step: Step, carry: Any, feed: Feed, slots: Array, recorder: StepRecorder) -> Array:
    """Run one program in which every step writes to the slot of the next kept one, which comes last and stays."""
    # Steps after the last kept one, if any, write to a slot of their own.
    slot_of_step = np.searchsorted(slots, np.arange(len(feed.order)))
    single, parts = len(feed.batches) == 1, feed.parts[0]

    def whole(carry: Any, data: Any, order: Any, places: Any) -> Any:
        def body(carry: Any, item: Any) -> tuple[Any, Any]:
            inner, kept = carry
            at, slot = item
            inner, made = step(inner, None, chosen(data, at, single), parts)
            kept = jax.tree.map(lambda all_, new: lax.dynamic_update_index_in_dim(all_, new, slot, 0), kept, made)
            return (inner, kept), made.loss

        shapes = jax.eval_shape(lambda carry: step(carry, None, chosen(data, 0, single), parts)[1], carry)
        rows = int(slot_of_step.max()) + 1
        empty = jax.tree.map(lambda one: jnp.zeros((rows, *one.shape), one.dtype), shapes)
        (_, kept), losses = lax.scan(body, (carry, empty), (order, places))
        return jax.tree.map(lambda values: values[: len(slots)], kept) if rows > len(slots) else kept, losses

    order, places = (jnp.asarray(values, jnp.int32) for values in (feed.order, slot_of_step))
    kept, losses = jax.jit(whole)(carry, stacked(feed), order, places)
    recorder.add(slice(0, len(slots)), kept)
    return np.asarray(losses)


def _free_one_by_one(step: Step, carry: Any, feed: Feed, slots: Array, recorder: StepRecorder) -> Array:
    """Run a program for each shape of the batches."""
    compiled = jax.jit(step, static_argnums=3)
    losses, row_of = [], {int(step): row for row, step in enumerate(slots)}
    for number, place in enumerate(feed.order):
        carry, made = compiled(carry, None, feed.batches[place], feed.parts[place])
        losses.append(made.loss)
        if (row := row_of.get(number)) is not None:
            recorder.add(slice(row, row + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
    return np.array([np.asarray(loss) for loss in losses])


class StepRecorder:
    """What steps made, row by row, on the host. Predictions stay apart: their shapes may differ from step to step."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._predictions: list[Any] = []
        self._kept: Any = None

    def add(self, rows: slice, made: Any) -> None:
        """Keep what the steps of ``rows`` made, with a leading axis."""
        predictions, *others = jax.tree.map(np.asarray, made)
        self._predictions += [jax.tree.map(lambda leaf: leaf[i], predictions) for i in range(rows.stop - rows.start)]  # noqa: B023
        if rows == slice(0, self._rows):
            self._kept = others
            return
        if self._kept is None:
            self._kept = jax.tree.map(lambda leaf: np.empty((self._rows, *leaf.shape[1:]), leaf.dtype), others)
        for whole, part in zip(jax.tree.leaves(self._kept), jax.tree.leaves(others), strict=True):
            whole[rows] = part

    @property
    def rest(self) -> Any:
        """What was made beyond a trace."""
        return self._kept[5]

    def trace(self) -> Trace:
        """Return all rows; the losses are theirs alone."""
        losses, gradients, buffers, state, weights, *_ = self._kept
        return Trace(tuple(self._predictions), losses, gradients, state, weights, buffers)


def losses_only(session: Session) -> tuple[Any, Any]:
    """Return the training on the recorded batches as a function that keeps the losses, and its arguments."""
    recording, inputs = session.recording, session.inputs(session.recording.dtype)
    feed, start = inputs.recorded, inputs.start
    single = len(feed.batches) == 1

    def step(carry: Carry, batch: Any, parts: Any) -> tuple[Carry, Any]:
        made = session.step.forward_backward(carry.params, carry.model, batch, parts)
        return Carry(*session.step.update(made.gradients, carry.optimizer, carry.params), made.model), made.loss

    if not feed.uniform:
        compiled = jax.jit(step, static_argnums=2)

        def by_steps(carry: Any) -> Any:
            losses = []
            for place in feed.order:
                carry, value = compiled(carry, feed.batches[place], feed.parts[place])
                losses.append(value)
            return (carry[0], carry[1:]), jnp.stack(losses)

        by_steps(start)
        return by_steps, (start,)

    def whole(carry: Any, data: Any, order: Any) -> Any:
        def body(carry: Any, place: Any) -> tuple[Any, Any]:
            return step(carry, chosen(data, place, single), feed.parts[0])

        carry, losses = lax.scan(body, carry, order, unroll=unroll(recording.steps, data))
        return (carry[0], carry[1:]), losses

    arguments = start, stacked(feed), jnp.asarray(feed.order, jnp.int32)
    return jax.jit(whole).lower(*arguments).compile(), arguments
