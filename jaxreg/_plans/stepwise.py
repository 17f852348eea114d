"""The reference plan: one optimizer step an iteration, all of them one compiled ``lax.scan``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxreg._calls import objective_value
from jaxreg._optim import optax_step

Loss = Callable[..., jax.Array]

# Steps laid out in one iteration of the compiled loop: on small problems the loop's own upkeep is what costs, and eight
# halve the time of one on CPU, while more only make the compiler work longer.
UNROLL = 8
# Over data so small, XLA's CPU compiler makes one kernel of the whole loop, five times as fast, if none is laid out.
_SMALL = 256


class Data(NamedTuple):
    """Rows to train on: inputs, targets, and a weight for each row or ``None``."""

    inputs: Any
    targets: Any
    weights: Any = None


def laid_out(steps: int, data: Any, share: float = 1.0) -> int:
    """How many of ``steps`` to lay out in one iteration of a compiled loop; each reads that share of ``data``."""
    size = share * sum(np.size(leaf) * np.dtype(jnp.result_type(leaf)).itemsize for leaf in jax.tree.leaves(data))
    return 1 if size <= _SMALL else min(UNROLL, max(steps, 1))


def scan(step: Callable[[Any, Any], Any], carry: Any, each: Any = None, **options: Any) -> Any:
    """``jax.lax.scan``, which can go through nothing under ``jax.disable_jit`` too."""
    count = options["length"] if each is None else jax.tree.leaves(each)[0].shape[0]
    nothing = jax.config.jax_disable_jit and not count  # type: ignore[attr-defined]  # made as JAX is imported
    with jax.disable_jit(False) if nothing else contextlib.nullcontext():
        return lax.scan(step, carry, each, **options)


class Outcome(NamedTuple):
    """What a plan hands back: trained parameters, the rest of the model's state, and what was kept of each step."""

    params: Any
    rest: Any
    losses: jax.Array
    gradients: Any
    weights: Any


def one_step(graph: Any, optimizer: Any, loss: Loss, record: frozenset[str]) -> Callable[[Any, Data], tuple[Any, Any]]:
    """The step that every training repeats.

    It takes what the last one left (parameters, the rest of the model's state, the optimizer's state) and data, and
    gives what it leaves itself, and what is kept of it: loss, gradients, weights.
    """

    def objective(params: Any, rest: Any, data: Data) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)  # variables of this trace, so that the model may change them
        return objective_value(loss, model, data), nnx.split(model, nnx.Param, ...)[2]

    def step(carry: Any, data: Data) -> tuple[Any, Any]:
        params, rest, state = carry
        (value, rest), gradients = jax.value_and_grad(objective, has_aux=True)(params, rest, data)
        before = carry[1]
        moved, state = optax_step.advance(
            optimizer, params, state, gradients, value, lambda other: objective(other, before, data)[0]
        )
        kept = (gradients if "gradients" in record else None, moved if "weights" in record else None)
        return (moved, rest, state), (value, *kept)

    return step


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "epochs", "record"))
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
) -> Outcome:
    """Train on the whole batch, ``epochs`` times. ``params`` and ``rest`` are a split NNX model's states."""
    step = one_step(graph, optimizer, loss, record)
    carry = (params, rest, optax_step.begin(optimizer, params))
    (params, rest, state), kept = scan(
        lambda carry, _: step(carry, data), carry, length=epochs, unroll=laid_out(epochs, data)
    )
    return Outcome(optax_step.trained(params, state), rest, *kept)
