"""Where a training that diverges leaves the range of its dtype, from the closed form of its steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxreg._nn.linear_params import LayerParams
from jaxreg._plans.least_squares import too_large
from jaxreg._plans.spectral_basis import coefficients_of, squares_of, state_after
from jaxreg._plans.spectral_training import open_problem
from jaxreg._types import AnyArray, Array, HostArray

# Steps looked at in one turn of the search.
_STEPS_A_TURN = 64


class Before(NamedTuple):
    """The last step before a loop in the model's dtype could overflow, and coefficients and velocity there."""

    step: Int64[HostArray, " n"]
    coefficients: Float64[Array, "n coefficients outputs"]
    velocity: Float64[Array, "n coefficients outputs"]


def find_overflow_step(
    columns: Float64[Array, "*trainings m inputs_and_one"],
    targets: Float64[Array, "n m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, "n numbers"],
) -> Before:
    """Return where each of many trainings could overflow.

    ``targets`` and all after it have a leading axis for them, ``columns`` where each has its own.
    """
    low, high = np.zeros(len(numbers), np.int64), np.asarray(numbers[:, -1]).astype(np.int64)
    arguments = (columns, targets, layer, numbers)
    while (high - low > 1).any():
        # Evenly in the logarithm at first, since nobody knows of what size the number is.
        share = np.linspace(0, 1, _STEPS_A_TURN)[None]
        width = np.maximum(high - low, 1)[:, None].astype(np.float64)
        inner = np.where(low[:, None] == 0, width**share, 1 + (width - 1) * share)
        tried = np.concatenate([low[:, None] + inner.astype(np.int64), high[:, None]], 1)
        flags = np.asarray(_large(*arguments, tried.astype(np.float64)))
        first = np.where(flags.any(1), flags.argmax(1), _STEPS_A_TURN)
        each = np.arange(len(low))
        low, high = np.where(first > 0, tried[each, np.maximum(first - 1, 0)], low), tried[each, first]
    return Before(low, *_before(*arguments, low.astype(np.float64)))


@jax.jit
def _large(
    columns: Float64[Array, "*trainings m inputs_and_one"],
    targets: Float64[Array, "n m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, "n numbers"],
    steps: Float64[AnyArray, "n steps"],
) -> Bool[Array, "n steps"]:
    """Return whether each training is too large after each of these numbers of steps."""

    def one(columns: Array, targets: Array, layer: LayerParams, numbers: Array, steps: Array) -> Array:
        _, settings, problem, basis = open_problem(columns, targets, layer, numbers)
        state = state_after(basis, problem.scale, steps, settings)
        largest = float(np.finfo(layer.kernel.dtype).max)
        return too_large(problem, squares_of(basis, state), coefficients_of(basis, state), largest)

    return jax.vmap(one, (_own_axis(columns), 0, 0, 0, 0))(
        columns, targets, layer, jnp.asarray(numbers), jnp.asarray(steps)
    )


@jax.jit
def _before(
    columns: Float64[Array, "*trainings m inputs_and_one"],
    targets: Float64[Array, "n m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, "n numbers"],
    step: Float64[AnyArray, " n"],
) -> tuple[Float64[Array, "n coefficients outputs"], Float64[Array, "n coefficients outputs"]]:
    """Return coefficients and velocity of each training after its number of steps."""

    def one(columns: Array, targets: Array, layer: LayerParams, numbers: Array, step: Array) -> tuple[Array, Array]:
        _, settings, problem, basis = open_problem(columns, targets, layer, numbers)
        state = state_after(basis, problem.scale, jnp.stack([step, jnp.maximum(step - 1, 0)]), settings)
        now, then = coefficients_of(basis, state)
        moved = (then - now) / settings.learning_rate
        sign = jnp.where(settings.maximize, -2.0, 2.0)
        gradient = sign * problem.scale * problem.design.T @ (problem.design @ then - problem.targets)
        ahead = (moved - gradient - settings.weight_decay * then) / settings.momentum
        velocity = jnp.where(settings.nesterov, ahead, moved)
        return now, jnp.where((step > 0) & (settings.momentum != 0), velocity, 0.0)

    return jax.vmap(one, (_own_axis(columns), 0, 0, 0, 0))(
        columns, targets, layer, jnp.asarray(numbers), jnp.asarray(step)
    )


def _own_axis(columns: Array) -> int | None:
    """Return the axis of the trainings, where each has columns of its own."""
    return 0 if columns.ndim == 3 else None
