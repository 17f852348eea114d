"""The recording: all that was observed of one PyTorch training, as NumPy arrays and plain values only."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import _validation
from parity._errors import OutputError, RecordingError
from parity._words import count
from parity.recording import archive, trees, validation
from parity.recording.graph import Graph
from parity.recording.program_output import PrintedLine

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]
# What a model takes or gives, what a loss takes beside it.
Tree = trees.Tree

# Torch classes by their full names, as a recording keeps them.
LINEAR = "torch.nn.modules.linear.Linear"
MSE = "torch.nn.modules.loss.MSELoss"
# A loss that is none of torch's own.
HOOKED = (
    "The program hangs a forward hook on its model: what that makes of the predictions counts as a part of the loss."
)
OWN = "a loss of its own"
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
        buffers: the model's own state *after* each step (``"bn.running_mean"``), by PyTorch's buffer name: the floating
            buffers that changed; one that never did is a constant, and in ``initial_buffers`` alone.
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
    """What one step was fed: the model's input and what the loss took beside its output, each a tree of arrays.

    One tensor that the model was called with is an array, several are a tuple, and with any given by name all are a
    dict by name. One target is an array, several are a tuple in the order in which the loss takes them, none ``()``.

    ``parts`` are the rows of each backward pass, where gradients of several are added up before the step.
    """

    inputs: Tree
    targets: Tree
    parts: tuple[int, ...]

    def passes(self) -> list[tuple[Tree, Tree]]:
        """Return inputs and targets of each backward pass."""
        ends = np.cumsum((0, *self.parts)).tolist()
        if len(self.parts) < 2:
            return [(self.inputs, self.targets)]
        whole = (self.inputs, self.targets)
        return [
            trees.mapped(lambda leaf: leaf[first:end], whole)  # noqa: B023
            for first, end in itertools.pairwise(ends)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A call of the model that no optimizer step followed, such as a prediction after the training.

    Attributes:
        step: number of optimizer steps made before it.
        inputs: what the model was given, a tree of arrays.
        outputs: what it returned, a tree of arrays.
    """

    step: int
    inputs: Tree
    outputs: Tree


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
            recorded weights, the optimizer fed the recorded gradients. Where steps were left out, the optimizer starts
            each kept one from the recorded state, and the losses of the others are NaN.
        arbiter_free: PyTorch in float64 from the initial weights, on its own.
        evaluations: calls of the model outside the training steps.
        printed: the program's output, line by line.
        environment: versions, device, threads; strings and numbers.
        initial_buffers: the model's floating buffers before the first step, by PyTorch's name, constants among them.
        thinned: the steps whose tensors were kept, where a memory limit left others out; see :attr:`kept`.
        starts: what those steps started from; ``None`` where every step was kept.
        notes: what was left out of the recording, in sentences.
        clipping: how the gradients are clipped before each step, by the names of PyTorch's arguments; empty where they
            are not. Recorded gradients are those before it.
        graphs: by name, the kinds of steps that there are, each as a graph from weights and inputs to the loss. A batch
            then feeds one of them: its inputs are a dict with that name as its only key. Empty where the recording is
            of one model and one loss.
        whole: the same training recorded by its graphs, where this recording is of one model and one loss, which a
            port of one's own is written for, and parity ports the graphs.
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
    clipping: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    graphs: Mapping[str, Graph] = dataclasses.field(default_factory=dict)
    whole: Recording | None = None

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
        """Return the weights each kept step started from, by name, shape ``(k, *parameter shape)``."""
        if self.starts is not None:
            return dict(self.starts.weights)
        return _shifted(self.initial, self.observed.weights)

    def buffers_before(self) -> dict[str, Array]:
        """Return the model's own state that each kept step started from, by name."""
        if self.starts is not None:
            return dict(self.starts.buffers)
        return _shifted(self.initial_buffers, self.observed.buffers)

    def state_before(self) -> dict[str, dict[str, Array]]:
        """Return the optimizer state each kept step started from, by PyTorch's key and parameter name.

        Before the first step a state is what PyTorch makes it: zero, but for Adagrad's sum and Rprop's step size.
        """
        if self.starts is not None:
            return {key: dict(tensors) for key, tensors in self.starts.state.items()}
        return {
            key: _shifted({name: self._fresh(key, name, values[0]) for name, values in tensors.items()}, tensors)
            for key, tensors in self.observed.state.items()
        }

    def _fresh(self, key: str, name: str, like: Array) -> Array:
        return fresh_state(key, self.rules[name], float(self.learning_rates[name][0]), like)

    def first(self, steps: int) -> Recording:
        """Return the recording of its first ``steps`` steps alone.

        Raises:
            ValueError: there are not as many, or none of those was asked for.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"expected steps from 1 to {self.steps:,}, got {steps:,}")
        if steps == self.steps:
            return self
        used, places = np.unique(self.batch_of_step[:steps], return_inverse=True)
        kept = self.kept[self.kept < steps]
        whole, rows = len(kept) == steps, len(kept)
        starts = self.starts
        return dataclasses.replace(
            self,
            learning_rates={name: rates[:steps] for name, rates in self.learning_rates.items()},
            batches=tuple(self.batches[place] for place in used),
            batch_of_step=places.reshape(-1),
            observed=_first(self.observed, steps, rows),
            arbiter_locked=_first(self.arbiter_locked, steps, rows),
            arbiter_free=_first(self.arbiter_free, steps, rows),
            evaluations=tuple(one for one in self.evaluations if one.step <= steps),
            printed=tuple(line for line in self.printed if line.last_step <= steps),
            whole=None if self.whole is None else self.whole.first(steps),
            thinned=None if whole else kept,
            starts=None
            if whole or starts is None
            else Starts(
                _cut(starts.weights, rows),
                {key: _cut(tensors, rows) for key, tensors in starts.state.items()},
                _cut(starts.buffers, rows),
            ),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to one ``.npz`` file, without pickle; whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        archive.write(_validation.as_path(path, "a path to write the recording to", OutputError), archive.pack(self))

    def to_bytes(self) -> bytes:
        """Return the content of the file that :meth:`save` writes."""
        return archive.pack(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a recording that :meth:`save` wrote.

        Raises:
            RecordingError: there is no such file, or it is not a recording of this version, whole and unchanged.
        """
        recording = archive.read(_validation.as_path(path, "the path of a recording", RecordingError), cls)
        validation.check(recording, str(path))
        return recording

    def __repr__(self) -> str:
        first = self.batches[0].inputs
        leaves = trees.leaves(first)
        alone = len(leaves) == 1 and leaves[0].ndim
        rows = count(leaves[0].shape[0], "row") if alone else f"inputs {trees.shapes(first)}"
        parts = f"{self.model}, {self.loss}, {self.optimizer}"
        kept = "" if self.thinned is None else f" ({len(self.thinned):,} kept)"
        return f"Recording({self.name!r}: {parts}, {count(self.steps, 'step')}{kept}, {rows})"


def fresh_state(key: str, rule: Mapping[str, float], rate: float, like: Array) -> Array:
    """Make the state that PyTorch's optimizers begin with."""
    value = {"sum": rule.get("initial_accumulator_value", 0.0), "step_size": rate}.get(key, 0.0)
    return np.full_like(like, value)


def _cut(tensors: Tensors, rows: int) -> dict[str, Array]:
    return {name: values[:rows] for name, values in tensors.items()}


def _first(trace: Trace, steps: int, rows: int) -> Trace:
    return Trace(
        predictions=trace.predictions[:rows],
        losses=trace.losses[:steps],
        gradients=_cut(trace.gradients, rows),
        state={key: _cut(tensors, rows) for key, tensors in trace.state.items()},
        weights=_cut(trace.weights, rows),
        buffers=_cut(trace.buffers, rows),
    )


def _shifted(first: Tensors, after: Tensors) -> dict[str, Array]:
    return {name: np.concatenate([first[name][None], values[:-1]]) for name, values in after.items()}
