"""The reference plan: one optimizer step an iteration, all of them one compiled ``lax.scan``."""

from __future__ import annotations

import functools

import jax

from jaxreg._optim import optax_step
from jaxreg._plans.plan import STEP_COST, Plan
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Data, Outcome, one_step, scan, unroll
from jaxreg._types import GraphDef, Loss, Optimizer, Params, RestState


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "epochs", "record"))
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
) -> Outcome:
    """Train on the whole batch, ``epochs`` times. ``params`` and ``rest`` are a split NNX model's states."""
    step = one_step(graph, optimizer, loss, record)
    carry = (params, rest, optax_step.begin(optimizer, params))
    (params, rest, state), kept = scan(
        lambda carry, _: step(carry, data), carry, length=epochs, unroll=unroll(epochs, data)
    )
    return Outcome(optax_step.trained(params, state), rest, *kept)


def why_no_loop(request: Request) -> str | None:
    """Return why no compiled loop over the data can make the training; ``None`` where one can."""
    if request.statistics is not None:
        return "statistics stand for the data, which it must see in every step"
    return None if request.steps < 2**31 else f"it counts steps in 32 bits, got {request.steps:,}"


class Stepwise(Plan):
    """The loop itself, over all rows in every step: any module, loss and optimizer."""

    name = "stepwise"

    def why_not(self, request: Request) -> str | None:
        """Return why there can be no such loop."""
        return why_no_loop(request)

    def cost(self, request: Request) -> float:
        """Return the cost of all steps, each of which reads all rows."""
        rows, columns, outputs = request.sizes
        return request.steps * (STEP_COST + request.trainings * 2 * rows * columns * outputs)

    def run(self, request: Request) -> Outcome:
        """Train step by step."""
        graph, params, rest = request.split
        found: Outcome = run(
            params,
            rest,
            request.data_on_device(),
            graph=graph,
            optimizer=request.optimizer,
            loss=request.loss,
            epochs=request.epochs,
            record=request.record,
        )
        return found.at(request.at)
