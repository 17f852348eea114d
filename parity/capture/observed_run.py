"""What an observed run showed: the calls, the passes, and what is known of the training as a whole."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity.capture.loss_graph import Loss
from parity.capture.step_retention import Keeper
from parity.capture.torch_tensors import Arguments, to_array
from parity.recording import trees as _trees
from parity.recording.recording import HOOKED, OWN, Array, Batch, Evaluation, Part, Tree

# Of a parameter group: what is recorded on its own, and what decides how torch does the work but not what it computes.
_NOT_SETTINGS = ("params", "lr", "initial_lr", "foreach", "fused", "differentiable", "capturable", "param_names")
_PLAIN = bool | int | float | str | None


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are plain values, or tuples of them, and say what is computed."""
    return {key: value for key, value in settings.items() if key not in _NOT_SETTINGS and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))


def part(thing: Any, settings: Mapping[str, Any]) -> Part:
    """A torch object as its class's full name and its settings."""
    kind = type(thing)
    return Part(f"{kind.__module__}.{kind.__qualname__}", plain(settings))


def module_part(module: torch.nn.Module) -> Part:
    """A module with the settings that torch itself names as its constants."""
    settings = {name: getattr(module, name, None) for name in getattr(module, "__constants__", [])}
    if "bias" in module._parameters:
        settings["bias"] = module._parameters["bias"] is not None
    return part(module, settings)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor]
) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Any]]]:
    """The optimizer's tensors that belong to a parameter each, by PyTorch's key and parameter name, and all else."""
    kept: dict[str, dict[str, Array]] = {}
    others: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, torch.Tensor):
                others.setdefault(name, {})[key] = value
            elif key != "step" and value.shape == parameter.shape and value.is_floating_point():
                kept.setdefault(key, {})[name] = to_array(value)
            else:
                others.setdefault(name, {})[key] = to_array(value)
    return kept, others


def gradients(
    parameters: Mapping[str, torch.Tensor], trained: Container[str], raw: Mapping[int, Array] | None = None
) -> dict[str, Array]:
    """The gradients by name, as they were before they were clipped; zero for a frozen one, which moves nothing."""
    made = {}
    for name, p in parameters.items():
        kept = None if raw is None or name not in trained else raw.get(id(p))
        made[name] = (
            kept
            if kept is not None
            else to_array(p.grad if name in trained and p.grad is not None else torch.zeros_like(p))
        )
    return made


def environment(device: str) -> dict[str, Any]:
    """Versions, and the settings of torch that decide how it computes."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": device,
        "threads": torch.get_num_threads(),
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
        "cuda_device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "",
    }
    try:
        found["matmul_precision"] = torch.get_float32_matmul_precision()
        found["allow_tf32"] = bool(torch.backends.cuda.matmul.allow_tf32)
        found["cudnn_allow_tf32"] = bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError as error:  # torch refuses to say where its older and newer settings were mixed
        found.setdefault("matmul_precision", f"unknown: {error}".partition("\n")[0])
    return found


@dataclasses.dataclass(eq=False)
class Call:
    """One call of an outermost module with parameters, or of the linear layer that it comes to.

    Attributes:
        module: what was called.
        step: number of optimizer steps made before it.
        buffers: the module's own state before it, by name.
        modes: which of the modules inside were in training mode, of those for which it matters.
        inputs, outputs: trees of arrays; let go of when the step is over and the call is no evaluation.
        arguments: what it was called with beside the tensors.
        chance: the function inside that drew random numbers, and the module that called it; empty where none did.
        evaluation: whether it is kept as one: an optimizer step was made and it had no part in it.
        lazy: whether the module had weights without a shape before it.
        before: of a linear layer inside a model, what the model makes of its input before the layer, by name.
        where: the program's line that called it, before the first step.
        used: the step that it alone was the forward pass of.
    """

    module: torch.nn.Module
    step: int
    buffers: dict[str, Array] = dataclasses.field(default_factory=dict)
    modes: tuple[tuple[str, bool], ...] = ()
    inputs: Tree = None
    outputs: Tree = None
    arguments: Arguments = dataclasses.field(default_factory=lambda: Arguments((), {}))
    chance: str = ""
    evaluation: bool = False
    lazy: bool = False
    before: tuple[str, ...] = ()
    where: str = ""
    used: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """One backward pass: the loss, how a recording names it, and what the model gave and was given for it.

    Attributes:
        layer: whether the call is that of a linear layer whose output, reshaped, went into a squared error.
        predictions: what a recording keeps as the prediction.
        value: the loss, as the gradient was taken of it.
        uncleared: identities of parameters whose gradients were there before.
    """

    loss: Loss
    part: Part
    layer: bool
    predictions: Tree
    targets: Tree
    value: Array
    uncleared: frozenset[int]

    @property
    def call(self) -> Call:
        call: Call = self.loss.call
        return call


class BatchPool:
    """The different batches seen, each kept once."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.size = 0
        self._places: dict[bytes, int] = {}
        self._last = 0

    def place(self, batch: Batch, limit: float = float("inf")) -> int | None:
        """The index of this batch, which is added if it is new; ``None`` where that would be over the limit."""
        tree = (batch.inputs, batch.targets)
        if self.batches:
            last = self.batches[self._last]
            if last.parts == batch.parts and _trees.same((last.inputs, last.targets), tree):
                return self._last
        digest = repr(batch.parts).encode() + _trees.digest(tree)
        if digest not in self._places:
            size = _trees.size(tree)
            if self.size + size > limit:
                return None
            self._places[digest] = len(self.batches)
            self.batches.append(batch)
            self.size += size
        self._last = self._places[digest]
        return self._last


