"""Where a training that diverges leaves the range of its dtype, from the closed form of its steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._plans import spectral
from jaxreg._plans.least_squares import too_large

# Steps looked at in one turn of the search.
_SEARCHED = 64


class Before(NamedTuple):
    """The last step before a loop in the model's dtype could overflow, and coefficients and velocity there."""

    step: Any
    coefficients: Any
    velocity: Any


def search(columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any) -> Before:
    """Where each of many trainings could overflow.

    ``targets`` and all after it have a leading axis for them, ``columns`` where each has its own.
    """
    low, high = np.zeros(len(numbers), np.int64), numbers[:, -1].astype(np.int64)
    arguments = (columns, targets, kernel, bias, numbers)
    while (high - low > 1).any():
        # Evenly in the logarithm at first, since nobody knows of what size the number is.
        share = np.linspace(0, 1, _SEARCHED)[None]
        width = np.maximum(high - low, 1)[:, None].astype(np.float64)
        inner = np.where(low[:, None] == 0, width**share, 1 + (width - 1) * share)
        tried = np.concatenate([low[:, None] + inner.astype(np.int64), high[:, None]], 1)
        flags = np.asarray(_large(*arguments, tried.astype(np.float64)))
        first = np.where(flags.any(1), flags.argmax(1), _SEARCHED)
        each = np.arange(len(low))
        low, high = np.where(first > 0, tried[each, np.maximum(first - 1, 0)], low), tried[each, first]
    return Before(low, *_before(*arguments, low.astype(np.float64)))


@jax.jit
def _large(columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, steps: Any) -> Any:
    """Whether each training is too large after each of these numbers of steps."""

    def one(columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, steps: Any) -> Any:
        _, settings, problem, modes = spectral.opened(columns, targets, kernel, bias, numbers)
        state = spectral.after(modes, problem.scale, steps, settings)
        largest = float(np.finfo(kernel.dtype).max)
        return too_large(problem, spectral.squares_of(modes, state), spectral.coefficients_of(modes, state), largest)

    return jax.vmap(one, (_own(columns), 0, 0, 0, 0, 0))(columns, targets, kernel, bias, numbers, steps)


@jax.jit
def _before(columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, step: Any) -> tuple[Any, Any]:
    """Coefficients and velocity of each training after its number of steps."""

    def one(columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, step: Any) -> tuple[Any, Any]:
        _, settings, problem, modes = spectral.opened(columns, targets, kernel, bias, numbers)
        state = spectral.after(modes, problem.scale, jnp.stack([step, jnp.maximum(step - 1, 0)]), settings)
        now, then = spectral.coefficients_of(modes, state)
        moved = (then - now) / settings.learning_rate
        sign = jnp.where(settings.maximize, -2.0, 2.0)
        gradient = sign * problem.scale * problem.design.T @ (problem.design @ then - problem.targets)
        ahead = (moved - gradient - settings.weight_decay * then) / settings.momentum
        velocity = jnp.where(settings.nesterov, ahead, moved)
        return now, jnp.where((step > 0) & (settings.momentum != 0), velocity, 0.0)

    return jax.vmap(one, (_own(columns), 0, 0, 0, 0, 0))(columns, targets, kernel, bias, numbers, step)


def _own(columns: Any) -> int | None:
    """The axis of the trainings, where each has columns of its own."""
    return 0 if columns.ndim == 3 else None
