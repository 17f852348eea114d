"""What an observed run showed: the calls, the losses, and the steps as they are gathered."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity._recording import MSE, Array, Batch, Evaluation, Part, Trace

Rows = list[dict[str, Array]]
# Of a parameter group: what is recorded on its own, and what decides how torch does the work but not what it computes.
_NOT_SETTINGS = ("lr", "initial_lr", "foreach", "fused", "differentiable", "capturable")


def to_array(tensor: torch.Tensor) -> Array:
    """A tensor's values as a NumPy array of their own."""
    return np.array(tensor.detach().cpu().numpy())


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are plain values and say what is computed."""
    kinds = bool | int | float | str | None
    return {key: value for key, value in settings.items() if isinstance(value, kinds) and key not in _NOT_SETTINGS}


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


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """The optimizer's tensors that belong to a parameter each, by PyTorch's key and parameter name."""
    kept: dict[str, dict[str, Array]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.is_floating_point():
                kept.setdefault(key, {})[name] = to_array(value)
    return kept


def gradients(parameters: Mapping[str, torch.nn.Parameter], trained: Container[str]) -> dict[str, Array]:
    """The gradients by name; zero for a frozen parameter, whose gradient moves nothing."""
    return {
        name: to_array(p.grad if name in trained and p.grad is not None else torch.zeros_like(p))
        for name, p in parameters.items()
    }


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a module with parameters: an outermost one, or one of a linear layer inside.

    ``output`` is dropped once no loss can be taken of it.
    """

    module: torch.nn.Module
    inputs: Array | None
    output: Any
    values: Array
    step: int
    trained_on: bool = False


@dataclasses.dataclass(eq=False)
class Loss:
    """One loss, whether a module's or written out, and how it was differentiated.

    ``function`` computes it from predictions and targets, and ``predictions`` are what it was given.
    """

    part: Part
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    call: Call | None
    predictions: Array | None
    targets: Array | None
    value: Any
    backward_seed: float = 1.0
    uncleared: frozenset[int] = frozenset()  # identities of parameters whose gradients were there before


class BatchPool:
    """The different batches seen, each kept once."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._places: dict[bytes, int] = {}
        self._last = 0

    def place(self, batch: Batch) -> int:
        """The index of this batch, which is added if it is new."""
        inputs, targets = batch.inputs, batch.targets
        if self.batches:
            last = self.batches[self._last]
            if last.parts == batch.parts and _same(last.inputs, inputs) and _same(last.targets, targets):
                return self._last
        digest = hashlib.blake2b(repr(batch.parts).encode())
        for array in (inputs, targets):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        self._last = self._places.setdefault(digest.digest(), len(self.batches))
        if self._last == len(self.batches):
            self.batches.append(batch)
        return self._last


def _same(a: Array, b: Array) -> bool:
    """Bit for bit, so that a NaN is itself; quicker than a digest, and nearly always the answer is yes."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return bool(np.array_equal(first, second))


@dataclasses.dataclass(eq=False)
class Steps:
    """A trace in the making, one entry a step."""

    predictions: list[Array] = dataclasses.field(default_factory=list)
    losses: list[Any] = dataclasses.field(default_factory=list)
    gradients: Rows = dataclasses.field(default_factory=list)
    state: list[dict[str, dict[str, Array]]] = dataclasses.field(default_factory=list)
    weights: Rows = dataclasses.field(default_factory=list)

    def stacked(self) -> Trace:
        """The steps as arrays with a leading axis."""

        def over_steps(rows: Rows) -> dict[str, Array]:
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

        return Trace(
            predictions=tuple(self.predictions),
            losses=np.array(self.losses),
            gradients=over_steps(self.gradients),
            state={key: over_steps([row[key] for row in self.state]) for key in self.state[0]},
            weights=over_steps(self.weights),
        )


@dataclasses.dataclass(eq=False)
class Seen:
    """A whole run; ``live`` is a joint copy of model and optimizer from before the first step, and the loss."""

    model: Part
    loss: Part
    optimizer: Part
    live: tuple[torch.nn.Module, torch.optim.Optimizer]
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    initial: dict[str, Array]
    device: str
    pool: BatchPool = dataclasses.field(default_factory=BatchPool)
    steps: Steps = dataclasses.field(default_factory=Steps)
    rules: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    learning_rates: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    batch_of_step: list[int] = dataclasses.field(default_factory=list)
    evaluations: list[Evaluation] = dataclasses.field(default_factory=list)

    def add_passes(self, passes: Sequence[tuple[Loss, Call]]) -> None:
        """Take up what one step was fed and gave: one backward pass, or several whose gradients add up."""
        rows = tuple(np.atleast_1d(loss.predictions).shape[0] for loss, _ in passes)  # type: ignore[arg-type]
        batch = Batch(
            inputs=_joined([call.inputs for _, call in passes]),
            targets=_joined([loss.targets for loss, _ in passes]),
            parts=rows,
        )
        self.batch_of_step.append(self.pool.place(batch))
        self.steps.predictions.append(_joined([loss.predictions for loss, _ in passes]))
        # A loss that was scaled before backward() is the scaled one: its gradient is what the optimizer gets.
        total = sum(loss.backward_seed * float(loss.value) for loss, _ in passes)
        self.steps.losses.append(passes[0][0].value.dtype.type(total))
        for _, call in passes:
            call.trained_on = True


def _joined(arrays: Sequence[Array | None]) -> Array:
    known = [array for array in arrays if array is not None]
    return known[0] if len(known) == 1 else np.concatenate(known)


def scaled(loss: Loss) -> Part:
    """The loss with the factor it was multiplied by before ``backward``, where there is one.

    A sum that was divided by its number of elements is a mean, whatever the size of the batch.
    """
    factor, settings = loss.backward_seed, loss.part.settings
    if factor == 1.0:
        return loss.part
    if loss.part.type == MSE and settings["reduction"] == "sum" and loss.targets is not None:
        share = factor * loss.targets.size
        # The division was rounded once, and so was the product here.
        if abs(share - 1.0) <= 2 * float(np.finfo(loss.targets.dtype).eps):
            return Part(MSE, {"reduction": "mean"})
    return dataclasses.replace(loss.part, settings={**settings, "scale": factor})


def function_of(loss: Loss) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss as a function, without the factor."""
    part = scaled(loss)
    if part.type == MSE:
        return functools.partial(torch.nn.functional.mse_loss, reduction=part.settings["reduction"])
    return loss.function