@dataclasses.dataclass(eq=False)
class Seen:
    """A whole run; ``live`` is a joint copy of model and optimizer from before the first step.

    ``passes`` are the losses and the arguments of each batch, which the float64 run takes up again.
    """

    model: Part
    loss: Part
    optimizer: Part
    live: tuple[torch.nn.Module, torch.optim.Optimizer]
    initial: dict[str, Array]
    initial_buffers: dict[str, Array]
    environment: dict[str, Any]
    keeper: Keeper
    first: Pass
    dropout: bool
    rules: dict[str, dict[str, Any]]
    learning_rates: dict[str, list[float]]
    trainable: set[str] = dataclasses.field(default_factory=set)
    clipping: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pool: BatchPool = dataclasses.field(default_factory=BatchPool)
    passes: list[list[tuple[Loss, Arguments, tuple[int, ...] | None]]] = dataclasses.field(default_factory=list)
    batch_of_step: list[int] = dataclasses.field(default_factory=list)
    losses: list[Any] = dataclasses.field(default_factory=list)
    evaluations: list[Evaluation] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def note_before(self, one: Pass) -> None:
        """Say what the model makes of its input before its linear layer, which JAX is fed as data."""
        beginning = "What the model makes of its input before its linear layer"
        if one.layer and one.call.before and not any(note.startswith(beginning) for note in self.notes):
            self.notes.append(
                f"{beginning} ({', '.join(one.call.before)}) is PyTorch's on both sides: JAX is fed the result as "
                "data, and what is judged is the training of the layer."
            )

    def note_hooks(self, one: Pass) -> None:
        """Say that what a hook makes of the model's output is taken for a part of the loss."""
        if self.loss.type == OWN and one.call.module._forward_hooks and HOOKED not in self.notes:
            self.notes.append(HOOKED)

    def place(self, passes: Sequence[Pass], limit: float) -> bool:
        """Take up what a step is fed: one backward pass, or several whose gradients add up. Was there room?"""
        batch = Batch(
            inputs=joined([one.call.inputs for one in passes]),
            targets=joined([one.targets for one in passes]),
            parts=tuple(_rows(one) for one in passes),
        )
        place = self.pool.place(batch, limit)
        if place is None:
            return False
        if place == len(self.passes):
            # What the tape holds of tensors is needed no longer: the batch has their values.
            self.passes.append(
                [
                    (
                        dataclasses.replace(one.loss, call=None, targets=()),
                        one.call.arguments,
                        one.predictions.shape if one.layer else None,
                    )
                    for one in passes
                ]
            )
        self.batch_of_step.append(place)
        total = sum(float(one.value) for one in passes)
        self.losses.append(passes[0].value.dtype.type(total) if len(passes) > 1 else passes[0].value[()])
        return True


def _rows(one: Pass) -> int:
    """The rows of one pass: those of its first input, or of its prediction where it has none."""
    known = _trees.leaves(one.predictions if one.layer or not _trees.leaves(one.call.inputs) else one.call.inputs)
    return int(np.atleast_1d(known[0]).shape[0])


def joined(trees: Sequence[Tree]) -> Tree:
    """The rows of several trees, one after the other."""
    if len(trees) == 1:
        return trees[0]
    return _trees.mapped(lambda *arrays: np.concatenate(arrays), *trees)
