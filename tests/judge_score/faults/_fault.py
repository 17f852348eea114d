"""What a fault is, and the trainings that faults are put into."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from parity import Port, Recording
from tests.judge_score import jax_side
from tests.judge_score.jax_models import Choices
from tests.judge_score.trainings import Training

# From the right port, the training it is of, and what was recorded, to the port with the fault in it.
Change = Callable[[Port, Training, Recording], Port]


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault in one port, and what a judge must say of it, worked out by hand.

    Attributes:
        name: what is wrong, in words; unique.
        training: what it is put into.
        change: puts it there.
        stage, step: where the two sides first part.
        cause: the stable name of what is wrong.
    """

    name: str
    training: Training
    change: Change
    stage: str
    step: int
    cause: str

    def port(self, recording: Recording) -> Port:
        """The port with the fault in it."""
        return self.change(jax_side.port(self.training)(recording), self.training, recording)


def _training(model: str, optimizer: str = "SGD", **more: Any) -> Training:
    """Loss by the model; what is no field of a training is a setting of its optimizer."""
    fields = {field.name for field in dataclasses.fields(Training)}
    options = {"lr": 0.05 if optimizer == "SGD" else 0.01} | {key: v for key, v in more.items() if key not in fields}
    classes = model in ("attention", "tagger", "conv_group")
    given = {"loss": "cross_entropy" if classes else "mse"} | {key: v for key, v in more.items() if key in fields}
    return Training(model, optimizer, tuple(sorted(options.items())), **given)


def linear(optimizer: str = "SGD", model: str = "linear", **more: Any) -> Training:
    """A linear layer, squared error."""
    return _training(model, optimizer, **more)


def mlp(optimizer: str = "SGD", model: str = "mlp_relu", **more: Any) -> Training:
    """Three linear layers, squared error."""
    return _training(model, optimizer, **more)


def conv(optimizer: str = "SGD", model: str = "conv_batch", **more: Any) -> Training:
    """A convolution and BatchNorm, squared error; or GroupNorm, cross-entropy."""
    return _training(model, optimizer, **more)


def attention(optimizer: str = "SGD", model: str = "attention", **more: Any) -> Training:
    """A block of attention, cross-entropy; or the tagger."""
    return _training(model, optimizer, **more)


# -- changes that several files of faults use


def settings(**options: Any) -> Change:
    """The optimizer with other settings; a function is given the right value."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        given = training.settings
        new = {key: value(given[key]) if callable(value) else value for key, value in options.items()}
        return jax_side.changed(port, optimizer=jax_side.optimizer(training.with_options(**new)))

    return change


def optimizer(make: Callable[[Training], Any]) -> Change:
    """Another optimizer."""
    return lambda port, training, recording: jax_side.changed(port, optimizer=make(training))


def choice(**choices: Any) -> Change:
    """The model written with another number than PyTorch's."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        return jax_side.changed(port, **jax_side.model(training, Choices(**choices), recording))

    return change


def loss(make: Callable[[Any], Any]) -> Change:
    """Another loss, made from the right one."""
    return lambda port, training, recording: jax_side.changed(port, loss=make(port.loss))
