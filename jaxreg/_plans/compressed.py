"""The plan that looks at the data once: every step then costs what the coefficients cost, whatever the rows."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._optim import optax_step
from jaxreg._plans.least_squares import Problem, coefficients, params, too_large
from jaxreg._plans.stepwise import laid_out, scan


def steps(
    problem: Problem,
    *,
    optimizer: Any,
    structure: Any,
    epochs: int,
    record: frozenset[str],
    largest: float,
) -> tuple[Any, tuple[Any, Any, Any], Any]:
    """Every step of any Optax optimizer, in float64, on the root of the data's cross-products.

    ``structure`` is that of the model's parameters, for optimizers that look at their names.

    Returns:
        Parameters; losses, gradients and weights of every step; and the first step at which a loop in a dtype with the
        ``largest`` number could overflow (else ``epochs``), with parameters and the optimizer's state before it.
    """

    def objective(trained: Any) -> jax.Array:
        return problem.scale * jnp.sum((problem.design @ coefficients(trained) - problem.targets) ** 2)

    def step(carry: Any, number: jax.Array) -> tuple[Any, Any]:
        trained, state, (first, kept) = carry
        value, gradients = jax.value_and_grad(objective)(trained)
        over = too_large(problem, value / problem.scale, coefficients(trained), largest)
        first = jnp.minimum(first, jnp.where(over, number, epochs))
        kept = jax.tree.map(lambda old, new: jnp.where(number <= first, new, old), kept, (trained, state))
        moved, state = optax_step.advance(optimizer, trained, state, gradients, value, objective)
        traced = (gradients if "gradients" in record else None, moved if "weights" in record else None)
        return (moved, state, (first, kept)), (value, *traced)

    start = params(problem.start, structure)
    state = optax_step.begin(optimizer, start)
    carry = (start, state, (jnp.asarray(epochs), (start, state)))
    (trained, state, overflow), kept = scan(step, carry, jnp.arange(epochs), unroll=laid_out(epochs, problem))
    return optax_step.trained(trained, state), kept, overflow


solve = functools.partial(jax.jit, static_argnames=("optimizer", "structure", "epochs", "record", "largest"))(steps)
