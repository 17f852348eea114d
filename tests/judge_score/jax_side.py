"""The honest port of a training: model, loss and an Optax optimizer that is truly PyTorch's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

import jaxreg
from parity import Port, Recording
from tests.judge_score import jax_models, jax_parts
from tests.judge_score.jax_models import Choices
from tests.judge_score.trainings import Training


def port(training: Training, choices: Choices | None = None) -> Callable[[Recording], Port]:
    """What :func:`parity.check` takes: a function from the recording to the port."""

    def build(recording: Recording) -> Port:
        return Port(
            **model(training, choices or Choices(), recording),
            loss=jax_parts.loss(training.loss, training.reduction),
            optimizer=optimizer(training),
        )

    return build


def model(training: Training, choices: Choices, recording: Recording) -> dict[str, Any]:
    """The parts of the port that are the model's, with the recorded initial weights in it."""
    if training.model in ("attention", "tagger", "conv_batch"):
        apply = jax_models.plain_model(training.model, choices)
        params = jax_models.nested(recording.initial)
        if training.model != "conv_batch":
            return {"params": params, "apply": apply}
        # How many batches were seen is counted but used by nobody.
        running = {key: v for key, v in recording.initial_buffers.items() if not key.endswith("num_batches_tracked")}
        return {"params": params, "apply": apply, "state": jax_models.nested(running)}
    apply, shapes = jax_models.nnx_model(training.model, choices)
    params = jax_models.in_flax_layout(recording.initial)
    jax.tree.map(lambda mine, flax: None, params, shapes)  # the same tree, or an error
    return {"params": params, "apply": apply}


def schedule(training: Training) -> Any:
    """The learning rate: a number, or PyTorch's StepLR stepped once an epoch."""
    rate = training.settings["lr"]
    if not training.falls:
        return rate
    return jaxreg.lr_scheduler.step_lr(rate, training.falls, 0.5, steps_per_epoch=training.batches_per_epoch)


def matrices(params: Any) -> Any:
    """Which parameters are no biases and no normalisations."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@functools.lru_cache(maxsize=512)
def optimizer(training: Training) -> optax.GradientTransformation:
    """The optimizer, made once for the same settings."""
    return written(training.optimizer, training.settings, schedule(training), training.decay_matrices_only)


def written(
    kind: str, settings: Mapping[str, Any], rate: Any, matrices_only: bool = False
) -> optax.GradientTransformation:
    """PyTorch's optimizer ``kind`` in Optax, by PyTorch's settings."""
    options = {key: value for key, value in settings.items() if key not in ("lr", "maximize")}
    up = [optax.scale(-1.0)] if settings.get("maximize") else []
    if kind == "SGD":
        decay = options.pop("weight_decay", 0.0)
        mask = matrices if matrices_only else None
        decayed = [optax.add_decayed_weights(decay, mask)] if decay else []
        return optax.chain(*up, *decayed, jaxreg.sgd(rate, **options))
    b1, b2 = options.pop("betas", (0.9, 0.999))
    epsilon, decay = options.pop("eps", 1e-8), options.pop("weight_decay", 0.01 if kind == "AdamW" else 0.0)
    assert not options
    if kind == "AdamW":
        chosen = matrices if matrices_only else None
        return optax.chain(*up, optax.adamw(rate, b1, b2, epsilon, weight_decay=decay, mask=chosen))
    decayed = [optax.add_decayed_weights(decay, matrices if matrices_only else None)] if decay else []
    return optax.chain(*up, *decayed, optax.adam(rate, b1, b2, epsilon))


def changed(port: Port, **parts: Any) -> Port:
    """The port with other parts."""
    return dataclasses.replace(port, **parts)
