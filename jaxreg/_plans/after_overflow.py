"""The end of a training that diverges: from where it could overflow, step by step in the model's own dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int32

from jaxreg._optim import optax_step
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Carry, Data, Kept, Outcome, one_step
from jaxreg._types import AnyArray, Array, GraphDef, HostArray, Loss, Optimizer, OptState, Params, PyTree

# Steps between two looks at whether all is NaN.
_BLOCK_STEPS = 64
# Steps of one call, which nothing can interrupt: a few seconds.
CALL_STEPS = 1 << 20
# Larger than any step of a call, and an int32.
_FAR_STEP = 1 << 30


class Overflow(NamedTuple):
    """Where a training could overflow: the step, and parameters and optimizer state before it."""

    step: int
    params: Params
    state: OptState


class AskedSteps(NamedTuple):
    """What is kept of the steps that were asked for, of one training or of each of many.

    Attributes:
        asked: the steps, ascending, counted from where the call begins; then a block of numbers that are none.
        place: of the first among them that is not reached yet.
        seen: losses, gradients, weights, with an axis as long as ``asked``; NaN where nothing was seen.
    """

    asked: Int32[AnyArray, "*trainings asked"]
    place: Int32[AnyArray, "*trainings"]
    seen: Kept


def run_block(
    step: Callable[[Carry], tuple[Carry, Kept]],
    carry: Carry,
    kept: AskedSteps,
    number: Int32[Array, ""],
    left: Int32[AnyArray, ""],
) -> tuple[Carry, AskedSteps, Bool[Array, ""]]:
    """Make the block of steps that begins with ``number``, to be traced; past ``left`` of them nothing changes.

    Returns:
        What the last step leaves, what is kept, and whether there is nothing left but NaN.
    """

    def body(carry: Carry, k: Array) -> tuple[Carry, Kept]:
        after, seen = step(carry)
        next_carry: Carry = jax.tree.map(lambda new, old: jnp.where(number + k < left, new, old), after, carry)
        return next_carry, seen

    carry, seen = lax.scan(body, carry, jnp.arange(_BLOCK_STEPS, dtype=np.int32))
    # A block holds no more of the steps asked for than it has itself.
    since = lax.dynamic_slice_in_dim(kept.asked, kept.place, _BLOCK_STEPS) - number
    hit, rows = (since >= 0) & (since < _BLOCK_STEPS), jnp.clip(since, 0, _BLOCK_STEPS - 1)

    def put(into: Array, new: Array) -> Array:
        old = lax.dynamic_slice_in_dim(into, kept.place, _BLOCK_STEPS)
        chosen = jnp.where(hit.reshape(-1, *[1] * (new.ndim - 1)), new[rows], old)
        return lax.dynamic_update_slice_in_dim(into, chosen, kept.place, 0)

    place = kept.place + jnp.sum(hit, dtype=np.int32)
    lost = [jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves((carry[0], seen[0][-1:]))]
    return carry, AskedSteps(kept.asked, place, jax.tree.map(put, kept.seen, seen)), jnp.all(jnp.stack(lost))


# What goes through the loop over blocks: the number of the first step, the trainings, and which have nothing but NaN.
_Blocks = tuple[Array, Carry, AskedSteps, Array]


def run_blocks(
    one: Callable[[Carry, AskedSteps, Array], tuple[Carry, AskedSteps, Array]],
    carry: Carry,
    kept: AskedSteps,
    left: Int32[AnyArray, "*trainings"],
) -> tuple[Carry, AskedSteps, Bool[Array, "*trainings"]]:
    """Make block after block by ``one(carry, kept, number)``, until no training has steps left or is alive."""

    def goes_on(now: _Blocks) -> Array:
        number, _, _, lost = now
        return jnp.any((number < left) & ~lost)

    def body(now: _Blocks) -> _Blocks:
        number, carry, kept, _ = now
        return number + _BLOCK_STEPS, *one(carry, kept, number)

    start = (jnp.zeros((), np.int32), carry, kept, jnp.zeros(jnp.shape(left), bool))
    _, carry, kept, lost = lax.while_loop(goes_on, body, start)
    return carry, kept, lost


def count_from(asked: HostArray, begin: int) -> tuple[Int32[HostArray, " asked"], Int32[HostArray, ""]]:
    """Return :class:`AskedSteps`'s ``asked`` and ``place`` for the call that begins with this step."""
    near = np.clip(asked - begin, -1, _FAR_STEP).astype(np.int32)
    return np.concatenate([near, np.full(_BLOCK_STEPS, -1, np.int32)]), np.asarray(
        np.searchsorted(asked, begin), np.int32
    )


