"""The plan whose cost does not grow with the number of steps: every mode of the data in closed form."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxreg._modes import Settings, left
from jaxreg._plans.reduced import Problem, too_large

# Of the curvature where a mode has none: small enough to move nothing in 2**53 steps.
_NONE = 1e-200
# Steps looked at in one turn of the search for where a training overflows.
_SEARCHED = 64


class Modes(NamedTuple):
    """The problem in the basis of its right singular vectors.

    Attributes:
        vectors: shape ``(modes, coefficients)``.
        values: singular values, ``(modes, 1)``.
        targets: the targets' part in each mode, ``(modes, outputs)``.
        rest: of the targets' squared size what no coefficients explain.
        start: coefficients to start from, in the basis.
        outside: what of them no row of the data sees, ``(coefficients, outputs)``.
    """

    vectors: Any
    values: Any
    targets: Any
    rest: Any
    start: Any
    outside: Any


def decompose(problem: Problem) -> Modes:
    """The modes of a problem."""
    left_vectors, values, vectors = jnp.linalg.svd(problem.design, full_matrices=False)
    targets = left_vectors.T @ problem.targets
    rest = jnp.sum((problem.targets - left_vectors @ targets) ** 2)
    start = vectors @ problem.start
    return Modes(vectors, values[:, None], targets, rest, start, problem.start - vectors.T @ start)


class State(NamedTuple):
    """Coefficients in the basis after some steps, what they leave of the targets, and the part that is not seen."""

    coefficients: Any
    residuals: Any
    outside: Any


def after(modes: Modes, scale: Any, steps: Float64[Any, n], settings: Settings) -> State:
    """The state after each of these numbers of steps, with a leading axis for them."""
    sign = jnp.where(settings.maximize, -1.0, 1.0)
    steps = steps[:, None, None]
    values, targets, start = modes.values[None], modes.targets[None], modes.start[None]
    pull = sign * 2 * scale * values * targets
    curvature = sign * 2 * scale * values**2 + settings.weight_decay
    curvature = jnp.where(curvature == 0, _NONE, curvature)
    rest_at = pull / curvature
    distance = start - rest_at
    share, gone = left(curvature, steps, settings)
    # Near the start from the start, near the end from the end: neither is lost in the other.
    coefficients = jnp.where(gone < 0.5, start - gone * distance, rest_at + share * distance)
    residuals = values * share * distance - targets * settings.weight_decay / curvature
    unseen, _ = left(
        jnp.where(settings.weight_decay == 0, _NONE, settings.weight_decay) * jnp.ones((1, 1, 1)), steps, settings
    )
    return State(coefficients, residuals, unseen * modes.outside[None])


def coefficients_of(modes: Modes, state: State) -> Any:
    """Coefficients in the problem's own columns."""
    return jnp.einsum("mc,smo->sco", modes.vectors, state.coefficients) + state.outside


def squares_of(modes: Modes, state: State) -> Any:
    """The sum of squared errors."""
    return jnp.sum(state.residuals**2, (-2, -1)) + modes.rest


class Answer(NamedTuple):
    """What was found, in float64.

    Attributes:
        coefficients: after the last step.
        losses: before each of the steps asked for.
        traces: gradients at and weights after those steps; ``None`` where not asked for.
        overflows: whether a loop in the model's dtype could overflow.
        modes: of the problem.
    """

    coefficients: Any
    losses: Any
    traces: tuple[Any, Any]
    overflows: Any
    modes: Modes


@functools.partial(jax.jit, static_argnames=("record", "largest"))
def solve(
    problem: Problem, settings: Settings, steps: Any, at: Any, *, record: frozenset[str], largest: float
) -> Answer:
    """The training after ``steps`` steps, and what was asked for at the steps ``at``."""
    modes = decompose(problem)
    state = after(modes, problem.scale, at, settings)
    squares = squares_of(modes, state)
    last = after(modes, problem.scale, steps[None], settings)
    final = coefficients_of(modes, last)
    gradients = weights = None
    if "gradients" in record:
        gradients = 2 * problem.scale * jnp.einsum("mc,smo->sco", modes.vectors, modes.values[None] * state.residuals)
    if "weights" in record:
        weights = coefficients_of(modes, after(modes, problem.scale, at + 1, settings))
    over = too_large(problem, squares_of(modes, last), final, largest)[0]
    over |= jnp.any(too_large(problem, squares, coefficients_of(modes, state), largest))
    return Answer(final[0], problem.scale * squares, (gradients, weights), over, modes)


@functools.partial(jax.jit, static_argnames=("largest",))
def _large(problem: Problem, modes: Modes, settings: Settings, steps: Any, largest: float) -> Any:
    state = after(modes, problem.scale, steps, settings)
    return too_large(problem, squares_of(modes, state), coefficients_of(modes, state), largest)


def overflow(problem: Problem, modes: Modes, settings: Settings, steps: int, largest: float) -> tuple[int, Any, Any]:
    """The last step before a loop in the model's dtype could overflow, and coefficients and velocity there."""
    low, high = 0, steps
    while high - low > 1:
        # Evenly in the logarithm at first, since nobody knows of what size the number is.
        inner = np.geomspace(1, high - low, _SEARCHED) if low == 0 else np.linspace(1, high - low, _SEARCHED)
        tried = np.unique(np.concatenate([low + inner.astype(np.int64), [high]]))
        tried = np.pad(tried, (0, _SEARCHED + 1 - tried.size), mode="edge")
        flags = np.asarray(_large(problem, modes, settings, tried.astype(np.float64), largest))
        first = int(np.argmax(flags)) if flags.any() else flags.size - 1
        low, high = (int(tried[first - 1]) if first else low), int(tried[first])
    state = after(modes, problem.scale, jnp.asarray([low, max(low - 1, 0)], np.float64), settings)
    now, before = coefficients_of(modes, state)
    velocity = jnp.zeros_like(now)
    if low and settings.momentum:
        moved = (before - now) / settings.learning_rate
        velocity = moved
        if settings.nesterov:
            residual = problem.design @ before - problem.targets
            gradient = (-2 if settings.maximize else 2) * problem.scale * problem.design.T @ residual
            velocity = (moved - gradient - settings.weight_decay * before) / settings.momentum
    return low, now, velocity
