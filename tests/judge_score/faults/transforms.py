"""Wrong optimizers as Optax transformations: each a line of PyTorch's definition written as people get it wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Counted(NamedTuple):
    """Steps made, and one tree like the parameters."""

    count: Any
    kept: Any


class Trace(NamedTuple):
    """A velocity under the name that Optax gives it, so that it is compared with PyTorch's buffer."""

    count: Any
    trace: Any


def _counted(
    rule: Callable[[Any, Any, Any], tuple[Any, Any]], state: Callable[[Any, Any], Any] = Counted
) -> optax.GradientTransformation:
    """``rule(first, gradient, kept)`` to the update and what is kept, leaf by leaf."""

    def init(params: Any) -> Any:
        return state(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(gradients: Any, old: Any, params: Any = None) -> Any:
        count, kept = old
        pairs = jax.tree.map(lambda g, k: rule(count == 0, g, k), gradients, kept)
        updates = jax.tree.map(lambda _, pair: pair[0], gradients, pairs)
        return updates, state(count + 1, jax.tree.map(lambda _, pair: pair[1], gradients, pairs))

    return optax.GradientTransformation(init, update)


def never_zeroed() -> optax.GradientTransformation:
    """Gradients add up from step to step."""
    return _counted(lambda first, gradient, total: (gradient + total, gradient + total))


def one_step_late() -> optax.GradientTransformation:
    """The gradient of the step before; the first step has its own."""
    return _counted(lambda first, gradient, before: (jnp.where(first, gradient, before), gradient))


def one_step_late_from_zero() -> optax.GradientTransformation:
    """The gradient of the step before; the first step has none."""
    return _counted(lambda first, gradient, before: (before, gradient))


def momentum(factor: float, *, first_damped: float = 1.0, dampening: float = 0.0) -> optax.GradientTransformation:
    """A velocity whose first gradient is damped too."""

    def rule(first: Any, gradient: Any, velocity: Any) -> tuple[Any, Any]:
        moved = factor * velocity + (1 - dampening) * gradient
        moved = jnp.where(first, first_damped * gradient, moved)
        return moved, moved

    return _counted(rule, Trace)


def nesterov(factor: float, ahead: Callable[[Any, Any], Any]) -> optax.GradientTransformation:
    """PyTorch's velocity, and a look-ahead of another form, ``ahead(gradient, velocity)``."""

    def rule(first: Any, gradient: Any, velocity: Any) -> tuple[Any, Any]:
        moved = factor * velocity + gradient
        return ahead(gradient, moved), moved

    return _counted(rule, Trace)


def rate_in_velocity(
    schedule: Callable[[Any], Any], factor: float, state: Callable[[Any, Any], Any] = Counted
) -> optax.GradientTransformation:
    """Sutskever's form: the velocity has the learning rate in it, so that a change of the rate acts late."""

    def init(params: Any) -> Any:
        return state(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(gradients: Any, old: Any, params: Any = None) -> Any:
        count, velocity = old
        rate = schedule(count)
        velocity = jax.tree.map(lambda v, g: factor * v + jnp.asarray(rate, g.dtype) * g, velocity, gradients)
        return jax.tree.map(jnp.negative, velocity), state(count + 1, velocity)

    return optax.GradientTransformation(init, update)


def adam_without_correction(rate: float, b1: float, b2: float, epsilon: float) -> optax.GradientTransformation:
    """Moments used as they are, though they start at zero."""

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(gradients: Any, old: Any, params: Any = None) -> Any:
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, old.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, old.nu, gradients)
        updates = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(old.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)


def frozen(name: str) -> optax.GradientTransformation:
    """Updates of the parameters under ``name`` are dropped."""

    def mask(params: Any) -> Any:
        def under(path: Any, _: Any) -> bool:
            return jax.tree_util.keystr(path, simple=True, separator=".").startswith(name)

        return jax.tree_util.tree_map_with_path(under, params)

    return optax.masked(optax.set_to_zero(), mask)
