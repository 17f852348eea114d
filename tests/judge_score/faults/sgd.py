"""Faults in SGD: its settings, its decay, its momentum."""

from __future__ import annotations

from typing import Any

from tests.judge_score.faults import _changes as to
from tests.judge_score.faults import transforms
from tests.judge_score.faults._fault import Change, Fault, attention, conv, linear, mlp, optimizer, settings
from tests.judge_score.trainings import Training

_MOMENTUM: dict[str, Any] = {"momentum": 0.9}
_DAMPED: dict[str, Any] = {"momentum": 0.9, "dampening": 0.3}
_NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
_DECAYED: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.1}


def _update(name: str, training: Training, change: Change, cause: str, step: int = 0) -> Fault:
    return Fault(name, training, change, "update", step, cause)


def _state(name: str, training: Training, change: Change, cause: str, step: int = 0) -> Fault:
    return Fault(name, training, change, "optimizer state", step, cause)


_RATES = (
    _update("linear: a learning rate 1e-6 off", linear(), settings(lr=to.times(1 + 1e-6)), "learning rate"),
    _update(
        "conv, momentum: a learning rate 1e-6 off", conv(**_MOMENTUM), settings(lr=to.times(1 - 1e-6)), "learning rate"
    ),
    _update("attention: a learning rate ten times too large", attention(), settings(lr=to.times(10)), "learning rate"),
    _update("mlp, Nesterov: a learning rate 1e-3 off", mlp(**_NESTEROV), settings(lr=to.times(1.001)), "learning rate"),
    _state("linear: a momentum of 0.89 for 0.9", linear(**_MOMENTUM), settings(momentum=0.89), "momentum", 1),
    _state("conv: a momentum 1e-6 off", conv(**_MOMENTUM), settings(momentum=to.times(1 - 1e-6)), "momentum", 1),
    _state("attention: a momentum of 0.99 for 0.9", attention(**_MOMENTUM), settings(momentum=0.99), "momentum", 1),
)

_DECAY = (
    _state("linear: decay after the momentum", linear(**_DECAYED), optimizer(to.decoupled_sgd), "decoupled decay"),
    _state("mlp: decay after the momentum", mlp(**_DECAYED), optimizer(to.decoupled_sgd), "decoupled decay"),
    _state("conv: decay after the momentum", conv(**_DECAYED), optimizer(to.decoupled_sgd), "decoupled decay"),
    _update(
        "linear: no decay of the bias",
        linear(weight_decay=0.1),
        optimizer(to.masked_decay),
        "decay skipped on some parameters",
    ),
    _state(
        "conv, momentum: no decay of biases and BatchNorm",
        conv(**_DECAYED),
        optimizer(to.masked_decay),
        "decay skipped on some parameters",
    ),
    _state(
        "mlp, momentum: decay of biases too",
        mlp(**_DECAYED, decay_matrices_only=True),
        optimizer(to.decay_everywhere),
        "decay on all parameters",
    ),
    _update("linear: a decay of 0.01 for 0.1", linear(weight_decay=0.1), settings(weight_decay=0.01), "decay"),
    _state("attention, momentum: no decay at all", attention(**_DECAYED), settings(weight_decay=0.0), "decay"),
)

_VELOCITY = (
    _state("linear: no dampening", linear(**_DAMPED), settings(dampening=0.0), "dampening missing", 1),
    _state("mlp: no dampening", mlp(**_DAMPED), settings(dampening=0.0), "dampening missing", 1),
    _state("conv: no dampening", conv(**_DAMPED), settings(dampening=0.0), "dampening missing", 1),
    _state(
        "linear: the first step damped",
        linear(**_DAMPED),
        optimizer(to.first_step_damped),
        "dampening on the first step",
    ),
    _state(
        "attention: the first step damped",
        attention(**_DAMPED),
        optimizer(to.first_step_damped),
        "dampening on the first step",
    ),
    _update("linear: no Nesterov", linear(**_NESTEROV), settings(nesterov=False), "Nesterov missing"),
    _update("conv: no Nesterov", conv(**_NESTEROV), settings(nesterov=False), "Nesterov missing"),
    _update("mlp: Nesterov", mlp(**_MOMENTUM), settings(nesterov=True), "Nesterov added"),
    _update("attention: Nesterov", attention(**_MOMENTUM), settings(nesterov=True), "Nesterov added"),
    # At a constant rate it is the same training, and no fault.
    _state(
        "linear: the rate in Optax's velocity, and then it falls",
        linear(**_MOMENTUM, falls=3),
        to.rate_inside(transforms.Trace),
        "learning rate inside the velocity",
    ),
    _update(
        "mlp: the rate in the velocity, and then it falls",
        mlp(**_MOMENTUM, falls=3),
        to.rate_inside(transforms.Counted),
        "learning rate inside the velocity",
        3,
    ),
    _update(
        "conv: the rate in the velocity, and then it falls",
        conv(**_MOMENTUM, falls=2),
        to.rate_inside(transforms.Counted),
        "learning rate inside the velocity",
        2,
    ),
    _update("linear: maximize missed", linear(maximize=True, lr=0.001), settings(maximize=False), "maximize missed"),
    _state(
        "mlp, momentum: maximize missed",
        mlp(maximize=True, lr=0.001, **_MOMENTUM),
        settings(maximize=False),
        "maximize missed",
    ),
)

FAULTS = (*_RATES, *_DECAY, *_VELOCITY)
