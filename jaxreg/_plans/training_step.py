"""The step that every training repeats, the data that it sees, and what a training gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxreg._calls import objective_value
from jaxreg._optim import optax_step
from jaxreg._types import AnyArray, Array, GraphDef, HostArray, Loss, Optimizer, OptState, Params, PyTree, RestState

# Steps laid out in one iteration of the compiled loop: on small problems the loop's own upkeep is what costs, and eight
# halve the time of one on CPU, while more only make the compiler work longer.
UNROLLED_STEPS = 8
# Over data of so few bytes, XLA's CPU compiler makes one kernel of the whole loop, five times as fast, if nothing is
# unrolled.
_ONE_KERNEL_BYTES = 256


class Data(NamedTuple):
    """Rows to train on: inputs, targets, and a weight for each row or ``None``."""

    inputs: AnyArray
    targets: AnyArray
    weights: AnyArray | None = None


# What one step hands to the next: parameters, the rest of the model's state, the optimizer's state.
Carry = tuple[Params, RestState, OptState]
# What is kept of a step: loss, gradients, weights; `None` for what nobody asked for.
Kept = tuple[Array, Params | None, Params | None]
Step = Callable[[Carry, Data], tuple[Carry, Kept]]


class Outcome(NamedTuple):
    """What a plan hands back: trained parameters, the rest of the model's state, and what was kept of each step.

    The parameters come as a tree whose leaves are in the order of their names. A rest of ``None`` is the model's own.
    """

    params: Params
    rest: RestState
    losses: Array
    gradients: Params
    weights: Params

    def at(self, steps: HostArray | None) -> Outcome:
        """Return what was kept of these steps alone; of all where they are ``None``."""
        if steps is None:
            return self
        kept = jax.tree.map(lambda leaf: leaf[steps], (self.losses, self.gradients, self.weights))
        return Outcome(self.params, self.rest, *kept)


def unroll(steps: int, data: PyTree, share: float = 1.0) -> int:
    """Return how many of ``steps`` to lay out in one iteration of a compiled loop; each reads a share of ``data``."""
    size = share * sum(np.size(leaf) * np.dtype(jnp.result_type(leaf)).itemsize for leaf in jax.tree.leaves(data))
    return 1 if size <= _ONE_KERNEL_BYTES else min(UNROLLED_STEPS, max(steps, 1))


def scan(
    step: Callable[..., tuple[PyTree, PyTree]],
    carry: PyTree,
    each: PyTree = None,
    *,
    length: int | None = None,
    unroll: int = 1,
) -> Any:
    """Call ``jax.lax.scan``, and let it go through nothing under ``jax.disable_jit`` too."""
    count = length if each is None else jax.tree.leaves(each)[0].shape[0]
    nothing = jax.config.jax_disable_jit and not count  # type: ignore[attr-defined]  # made as JAX is imported
    with jax.disable_jit(False) if nothing else contextlib.nullcontext():
        return lax.scan(step, carry, each, length, unroll=unroll)


def one_step(graph: GraphDef, optimizer: Optimizer, loss: Loss, record: frozenset[str]) -> Step:
    """Return the step that every training repeats.

    It takes what the last one left (parameters, the rest of the model's state, the optimizer's state) and data, and
    gives what it leaves itself, and what is kept of it: loss, gradients, weights.
    """

    def objective(params: Params, rest: RestState, data: Data) -> tuple[jax.Array, RestState]:
        model = nnx.merge(graph, params, rest, copy=True)  # variables of this trace, so that the model may change them
        return objective_value(loss, model, data), nnx.split(model, nnx.Param, ...)[2]

    def step(carry: Carry, data: Data) -> tuple[Carry, Kept]:
        params, rest, state = carry
        (value, rest), gradients = jax.value_and_grad(objective, has_aux=True)(params, rest, data)
        before = carry[1]
        moved, state = optax_step.advance(
            optimizer, params, state, gradients, value, lambda other: objective(other, before, data)[0]
        )
        return (moved, rest, state), kept_of(value, gradients, moved, record)

    return step


def kept_of(value: Array, gradients: Params, moved: Params, record: frozenset[str]) -> Kept:
    """Return what is kept of a step: its loss, and of gradients and weights what was asked for."""
    return value, gradients if "gradients" in record else None, moved if "weights" in record else None
