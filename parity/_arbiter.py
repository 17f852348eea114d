"""PyTorch's half of the arbiter: the recorded training once more in float64, locked and free."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from parity._recording import Array, Trace
from parity._seen import Seen, Steps, gradients, optimizer_state, to_array


def rerun(seen: Seen) -> tuple[Trace, Trace]:
    """The training in float64: locked to the recorded state at every step, and free from the initial weights."""
    return _train(seen, locked=True), _train(seen, locked=False)


def _double(array: Array) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.double() if tensor.is_floating_point() else tensor


def _train(seen: Seen, *, locked: bool) -> Trace:
    model, optimizer = copy.deepcopy(seen.live)
    model.to("cpu", torch.float64)
    scale = float(seen.loss.settings.get("scale", 1.0))
    parameters = dict(model.named_parameters())
    batches = [(_double(batch.inputs), _double(batch.targets)) for batch in seen.pool.batches]
    kept = Steps()
    before = seen.initial
    names = {id(parameter): name for name, parameter in parameters.items()}
    for step, place in enumerate(seen.batch_of_step):
        if locked or step == 0:
            _put(parameters, before)
        before = seen.steps.weights[step]
        inputs, targets = batches[place]
        parts = seen.pool.batches[place].parts
        model.zero_grad()
        gathered, total = [], 0.0
        for x, y in _split(inputs, targets, parts):
            # A program may have reshaped what the model gave before it took the loss.
            predictions = model(x).reshape(y.shape)
            loss = scale * seen.loss_function(predictions, y)
            loss.backward()  # type: ignore[no-untyped-call]
            gathered.append(to_array(predictions))
            total += loss.item()
        kept.predictions.append(gathered[0] if len(gathered) == 1 else np.concatenate(gathered))
        kept.losses.append(total)
        kept.gradients.append(gradients(parameters, seen.rules))
        if locked:
            for name in seen.rules:
                parameters[name].grad = _double(seen.steps.gradients[step][name])
        for group in optimizer.param_groups:
            for name in {names.get(id(parameter), "") for parameter in group["params"]} & seen.rules.keys():
                group["lr"] = seen.learning_rates[name][step]
        optimizer.step()
        kept.state.append(optimizer_state(optimizer, parameters))
        kept.weights.append({name: to_array(parameter) for name, parameter in parameters.items()})
    return kept.stacked()


def _split(inputs: torch.Tensor, targets: torch.Tensor, parts: tuple[int, ...]) -> Iterable[Any]:
    """The backward passes of one step."""
    if len(parts) == 1:
        return [(inputs, targets)]
    return zip(inputs.split(list(parts)), targets.split(list(parts)), strict=True)  # type: ignore[no-untyped-call]


def _put(parameters: dict[str, torch.nn.Parameter], values: dict[str, Array]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_double(values[name]))
