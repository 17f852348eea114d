"""Running a step over all steps of a recording: one compiled program where the batches' shapes allow."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxreg._plans.training_step import unroll
from parity.porting.parameter_names import Names
from parity.porting.port import Port, of_arrays
from parity.recording.recording import Array, Recording, Trace
from parity.replay import batches, locked_inputs
from parity.replay.batches import Feed
from parity.replay.step import Step, forward_backward, free_start, free_step, locked_step, update

# Bytes of recorded tensors that are laid out for JAX at once.
_AT_ONCE = 2**28


def locked(port: Port, names: Names, recording: Recording, dtype: np.dtype[Any]) -> tuple[Trace, locked_inputs.Plan]:
    """Each kept step from what was recorded. Optimizer stages that cannot be judged are NaN; see the plan."""
    plan = locked_inputs.plan(port, names, recording, dtype)
    step = locked_step(port, names, tuple(recording.observed.state))
    feed = batches.recorded(recording, dtype)
    params = names.to_port(batches.cast(dict(recording.initial), dtype))
    template = port.optimizer.init(params)
    kept = len(recording.kept)
    gathered = Gathered(kept)

    def injected(carry: Any, x: Any, batch: Any, parts: Any) -> tuple[Any, Any]:
        recorded, state, number = x
        return carry, step(locked_inputs.put(names, template, params, state, number), recorded, batch, parts)[1]

    carry = template
    run = Run(step)
    for rows in slices(0, plan.sequence, recording, dtype):
        xs = locked_inputs.recorded_rows(recording, dtype, rows)
        carry = run.over(carry, xs, feed.of_steps(recording.kept[rows]), gathered, rows)
    run = Run(injected)
    for rows in slices(plan.sequence, kept, recording, dtype):
        number = recording.kept[rows].astype(np.int32)
        xs = (
            locked_inputs.recorded_rows(recording, dtype, rows),
            locked_inputs.state_rows(recording, dtype, rows),
            number,
        )
        run.over(0, xs, feed.of_steps(recording.kept[rows]), gathered, rows)
    trace = gathered.trace()
    return (_unjudged(trace, plan.sequence) if plan.uncovered else trace), plan


def slices(start: int, stop: int, recording: Recording, dtype: np.dtype[Any]) -> list[slice]:
    """Rows in pieces of about one size, none of them with more than a bounded number of bytes."""
    if start == stop:
        return []
    size = 2 * sum(values.size for values in recording.initial.values())
    size += sum(values[0].size for some in recording.observed.state.values() for values in some.values())
    number = max(1, -(-(stop - start) * size * dtype.itemsize // _AT_ONCE))
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
    """Options that let XLA's CPU compiler skip what makes code fast; ``None`` where this version does not know them."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except Exception:
        return None
    return options


