"""The reference plan on batches: one optimizer step a batch, all epochs one compiled program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxreg._optim import optax_step
from jaxreg._plans.batches import Batches, permutation
from jaxreg._plans.plan import STEP_COST, Plan
from jaxreg._plans.request import Request
from jaxreg._plans.stepwise import why_no_loop
from jaxreg._plans.training_step import Carry, Data, Kept, Outcome, one_step, scan, unroll
from jaxreg._types import AnyArray, Array, GraphDef, Loss, Number, Optimizer, OptState, Params, RestState


def run(
    params: Params,
    rest: RestState,
    data: Data,
    *,
    graph: GraphDef,
    optimizer: Optimizer,
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
def _initial_state(params: Params, optimizer: Optimizer) -> OptState:
    return optax_step.begin(optimizer, params)


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "epochs", "record", "cut"))
def _train(
    params: Params,
    rest: RestState,
    state: OptState | None,
    data: Data,
    order: AnyArray | None,
    count: Number | None,
    *,
    graph: GraphDef,
    optimizer: Optimizer,
    loss: Loss,
    epochs: int,
    record: frozenset[str],
    cut: tuple[int, int, int],
) -> tuple[Params, RestState, OptState, Kept]:
    """Train for ``epochs`` epochs, or for the first ``count`` of them where that is given.

    ``state`` is the optimizer's, ``None`` at the start of a training; ``order`` the orders of all epochs, a key or
    ``None``; ``cut`` the size and number of whole batches and the size of the last.
    """
    size, whole, last = cut
    step = one_step(graph, optimizer, loss, record)

    key = order if order is not None and jnp.issubdtype(order.dtype, jax.dtypes.prng_key) else None

    def order_of(number: Array, drawn: Array | None) -> Array | None:
        return drawn if key is None else permutation(jax.random.fold_in(key, number), data.inputs.shape[0])

    # Rows are taken batch by batch: faster than to bring the whole epoch into order first, and no second copy of it.
    def on_batch(carry: Carry, number: Array | int, rows: Array | None, count: int) -> tuple[Carry, Kept]:
        def take(leaf: Array) -> Array:
            if rows is None:
                return lax.dynamic_slice_in_dim(leaf, number * size, count)
            batch = lax.dynamic_slice_in_dim(rows, number * size, count)
            return leaf.at[batch].get(mode="promise_in_bounds")

        return step(carry, jax.tree.map(take, data))

    def epoch(carry: Carry, at: tuple[Array, Array | None]) -> tuple[Carry, Kept]:
        rows = order_of(*at)
        fits = min(size, data.inputs.shape[0])  # it is traced where there is no whole batch, too
        carry, kept = scan(
            lambda carry, number: on_batch(carry, number, rows, fits),
            carry,
            jnp.arange(whole, dtype=jnp.int32),
            unroll=unroll(whole, data, fits / data.inputs.shape[0]),
        )
        if last:  # a step of its own shape, so that the loss takes its mean over these rows and no others
            carry, one = on_batch(carry, whole, rows, last)
            kept = jax.tree.map(lambda many, leaf: jnp.concatenate([many, leaf[None]]), kept, one)
        return carry, kept

    def epoch_if_counted(count: Number, carry: Carry, at: tuple[Array, Array | None]) -> tuple[Carry, Kept]:
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(epoch, carry, at)[1])
        return lax.cond(at[0] < count, epoch, lambda carry, _: (carry, nothing), carry, at)

    carry = (params, rest, optax_step.begin(optimizer, params) if state is None else state)
    each = (jnp.arange(epochs, dtype=jnp.int32), order if key is None else None)
    carry, kept = scan(epoch if count is None else functools.partial(epoch_if_counted, count), carry, each)
    return *carry, jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), kept)


class Minibatch(Plan):
    """The loop itself, over one batch in every step: any module, loss and optimizer."""

    name = "stepwise"
    for_batches = True

    def why_not(self, request: Request) -> str | None:
        """Return why there can be no such loop."""
        return why_no_loop(request)

    def cost(self, request: Request) -> float:
        """Return the cost of all steps, each of which reads one batch."""
        rows, columns, outputs = request.sizes
        return request.steps * (STEP_COST + 2 * min(request.batches.size, rows) * columns * outputs)

    def run(self, request: Request) -> Outcome:
        """Train batch by batch."""
        graph, params, rest = request.split
        return run(
            params,
            rest,
            request.data_on_device(),
            graph=graph,
            optimizer=request.optimizer,
            loss=request.loss,
            epochs=request.epochs,
            record=request.record,
            batches=request.batches,
        ).at(request.at)
