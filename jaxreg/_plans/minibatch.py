"""The reference plan on batches: one optimizer step a batch, all epochs one compiled program."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxreg._optim import optax_step
from jaxreg._plans.batches import Batches, permutation
from jaxreg._plans.stepwise import Data, Loss, Outcome, laid_out, one_step, scan


def run(
    params: Any,
    rest: Any,
    data: Data,
    *,
    graph: Any,
    optimizer: Any,
    loss: Loss,
    epochs: int,
    record: frozenset[str],
    batches: Batches,
) -> Outcome:
    """Train on ``batches``, ``epochs`` times over. The other arguments are those of the stepwise plan."""
    cut = (batches.size, batches.whole, batches.last)
    length = batches.epochs_at_once(epochs)
    in_parts = length < epochs
    state = _initial_state(params, optimizer) if in_parts else None
    kept = []
    for count, order in batches.parts(epochs):
        params, rest, state, new = _train(
            params,
            rest,
            state,
            data,
            order,
            count if in_parts else None,
            graph=graph,
            optimizer=optimizer,
            loss=loss,
            epochs=length,
            record=record,
            cut=cut,
        )
        kept.append(jax.tree.map(lambda leaf, end=count * batches.steps: leaf[:end], new) if count < length else new)
    params = optax_step.trained(params, state)
    return Outcome(params, rest, *(jax.tree.map(lambda *parts: jnp.concatenate(parts), *kept) if in_parts else kept[0]))


@functools.partial(jax.jit, static_argnames=("optimizer",))
def _initial_state(params: Any, optimizer: Any) -> Any:
    return optax_step.begin(optimizer, params)


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "epochs", "record", "cut"))
def _train(
    params: Any,
    rest: Any,
    state: Any,
    data: Data,
    order: Any,
    count: Any,
    *,
    graph: Any,
    optimizer: Any,
    loss: Loss,
    epochs: int,
    record: frozenset[str],
    cut: tuple[int, int, int],
) -> tuple[Any, Any, Any, Any]:
    """Train for ``epochs`` epochs, or for the first ``count`` of them where that is given.

    ``state`` is the optimizer's, ``None`` at the start of a training; ``order`` the orders of all epochs, a key or
    ``None``; ``cut`` the size and number of whole batches and the size of the last.
    """
    size, whole, last = cut
    step = one_step(graph, optimizer, loss, record)

    is_key = order is not None and jnp.issubdtype(order.dtype, jax.dtypes.prng_key)

    def order_of(number: jax.Array, drawn: Any) -> Any:
        return permutation(jax.random.fold_in(order, number), data.inputs.shape[0]) if is_key else drawn

    # Rows are taken batch by batch: faster than to bring the whole epoch into order first, and no second copy of it.
    def on_batch(carry: Any, number: Any, rows: Any, count: int) -> tuple[Any, Any]:
        def take(leaf: Any) -> Any:
            if rows is None:
                return lax.dynamic_slice_in_dim(leaf, number * size, count)
            batch = lax.dynamic_slice_in_dim(rows, number * size, count)
            return leaf.at[batch].get(mode="promise_in_bounds")

        return step(carry, jax.tree.map(take, data))

    def epoch(carry: Any, at: tuple[jax.Array, Any]) -> tuple[Any, Any]:
        rows = order_of(*at)
        fits = min(size, data.inputs.shape[0])  # it is traced where there is no whole batch, too
        carry, kept = scan(
            lambda carry, number: on_batch(carry, number, rows, fits),
            carry,
            jnp.arange(whole, dtype=jnp.int32),
            unroll=laid_out(whole, data, fits / data.inputs.shape[0]),
        )
        if last:  # a step of its own shape, so that the loss takes its mean over these rows and no others
            carry, one = on_batch(carry, whole, rows, last)
            kept = jax.tree.map(lambda many, leaf: jnp.concatenate([many, leaf[None]]), kept, one)
        return carry, kept

    def epoch_in_count(carry: Any, at: tuple[jax.Array, Any]) -> tuple[Any, Any]:
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(epoch, carry, at)[1])
        return lax.cond(at[0] < count, epoch, lambda carry, _: (carry, nothing), carry, at)

    carry = (params, rest, optax_step.begin(optimizer, params) if state is None else state)
    each = (jnp.arange(epochs, dtype=jnp.int32), None if is_key else order)
    carry, kept = scan(epoch if count is None else epoch_in_count, carry, each)
    return *carry, jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), kept)