class Run:
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

    def over(self, carry: Any, xs: Any, feed: Feed, gathered: Gathered, rows: slice) -> Any:
        """The steps of ``xs``, one after the other; what they make goes to ``rows`` of ``gathered``."""
        if feed.uniform:
            order, single = jnp.asarray(feed.order, jnp.int32), len(feed.batches) == 1
            carry, made = self._whole(carry, xs, stacked(feed), order, feed.parts[0], single)
            gathered.add(rows, made)
            return carry
        for row, place in enumerate(feed.order):
            x = jax.tree.map(lambda leaf: leaf[row], xs)  # noqa: B023
            carry, made = self.one(carry, x, feed.batches[place], feed.parts[place])
            at = rows.start + row
            gathered.add(slice(at, at + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
        return carry


def stacked(feed: Feed) -> Any:
    """All batches along a new first axis; a single batch as it is, so that it is not looked up anew at every step."""
    if len(feed.batches) == 1:
        return jax.tree.map(jnp.asarray, feed.batches[0])
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *feed.batches)


def chosen(data: Any, place: Any, single: bool) -> Any:
    """The batch at ``place`` of :func:`stacked` ones."""
    return data if single else jax.tree.map(lambda leaf: leaf[place], data)


def free(port: Port, names: Names, recording: Recording, dtype: np.dtype[Any]) -> tuple[Trace, dict[int, Any]]:
    """The port on its own: tensors of the kept steps, and weights and buffers after each step an evaluation follows."""
    step = free_step(port, names, tuple(recording.observed.state))
    feed = batches.own(port, recording, dtype)
    asked = {evaluation.step - 1 for evaluation in recording.evaluations if evaluation.step}
    slots = np.array(sorted(set(recording.kept.tolist()) | asked))
    carry = free_start(port, dtype)
    gathered = Gathered(len(slots))
    if feed.uniform:
        losses = _free_at_once(step, carry, feed, slots, gathered)
    else:
        losses = _free_one_by_one(step, carry, feed, slots, gathered)
    trace = dataclasses.replace(gathered.trace(), losses=losses)
    after = {
        int(slots[row]) + 1: jax.tree.map(lambda values: values[row], (trace.weights, trace.buffers))  # noqa: B023
        for row in np.flatnonzero(np.isin(slots, list(asked)))
    }
    return _rows(trace, np.flatnonzero(np.isin(slots, recording.kept))), after


def _rows(trace: Trace, rows: Array) -> Trace:
    """Tensors of some of the rows; the losses stay those of all steps."""
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


def _free_at_once(step: Step, carry: Any, feed: Feed, slots: Array, gathered: Gathered) -> Array:
    """One program. Every step writes to the slot of the next kept one, which comes last and stays."""
    # Steps after the last kept one, if any, write to a slot of their own.
    slot_of_step = np.searchsorted(slots, np.arange(len(feed.order)))
    single, parts = len(feed.batches) == 1, feed.parts[0]

    def whole(carry: Any, data: Any, order: Any, places: Any) -> Any:
        def body(carry: Any, item: Any) -> tuple[Any, Any]:
            inner, kept = carry
            at, slot = item
            inner, made = step(inner, None, chosen(data, at, single), parts)
            kept = jax.tree.map(lambda all_, new: lax.dynamic_update_index_in_dim(all_, new, slot, 0), kept, made)
            return (inner, kept), made[1]

        shapes = jax.eval_shape(lambda carry: step(carry, None, chosen(data, 0, single), parts)[1], carry)
        rows = int(slot_of_step.max()) + 1
        empty = jax.tree.map(lambda one: jnp.zeros((rows, *one.shape), one.dtype), shapes)
        (_, kept), losses = lax.scan(body, (carry, empty), (order, places))
        return jax.tree.map(lambda values: values[: len(slots)], kept) if rows > len(slots) else kept, losses

    order, places = (jnp.asarray(values, jnp.int32) for values in (feed.order, slot_of_step))
    kept, losses = jax.jit(whole)(carry, stacked(feed), order, places)
    gathered.add(slice(0, len(slots)), kept)
    return np.asarray(losses)


def _free_one_by_one(step: Step, carry: Any, feed: Feed, slots: Array, gathered: Gathered) -> Array:
    """A program for each shape of the batches."""
    compiled = jax.jit(step, static_argnums=3)
    losses, row_of = [], {int(step): row for row, step in enumerate(slots)}
    for number, place in enumerate(feed.order):
        carry, made = compiled(carry, None, feed.batches[place], feed.parts[place])
        losses.append(made[1])
        if (row := row_of.get(number)) is not None:
            gathered.add(slice(row, row + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
    return np.array([np.asarray(loss) for loss in losses])


class Gathered:
    """What steps made, row by row, on the host. Predictions stay apart: their shapes may differ from step to step."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._predictions: list[Any] = []
        self._kept: Any = None

    def add(self, rows: slice, made: Any) -> None:
        """What the steps of ``rows`` made, with a leading axis."""
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
        """All rows; the losses are theirs alone."""
        losses, gradients, buffers, state, weights, *_ = self._kept
        return Trace(tuple(self._predictions), losses, gradients, state, weights, buffers)


def losses_only(port: Port, recording: Recording) -> tuple[Any, Any]:
    """The training on the recorded batches as a function that keeps the losses, and its arguments."""
    dtype = recording.dtype
    port, feed = of_arrays(port), batches.recorded(recording, dtype)
    start, single = free_start(port, dtype), len(feed.batches) == 1

    def step(carry: Any, batch: Any, parts: Any) -> tuple[Any, Any]:
        params, state, own = carry
        _, value, gradients, own = forward_backward(port, params, own, batch, parts)
        return (*update(port, gradients, state, params), own), value

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
