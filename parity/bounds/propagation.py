"""A port's steps followed with what rounding can do to them, from what was recorded or on their own."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import PyTree
from parity.bounds import affine_steps, elementwise_optimizer, torch_optimizers, zonotope
from parity.porting import optax_state
from parity.recording.recording import Array, Recording, Trace
from parity.replay import locked_inputs
from parity.replay.batches import Parts
from parity.replay.locked_inputs import StepArguments
from parity.replay.scan_loop import ScanLoop, StepRecorder
from parity.replay.session import Session
from parity.replay.step import Carry
from parity.rounding import Format, bound

_logger = logging.getLogger(__name__)
_FLOAT64 = np.dtype(np.float64)
# Numbers that all steps together are fed and hold, below which compiling takes longer than computing.
_QUICK_COMPILE_NUMBERS = 20_000_000
# Numbers that all steps of a training make, below which they are laid out at once.
_SINGLE_SCAN_NUMBERS = 5_000_000
# How many more roundings than the port an optimizer makes at a step whose rule is not written down here.
_UNKNOWN_RULE_ROUNDINGS = 4.0


class BoundPropagation:
    """A port's steps on a recording, with bounds: from what was recorded, which is exact, or on its own.

    Both are one program, since compiling it takes longer than running it.
    """

    def __init__(self, session: Session, doubt: float = 0.0) -> None:
        self._session, self._doubt = session, doubt
        self._names, self._recording = session.names, session.recording
        inputs = self._inputs = session.inputs(_FLOAT64)
        self._recorded, self._own, self._start = inputs.recorded, inputs.own, inputs.start
        recording = session.recording
        self._torch_optimizer = torch_optimizers.of(recording)
        flat = elementwise_optimizer.of(session.step.optimizer, self._start.params)
        self._update = session.step.update if flat is None else flat.update
        self._flat_tree = affine_steps.FlatTree((self._start.params, self._start.optimizer))
        size = affine_steps.FlatTree(self._start).size
        fed = max(sum(np.size(leaf) for leaf in jax.tree.leaves(batch)) for batch in self._recorded.batches)
        self._at_once = (
            self._recorded.uniform
            and self._own.uniform
            and recording.thinned is None
            and recording.steps * (size + self._made()) < _SINGLE_SCAN_NUMBERS
        )
        self.quick = recording.steps * (size + fed) < _QUICK_COMPILE_NUMBERS
        self._loop = ScanLoop(self._bounded, quick=self.quick)
        self._maps = self._linear_maps() if self._at_once else None

    def _made(self) -> int:
        return sum(np.size(leaf) for leaf in jax.tree.leaves(self._recording.observed.predictions[0]))

    def _bounded(self, carry: PyTree, x: PyTree, batch: PyTree, parts: Parts) -> PyTree:
        (form, likely, is_locked, alone), (params, kept, state), off = carry
        (weights, gradients, buffers), limit, (constants, uncertain, first) = x
        if limit is not None:
            # What the error is where it is known better, and whether only what the step itself adds is asked for.
            moved, kept_off = jax.tree.map(jnp.minimum, off[:2], self._flat_tree.tree(limit, off[:2]))
            off = jax.tree.map(lambda e: jnp.where(alone, 0.0, e), Carry(moved, kept_off, off.model))
        params = _either(is_locked, self._names.to_port(weights), params)
        state = _either(is_locked, self._session.model_state(buffers, weights), state)
        exact = _either(is_locked, _no_error((params, state)), (off.params, off.model))
        off = off._replace(optimizer=self._doubtful(off.optimizer, kept))
        # What Python worked out in double precision is rounded to the format as it is used.
        uncertain = jax.tree.map(lambda value, error: error + form.unit * jnp.abs(value), constants, uncertain)
        follow = bound(
            lambda inner, gradients, is_locked, batch, constants: self._step(
                inner, gradients, is_locked, batch, parts, constants, first
            ),
            precision=form,
            input_bounds=(Carry(exact[0], off.optimizer, exact[1]), None, None, None, uncertain),
            narrow=False,
            probabilistic=likely,
        )
        inner = Carry(params, kept, state)
        given = (inner, self._names.to_port(gradients), is_locked, batch, constants)
        (after, made, _), (off, errors, theirs) = follow(*given)
        off, errors = self._with_torch(form, off, errors, theirs, inner, after)
        inner = after
        told = (jnp.abs(made.loss), self._flat_tree.vector(off[:2]) if limit is not None else jnp.zeros(0))
        return ((form, likely, is_locked, alone), _plain(inner), _plain(off)), (*errors, told)

    def _step(
        self,
        inner: PyTree,
        gradients: PyTree,
        is_locked: bool | jax.Array,
        batch: PyTree,
        parts: Parts,
        constants: PyTree,
        first: PyTree,
    ) -> PyTree:
        """Make one step, fed its own gradients or the recorded ones; what it makes is by PyTorch's names.

        The last of its three results are weights and optimizer state by PyTorch's own rule, if that is known.
        """
        params, kept, state = inner
        passed = self._session.step.forward_backward(params, state, batch, parts)
        taken = _either(is_locked, gradients, passed.gradients)
        moved, after = self._update(taken, kept, params)
        names, before = self._names, self._session.named_state(kept, params)
        made = self._session.named(passed, moved, after, params)
        theirs: PyTree = None
        torch = self._torch_optimizer
        if torch is not None and torch.has_state(before):
            theirs = torch.update(names.from_port(params), names.from_port(taken), before, constants, first)
        return Carry(moved, after, passed.model), made, theirs

    def _with_torch(
        self, form: Format, off: PyTree, errors: PyTree, theirs: PyTree, before: PyTree, after: PyTree
    ) -> PyTree:
        """Return the errors of weights and optimizer state, at least those that PyTorch's own rule may make."""
        names = self._names
        *others, state, weights = errors
        if theirs is None:
            moved, kept = jax.tree.map(functools.partial(_more, form), off[:2], before[:2], after[:2])
        else:
            more = {**weights, **{name: jnp.maximum(weights[name], error) for name, error in theirs[0].items()}}
            moved = names.to_port(more)
            trees = {
                key: names.to_port({**{n: jnp.zeros_like(w) for n, w in weights.items()}, **state.get(key, {}), **some})
                for key, some in theirs[1].items()
            }
            largest = optax_state.put(off[1], before[0], trees, 0)
            kept = jax.tree.map(jnp.maximum, off[1], largest)
        kept = self._doubtful(kept, after.optimizer)
        state, weights = self._session.named_state(kept, before.params), names.from_port(moved)
        return Carry(moved, kept, off.model), (*others, state, weights)

    def _doubtful(self, error: PyTree, state: PyTree) -> PyTree:
        """Return the optimizer's errors and what its state is in doubt by."""
        if not self._doubt:
            return error
        return jax.tree.map(lambda off, leaf: off + self._doubt * jnp.abs(leaf), error, state)

    def _constants(self, steps: Array) -> PyTree:
        """Return what PyTorch's rule needs beside tensors, a row for each of these steps."""
        values, errors = ([], []) if self._torch_optimizer is None else self._torch_optimizer.constants(steps)
        return values, errors, steps == 0

    def _carry(self, form: Format, start: PyTree, *, likely: bool = False, locked: bool, alone: bool = False) -> PyTree:
        flags = (jnp.asarray(likely), jnp.asarray(locked), jnp.asarray(alone))
        return (_plain(form), *flags), _plain(start), self._stored(form, start)

    def _stored(self, form: Format, start: PyTree) -> PyTree:
        """Return the error of what a step starts with: of the optimizer's own numbers that the format cannot hold.

        A learning rate or beta that ``optax.inject_hyperparams`` keeps in the state is rounded before the first step;
        weights and the model's state come from the recording, or are in its dtype already.
        """
        params, kept, state = start

        def rounded(leaf: jax.Array) -> PyTree:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                return jnp.zeros(jnp.shape(leaf))
            inexact = jnp.asarray(leaf, self._recording.dtype).astype(leaf.dtype) != leaf
            return jnp.where(inexact, form.unit * jnp.abs(leaf), 0.0)

        return Carry(_no_error(params), jax.tree.map(rounded, kept), _no_error(state))

    # -- locked

    def locked(self, form: Format, *, likely: bool = False) -> Trace:
        """Bound all kept steps from what was recorded; the error of the optimizer's state is carried along."""
        recording, kept, recorder = self._recording, self._recording.kept, StepRecorder(len(self._recording.kept))
        if self._at_once:
            rows = slice(0, len(kept))
            xs = (
                self._inputs.step_inputs(rows),
                self._no_limits(),
                self._constants(recording.kept),
            )
            carry = self._carry(form, self._from_initial(), likely=likely, locked=True)
            self._loop.run(carry, xs, self._recorded, recorder, rows)
            return recorder.trace()
        carry = self._carry(form, self._from_initial(), likely=likely, locked=True)
        sequence = locked_inputs.state_source(self._session, _FLOAT64).sequence
        for row, (state, recorded, batch, parts) in enumerate(self.arguments()):
            # A state that was recorded is exact; one that recorded gradients led to brings its error along.
            if row >= sequence:
                inner = carry[1]._replace(optimizer=state)
                carry = (carry[0], inner, self._stored(form, inner))
            carry, made = self._loop.one(carry, (recorded, None, self._constants(recording.kept[row])), batch, parts)
            recorder.add(slice(row, row + 1), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
        return recorder.trace()

    def arguments(self) -> Iterator[StepArguments]:
        """Yield the arguments of every kept step, from what was recorded."""
        return locked_inputs.arguments(self._session, _FLOAT64)

    def _from_initial(self) -> PyTree:
        return Carry(self._inputs.params, self._inputs.optimizer_state, self._start.model)

    # -- free

    def free(self, form: Format) -> tuple[Trace, int | None]:
        """Bound all steps of the port on its own, and return the first one too at which the loss is open."""
        if not self._at_once:
            return self._one_by_one(form)
        limits, after = self._no_limits(), None
        if self._maps is not None:
            local = self._whole(form, limits, alone=True).rest[1]
            after = zonotope.propagate_linear(self._maps, local)
            limits = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
        recorder = self._whole(form, limits)
        trace, size = recorder.trace(), recorder.rest[0]
        open_at = np.flatnonzero(~(trace.losses <= size))
        trace = trace if after is None else self._cap_by_maps(trace, after)
        return trace, int(open_at[0]) if open_at.size else None

    def _whole(self, form: Format, limits: Array | None, *, alone: bool = False) -> StepRecorder:
        recording, rows = self._recording, slice(0, self._recording.steps)
        recorder = StepRecorder(recording.steps)
        xs = (self._inputs.step_inputs(rows), limits, self._constants(np.arange(recording.steps)))
        self._loop.run(self._carry(form, self._start, locked=False, alone=alone), xs, self._own, recorder, rows)
        return recorder

    def _no_limits(self) -> Array | None:
        return None if self._maps is None else np.full((self._recording.steps, self._flat_tree.size), np.inf)

    def _one_by_one(self, form: Format) -> tuple[Trace, int | None]:
        """Bound the port on its own step by step, up to where rounding decides."""
        recording = self._recording
        row_of = {int(step): row for row, step in enumerate(recording.kept)}
        losses, recorder, reached = np.full(recording.steps, np.inf), StepRecorder(len(recording.kept)), 0
        carry = self._carry(form, self._start, locked=False)
        unused = jax.tree.map(jnp.asarray, self._inputs.step_inputs(slice(0, 1)))
        unused = jax.tree.map(lambda leaf: leaf[0], unused)
        for step, place in enumerate(self._own.order):
            x = (unused, None, self._constants(np.asarray(step)))
            carry, made = self._loop.one(carry, x, self._own.batches[place], self._own.parts[place])
            losses[step], size = float(made[1]), float(made[-1][0])
            if not losses[step] <= size:
                _logger.debug("From step %d on rounding may move the loss by all of it: no bound goes further.", step)
                return _open(recording, losses, recorder, reached), step
            if step in row_of:
                reached = row_of[step] + 1
                recorder.add(slice(reached - 1, reached), jax.tree.map(lambda leaf: np.asarray(leaf)[None], made))
        return dataclasses.replace(recorder.trace(), losses=losses), None

    def _cap_by_maps(self, trace: Trace, after: Array) -> Trace:
        """Return weights and optimizer state with what is known from the maps."""

        def named(row: jax.Array) -> PyTree:
            params, state = self._flat_tree.tree(row, (self._start.params, self._start.optimizer))
            return self._names.from_port(params), self._session.named_state(state, params)

        weights, state = jax.tree.map(np.asarray, jax.jit(jax.vmap(named))(after))
        return dataclasses.replace(
            trace,
            weights={name: np.minimum(values, weights[name]) for name, values in trace.weights.items()},
            state=jax.tree.map(np.minimum, trace.state, {key: state[key] for key in trace.state}),
        )

    def _linear_maps(self) -> Array | None:
        """Return the linear map of each step, where the step is affine in parameters and optimizer state."""
        params, kept, state = self._start
        step, order = self._session.step, self._own.order
        if state is not None:
            return None

        def gradient(params: PyTree, batch: PyTree, parts: Parts) -> PyTree:
            return step.forward_backward(params, None, batch, parts).gradients

        def advance(kept: PyTree, _: PyTree) -> PyTree:
            return step.update(jax.tree.map(jnp.zeros_like, params), kept, params)[1], kept

        # Of an affine step the map may depend on the number of the step, and on nothing else in the state.
        _, states = jax.jit(lambda kept: lax.scan(advance, kept, length=len(order)))(kept)
        batches = list(zip(self._own.batches, self._own.parts, strict=True))
        return affine_steps.step_maps(gradient, step.update, params, states, batches, order)


def _more(form: Format, error: PyTree, before: PyTree, after: PyTree) -> PyTree:
    """Return an error and some roundings more; what is counted in whole numbers is not rounded."""
    if not jnp.issubdtype(jnp.result_type(after), jnp.floating):
        return error
    return error + _UNKNOWN_RULE_ROUNDINGS * form.unit * (jnp.abs(before) + jnp.abs(after))


def _either(flag: bool | jax.Array, first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), first, second)


def _plain(tree: PyTree) -> PyTree:
    """Return the same in types that do not change from step to step, so that nothing is compiled twice."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf).name), tree)


def _no_error(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), tree)


def _open(recording: Recording, losses: Array, recorder: StepRecorder, reached: int) -> Trace:
    """Return what was recorded of the first ``reached`` kept steps, and infinity for the others."""

    def filled(like: Array, values: Array | None) -> Array:
        rest = np.broadcast_to(np.inf, (len(like) - reached, *like.shape[1:]))
        return rest if values is None else np.concatenate([values[:reached], rest])

    whole = recording.observed
    known = recorder.trace() if reached else Trace((), losses, {}, {}, {})
    state = {
        key: {name: filled(like, known.state.get(key, {}).get(name)) for name, like in tensors.items()}
        for key, tensors in whole.state.items()
    }
    return Trace(
        predictions=(*known.predictions[:reached], *whole.predictions[reached:]),
        losses=losses,
        gradients={name: filled(like, known.gradients.get(name)) for name, like in whole.gradients.items()},
        state=state,
        weights={name: filled(like, known.weights.get(name)) for name, like in whole.weights.items()},
        buffers={},
    )
