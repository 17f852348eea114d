"""The recording: all that was observed of one PyTorch training, as NumPy arrays and plain values only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import _archive

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]
# An array, or a tuple, list or dict of trees: what a model takes or gives, what a loss takes beside it.
Tree = Any

# Torch classes by their full names, as a recording keeps them.
LINEAR = "torch.nn.modules.linear.Linear"
MSE = "torch.nn.modules.loss.MSELoss"
SGD = "torch.optim.sgd.SGD"


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What one training did, step by step, in one precision. Losses are of every step, tensors of the ``k`` steps kept.

    Attributes:
        predictions: one tree of arrays a kept step, shapes as the model gave them.
        losses: shape ``(steps,)``.
        gradients: by PyTorch's parameter name, shape ``(k, *parameter shape)``.
        state: optimizer state *after* each step, by PyTorch's key (``"momentum_buffer"``) and parameter name.
        weights: the weights *after* each step, by parameter name, shape ``(k, *parameter shape)``.
        buffers: the model's own state *after* each step (``"bn.running_mean"``), by PyTorch's buffer name.
    """

    predictions: tuple[Tree, ...]
    losses: Array
    gradients: Tensors
    state: Mapping[str, Tensors]
    weights: Tensors
    buffers: Tensors = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Starts:
    """What each kept step started from, where not every step was kept; leading axis the kept steps."""

    weights: Tensors
    state: Mapping[str, Tensors]
    buffers: Tensors


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """What one step was fed: the model's input and the loss's target, each an array or a tree of arrays.

    ``parts`` are the rows of each backward pass, where gradients of several are added up before the step.
    """

    inputs: Array
    targets: Array
    parts: tuple[int, ...]

    def passes(self) -> list[tuple[Array, Array]]:
        """Inputs and targets of each backward pass."""
        ends = np.cumsum(self.parts)[:-1]
        if not ends.size:
            return [(self.inputs, self.targets)]
        return list(zip(np.split(self.inputs, ends), np.split(self.targets, ends), strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A call of the model that no optimizer step followed, such as a prediction after the training.

    Attributes:
        step: number of optimizer steps made before it.
        inputs: what the model was given, a tree of arrays.
        outputs: what it returned, a tree of arrays.
    """

    step: int
    inputs: Array
    outputs: Array


@dataclasses.dataclass(frozen=True)
class PrintedLine:
    """A line the program printed, and how far the training was: steps made, losses taken, evaluations made."""

    text: str
    step: int
    losses: int
    evaluations: int


@dataclasses.dataclass(frozen=True)
class Part:
    """A torch object as plain values: its class's full name and its settings."""

    type: str
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"{self.type.rpartition('.')[2]}({inside})"


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One run of a PyTorch training program.

    Attributes:
        name: the program's name, from its file or function.
        source: its source code; empty where there is none.
        seed: the seed the recorder was told to use in place of the program's own; ``None`` for the program's own.
        model, loss, optimizer: the recorded torch parts. Settings of the optimizer are those of all parameters.
        rules: by parameter name, the optimizer's settings but the learning rate; frozen parameters are left out.
        learning_rates: by parameter name, shape ``(steps,)``, float64; frozen parameters are left out.
        initial: the weights before the first step, by PyTorch's parameter name.
        batches: the different batches that were seen.
        batch_of_step: shape ``(steps,)``, which of them each step was fed.
        observed: the run itself.
        arbiter_locked: PyTorch in float64, every step from the recorded state: forward, loss and gradient at the
            recorded weights, the optimizer fed the recorded gradients.
        arbiter_free: PyTorch in float64 from the initial weights, on its own.
        evaluations: calls of the model outside the training steps.
        printed: the program's output, line by line.
        environment: versions, device, threads; strings and numbers.
        initial_buffers: the model's own state before the first step, by PyTorch's buffer name.
        thinned: the steps whose tensors were kept, where a memory limit left others out; see :attr:`kept`.
        starts: what those steps started from; ``None`` where every step was kept.
        notes: what was left out of the recording, in sentences.
    """

    name: str
    source: str
    seed: int | None
    model: Part
    loss: Part
    optimizer: Part
    rules: Mapping[str, Mapping[str, Any]]
    learning_rates: Tensors
    initial: Tensors
    batches: tuple[Batch, ...]
    batch_of_step: Array
    observed: Trace
    arbiter_locked: Trace
    arbiter_free: Trace
    evaluations: tuple[Evaluation, ...]
    printed: tuple[PrintedLine, ...]
    environment: Mapping[str, Any]
    initial_buffers: Tensors = dataclasses.field(default_factory=dict)
    thinned: Array | None = None
    starts: Starts | None = None
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> Array:
        """The steps whose tensors were kept, ascending: every step, but for recordings held within a memory limit."""
        return np.arange(self.steps) if self.thinned is None else self.thinned

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return len(self.batch_of_step)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parameters that the training does not move: not in the optimizer, or without a gradient."""
        return tuple(name for name in self.initial if name not in self.rules)

    @property
    def learning_rate(self) -> float | None:
        """The one learning rate of all parameters and steps; ``None`` where there are several."""
        rates = np.concatenate(list(self.learning_rates.values()))
        return float(rates[0]) if (rates == rates[0]).all() else None

    @property
    def is_plain(self) -> bool:
        """Whether all parameters are trained alike, on one batch, in one pass a step, at one learning rate."""
        rules = list(self.rules.values())
        alike = not self.frozen and all(rule == rules[0] for rule in rules)
        once = len(self.batches) == 1 and len(self.batches[0].parts) == 1
        return alike and once and self.learning_rate is not None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype the program trained in."""
        return np.dtype(next(iter(self.initial.values())).dtype)

    def weights_before(self) -> dict[str, Array]:
        """The weights each kept step started from, by name, shape ``(k, *parameter shape)``."""
        if self.starts is not None:
            return dict(self.starts.weights)
        return _shifted(self.initial, self.observed.weights)

    def buffers_before(self) -> dict[str, Array]:
        """The model's own state that each kept step started from, by name."""
        if self.starts is not None:
            return dict(self.starts.buffers)
        return _shifted(self.initial_buffers, self.observed.buffers)

    def save(self, path: str | Path) -> None:
        """Write the recording to one ``.npz`` file, without pickle; whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        _archive.write(Path(path), _archive.pack(self))

    def to_bytes(self) -> bytes:
        """The content of the file that :meth:`save` writes."""
        return _archive.pack(self)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a recording that :meth:`save` wrote.

        Raises:
            RecordingError: there is no such file, or it is not a recording of this version.
        """
        return _archive.read(Path(path), cls)

    def __repr__(self) -> str:
        rows = sum(batch.inputs.shape[0] for batch in self.batches[:1])
        parts = f"{self.model}, {self.loss}, {self.optimizer}"
        return f"Recording({self.name!r}: {parts}, {self.steps:,} steps, {rows:,} rows)"


def _shifted(first: Tensors, after: Tensors) -> dict[str, Array]:
    return {name: np.concatenate([first[name][None], values[:-1]]) for name, values in after.items()}
