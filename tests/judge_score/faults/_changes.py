"""Ways to put another optimizer into a port."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxreg
from parity import Port, Recording
from tests.judge_score import jax_side
from tests.judge_score.faults import transforms
from tests.judge_score.faults._fault import Change, optimizer
from tests.judge_score.trainings import Training


def before(make: Any) -> Change:
    """A transformation in front of the right optimizer."""
    return lambda port, training, recording: jax_side.changed(port, optimizer=optax.chain(make(), port.optimizer))


def after(make: Any) -> Change:
    """A transformation behind the right optimizer."""
    return lambda port, training, recording: jax_side.changed(port, optimizer=optax.chain(port.optimizer, make()))


def times(factor: float) -> Any:
    return lambda right: factor * right


def as_kind(kind: str, **options: Any) -> Change:
    """The same settings in another optimizer."""
    return optimizer(lambda t: jax_side.written(kind, t.settings | options, jax_side.schedule(t)))


def shifted(by: int) -> Change:
    """The schedule read at another step."""

    def make(training: Training) -> Any:
        right = jax_side.schedule(training)
        rate = lambda step: right(jnp.maximum(step + by, 0))  # noqa: E731
        return jax_side.written(training.optimizer, training.settings, rate, training.decay_matrices_only)

    return optimizer(make)


def per_batch(training: Training) -> Any:
    rate = jaxreg.lr_scheduler.step_lr(training.settings["lr"], training.falls or 1, 0.5)
    return jax_side.written(training.optimizer, training.settings, rate, training.decay_matrices_only)


def decoupled_sgd(training: Training) -> Any:
    """The decay after the momentum."""
    rate, factor, decay = (training.settings[key] for key in ("lr", "momentum", "weight_decay"))
    return optax.chain(optax.trace(factor), optax.add_decayed_weights(decay), optax.scale(-rate))


def masked_decay(training: Training) -> Any:
    return jax_side.written(training.optimizer, training.settings, training.settings["lr"], matrices_only=True)


def decay_everywhere(training: Training) -> Any:
    return jax_side.written(training.optimizer, training.settings, training.settings["lr"], matrices_only=False)


def first_step_damped(training: Training) -> Any:
    """Dampening from the first step on, which PyTorch leaves undamped."""
    factor, dampening = training.settings["momentum"], training.settings["dampening"]
    own = transforms.momentum(factor, dampening=dampening, first_damped=1 - dampening)
    return optax.chain(own, optax.scale(-training.settings["lr"]))


def nesterov_mixed(training: Training) -> Any:
    """The look-ahead as a mean of gradient and velocity."""
    factor = training.settings["momentum"]
    own = transforms.nesterov(factor, lambda gradient, velocity: (1 - factor) * gradient + factor * velocity)
    return optax.chain(own, optax.scale(-training.settings["lr"]))


def nesterov_without_gradient(training: Training) -> Any:
    """The look-ahead without the gradient that belongs to it."""
    factor = training.settings["momentum"]
    own = transforms.nesterov(factor, lambda gradient, velocity: factor * velocity)
    return optax.chain(own, optax.scale(-training.settings["lr"]))


def rate_inside(state: Any) -> Change:
    def make(training: Training) -> Any:
        right = jax_side.schedule(training)
        schedule = right if callable(right) else lambda _: right
        return transforms.rate_in_velocity(schedule, training.settings["momentum"], state)

    return optimizer(make)


def without_correction(training: Training) -> Any:
    b1, b2 = training.settings.get("betas", (0.9, 0.999))
    return transforms.adam_without_correction(training.settings["lr"], b1, b2, 1e-8)


def epsilon_inside(training: Training) -> Any:
    rate, epsilon = training.settings["lr"], training.settings.get("eps", 1e-8)
    if training.optimizer == "AdamW":
        return optax.adamw(rate, eps=0.0, eps_root=epsilon, weight_decay=training.settings["weight_decay"])
    return optax.adam(rate, eps=0.0, eps_root=epsilon)


def stopped(name: str) -> Change:
    """No gradient reaches the parameters under ``name``."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        def apply(params: Any, *rest: Any) -> Any:
            held = params | {name: jax.tree.map(jax.lax.stop_gradient, params[name])}
            return port.apply(held, *rest)

        return jax_side.changed(port, apply=apply)

    return change


def rate_over_step(training: Training) -> Any:
    """A rate that falls with the root of the step, which is zero at first."""
    rate = training.settings["lr"]
    return jaxreg.sgd(lambda step: rate / jnp.sqrt(jnp.asarray(step, jnp.float32)))
