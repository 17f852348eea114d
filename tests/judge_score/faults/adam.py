"""Faults in Adam and AdamW: settings, moments, epsilon, decay."""

from __future__ import annotations

from typing import Any

from tests.judge_score.faults import _changes as to
from tests.judge_score.faults._fault import Change, Fault, attention, conv, linear, mlp, optimizer, settings
from tests.judge_score.trainings import Training

_DECAYED: dict[str, Any] = {"weight_decay": 0.1}


def _update(name: str, training: Training, change: Change, cause: str, step: int = 0) -> Fault:
    return Fault(name, training, change, "update", step, cause)


def _state(name: str, training: Training, change: Change, cause: str, step: int = 0) -> Fault:
    return Fault(name, training, change, "optimizer state", step, cause)


_SETTINGS = (
    _update("mlp, Adam: a learning rate 1e-6 off", mlp("Adam"), settings(lr=to.times(1 + 1e-6)), "learning rate"),
    _update(
        "attention, AdamW: a learning rate 1e-6 off",
        attention("AdamW"),
        settings(lr=to.times(1 + 1e-6)),
        "learning rate",
    ),
    _update("conv, AdamW: ten times the learning rate", conv("AdamW"), settings(lr=to.times(10)), "learning rate"),
    _state("linear, Adam: beta1 0.8", linear("Adam"), settings(betas=(0.8, 0.999)), "beta1"),
    _state("attention, AdamW: beta1 1e-6 off", attention("AdamW"), settings(betas=(0.9 * (1 + 1e-6), 0.999)), "beta1"),
    _state("mlp, Adam: beta2 0.99", mlp("Adam"), settings(betas=(0.9, 0.99)), "beta2"),
    _state("attention, AdamW: beta2 0.98", attention("AdamW"), settings(betas=(0.9, 0.98)), "beta2"),
    _update("linear, Adam: epsilon 1e-7", linear("Adam"), settings(eps=1e-7), "epsilon"),
    _update("conv, AdamW: epsilon 1e-6", conv("AdamW"), settings(eps=1e-6), "epsilon"),
    _update(
        "linear, Adam: epsilon inside the root", linear("Adam"), optimizer(to.epsilon_inside), "epsilon inside the root"
    ),
    _update(
        "attention, AdamW: epsilon inside the root",
        attention("AdamW", **_DECAYED),
        optimizer(to.epsilon_inside),
        "epsilon inside the root",
    ),
    _update(
        "linear, Adam: no bias correction", linear("Adam"), optimizer(to.without_correction), "bias correction missing"
    ),
    _update(
        "conv, Adam: no bias correction", conv("Adam"), optimizer(to.without_correction), "bias correction missing"
    ),
    _state("mlp, Adam: maximize missed", mlp("Adam", maximize=True), settings(maximize=False), "maximize missed"),
)

_DECAY = (
    _state("linear, AdamW: Adam with L2", linear("AdamW", **_DECAYED), to.as_kind("Adam"), "L2 for decoupled decay"),
    _state(
        "attention, AdamW: Adam with L2", attention("AdamW", **_DECAYED), to.as_kind("Adam"), "L2 for decoupled decay"
    ),
    _state("mlp, Adam with L2: AdamW", mlp("Adam", **_DECAYED), to.as_kind("AdamW"), "decoupled decay for L2"),
    _state("conv, Adam with L2: AdamW", conv("Adam", **_DECAYED), to.as_kind("AdamW"), "decoupled decay for L2"),
    _update(
        "mlp, AdamW: no decay of biases",
        mlp("AdamW", **_DECAYED),
        optimizer(to.masked_decay),
        "decay skipped on some parameters",
    ),
    _update(
        "attention, AdamW: no decay of biases and LayerNorm",
        attention("AdamW", **_DECAYED),
        optimizer(to.masked_decay),
        "decay skipped on some parameters",
    ),
    _update(
        "mlp, AdamW: decay of biases too",
        mlp("AdamW", **_DECAYED, decay_matrices_only=True),
        optimizer(to.decay_everywhere),
        "decay on all parameters",
    ),
    _update(
        "attention, AdamW: decay of biases and LayerNorm too",
        attention("AdamW", **_DECAYED, decay_matrices_only=True),
        optimizer(to.decay_everywhere),
        "decay on all parameters",
    ),
    _update("conv, AdamW: Optax's own decay, 1e-4", conv("AdamW"), settings(weight_decay=1e-4), "decay"),
    _update(
        "attention, AdamW: a decay 1e-3 off",
        attention("AdamW", **_DECAYED),
        settings(weight_decay=to.times(1.001)),
        "decay",
    ),
)

FAULTS = (*_SETTINGS, *_DECAY)