def nothing_seen(shapes: PyTree, axes: tuple[int, ...]) -> Kept:
    """Return NaN in place of all that will be seen, with leading axes, of which the last is for the steps."""
    axes = (*axes[:-1], axes[-1] + _BLOCK_STEPS)
    seen: Kept = jax.tree.map(lambda leaf: jnp.full((*axes, *leaf.shape), jnp.nan, leaf.dtype), shapes)
    return seen


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "record"))
def _run_call(
    carry: Carry,
    kept: AskedSteps,
    left: Int32[AnyArray, ""],
    data: Data,
    graph: GraphDef,
    optimizer: Optimizer,
    loss: Loss,
    record: frozenset[str],
) -> tuple[Carry, AskedSteps, Bool[Array, ""]]:
    step = one_step(graph, optimizer, loss, record)
    one = lambda carry, kept, number: run_block(lambda now: step(now, data), carry, kept, number, left)  # noqa: E731
    return run_blocks(one, carry, kept, left)


def run_after_overflow(carry: Carry, request: Request, *, steps: int, asked: HostArray) -> Outcome:
    """Train on for ``steps`` steps, or until there is nothing left but NaN.

    ``asked`` are the steps to keep something of, ascending, each once, counted from here.
    """
    how = (request.split[0], request.optimizer, request.loss, request.record)
    data, step = request.data_on_device(), one_step(*how)
    shapes = jax.eval_shape(lambda carry, data: step(carry, data)[1], carry, data)
    seen = nothing_seen(shapes, (len(asked),))
    for begin in range(0, steps, CALL_STEPS):
        kept, left = AskedSteps(*count_from(asked, begin), seen), np.asarray(min(steps - begin, CALL_STEPS), np.int32)
        carry, (_, _, seen), lost = _run_call(carry, kept, left, data, *how)
        if bool(lost):
            break
    seen = jax.tree.map(lambda leaf: leaf[: len(asked)], seen)
    return Outcome(optax_step.trained(carry[0], carry[2]), carry[1], *seen)


def split(asked: HostArray, begin: int) -> tuple[HostArray, HostArray]:
    """Return the steps asked for from ``begin`` on, counted from there, each once; and where each of all is found.

    A step before ``begin`` is found at -1.
    """
    later = np.unique(asked[asked >= begin]) - begin
    return later, np.where(asked < begin, -1, np.searchsorted(later, asked - begin))


def join(places: HostArray, known: PyTree, later: PyTree) -> tuple[Array, Params, Params]:
    """Return what is kept of the steps asked for: from ``later`` where these places are at least 0, else ``known``.

    The leaves of both come in the order of their names; the tree is that of ``later``.
    """
    rows = np.maximum(places, 0)

    def leaf(first: Array, second: Array) -> Array:
        if not second.shape[0]:
            return jnp.asarray(first, second.dtype)
        flags = (places < 0).reshape(-1, *[1] * (second.ndim - 1))
        return jnp.where(flags, jnp.asarray(first, second.dtype), second[rows])

    leaves, structure = jax.tree.flatten(later)
    kept: tuple[Array, Params, Params] = jax.tree.unflatten(structure, map(leaf, jax.tree.leaves(known), leaves))
    return kept


def continue_from(request: Request, outcome: Outcome, overflow: Overflow) -> Outcome:
    """Return the outcome with what a loop in the model's dtype does from where it could overflow."""
    params = jax.tree.map(lambda leaf: leaf.astype(request.dtype), overflow.params)
    shapes = jax.eval_shape(functools.partial(optax_step.begin, request.optimizer), params)
    state = jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), overflow.state, shapes)
    asked, places = split(request.asked, overflow.step)
    carry = (params, request.split[2], state)
    later = run_after_overflow(carry, request, steps=request.epochs - overflow.step, asked=asked)
    known, new = ((one.losses, one.gradients, one.weights) for one in (outcome, later))
    return Outcome(later.params, later.rest, *join(places, known, new))
