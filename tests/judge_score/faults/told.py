"""Faults that were once given another name, or none: of settings, schedules, scales and what is not differentiated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg
from parity import Port, Recording
from tests.judge_score import jax_side
from tests.judge_score.faults._fault import Change, Fault, attention, choice, conv, linear, loss, mlp, optimizer
from tests.judge_score.trainings import Training


def _times(factor: float) -> Any:
    return lambda right: lambda predictions, targets: factor * right(predictions, targets)


def _mask_turned_round(training: Training) -> Any:
    decay = training.settings["weight_decay"]
    mask = lambda params: jax.tree.map(lambda leaf: leaf.ndim < 2, params)  # noqa: E731
    return optax.adamw(training.settings["lr"], weight_decay=decay, mask=mask)


def _rate_before_the_velocity(training: Training) -> Any:
    rate = jax_side.schedule(training)
    return optax.chain(optax.scale_by_learning_rate(rate), optax.trace(training.settings["momentum"]))


def _partly_stopped(name: str) -> Change:
    """No gradient to the first row of a weight."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        def apply(params: Any, *rest: Any) -> Any:
            weight = params[name]["weight"]
            held = jnp.concatenate([jax.lax.stop_gradient(weight[:1]), weight[1:]])
            return port.apply(params | {name: params[name] | {"weight": held}}, *rest)

        return jax_side.changed(port, apply=apply)

    return change


def _turned_kernel(port: Port, training: Training, recording: Recording) -> Port:
    kernel = np.asarray(port.params["conv"]["weight"])
    conv = port.params["conv"] | {"weight": kernel.transpose(0, 1, 3, 2)}
    return jax_side.changed(port, params=port.params | {"conv": conv})


FAULTS = (
    Fault(
        "conv_group: GroupNorm with Flax's epsilon",
        conv(model="conv_group"),
        choice(group_norm_epsilon=1e-6),
        "forward",
        0,
        "GroupNorm epsilon",
    ),
    Fault(
        "attention, AdamW: the decay's mask turned round",
        attention("AdamW", weight_decay=0.1, decay_matrices_only=True),
        optimizer(_mask_turned_round),
        "update",
        0,
        "decay mask inverted",
    ),
    Fault(
        "linear, momentum: the rate before the velocity, with Optax's sign",
        linear(momentum=0.9, falls=2),
        optimizer(_rate_before_the_velocity),
        "optimizer state",
        0,
        "learning rate inside the velocity",
    ),
    Fault(
        "mlp: a rate that falls in another way",
        mlp(falls=2),
        optimizer(lambda training: optax.sgd(optax.exponential_decay(training.settings["lr"], 1, 0.8))),
        "update",
        1,
        "schedule",
    ),
    Fault(
        "attention: no gradient to the first word",
        attention(),
        _partly_stopped("embedding"),
        "gradient",
        0,
        "stop_gradient",
    ),
    Fault(
        "conv, momentum: no gradient to the first filter",
        conv(momentum=0.9),
        _partly_stopped("conv"),
        "gradient",
        0,
        "stop_gradient",
    ),
    Fault("mlp: half a cross-entropy", mlp(loss="cross_entropy"), loss(_times(0.5)), "loss", 0, "scaled loss"),
    Fault("conv: a tenth of the loss", conv(), loss(_times(0.1)), "loss", 0, "scaled loss"),
    Fault(
        "mlp, Adam: Optax's betas",
        mlp("Adam", betas=(0.8, 0.95)),
        optimizer(lambda training: optax.adam(training.settings["lr"])),
        "optimizer state",
        0,
        "beta1, beta2",
    ),
    Fault(
        "linear, AdamW: Optax's epsilon and decay",
        linear("AdamW", eps=1e-4, weight_decay=0.1),
        optimizer(lambda training: optax.adamw(training.settings["lr"])),
        "update",
        0,
        "epsilon, decay",
    ),
    Fault(
        "mlp, Adam: no warm-up from the lower rate",
        mlp("Adam", falls=2),
        optimizer(lambda training: optax.adam(jaxreg.lr_scheduler.linear_lr(training.settings["lr"], 0.5))),
        "update",
        0,
        "schedule",
    ),
    Fault("conv: height and width swapped", conv(), _turned_kernel, "initial weights", 0, "transposed weight"),
)
