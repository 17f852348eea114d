"""A backward pass as a recording takes it up: which call of which module, and what counts as its prediction."""

from __future__ import annotations

from typing import Any

import torch

from parity._errors import UnsupportedError
from parity.capture.loss_graph import Loss, Ref, loss_of
from parity.capture.loss_recognition import described, scaled, squared_error, unreshaped
from parity.capture.observed_run import Pass
from parity.capture.torch_tensors import to_array
from parity.recording.recording import Part


def pass_of(value: Any, root: torch.Tensor, seed: Any) -> Pass:
    """The backward pass that begins at ``root``, of which the tape knows ``value``.

    A model that comes to one linear layer, whose output goes reshaped into a squared error, is that layer, and the
    reshaped output is its prediction.

    Raises:
        UnsupportedError: the loss is not one of one call's output.
    """
    loss = _of_layer(value, root, seed)
    error = None if loss is None else _error_of(loss)
    layer = error is not None
    if loss is None or error is None:
        loss = loss_of(value, root, seed)
        error = _error_of(loss)
    worth = to_array(loss.value).reshape(()) * 1
    worth = worth if loss.seed == 1.0 else (worth * loss.seed).astype(worth.dtype)
    left = [p for p in loss.call.module.parameters() if p.grad is not None and bool(p.grad.any())]
    targets = loss.arrays()
    predictions = loss.call.outputs
    if layer and error is not None:
        predictions = predictions.reshape(error[1])
    part = error[0] if error is not None else described(loss)
    return Pass(loss, part, layer, predictions, targets, worth, frozenset(map(id, left)))


def _of_layer(value: Any, root: torch.Tensor, seed: Any) -> Loss | None:
    """The loss as one of what a linear layer inside the model gave; ``None`` where it is none of one call of it."""
    try:
        loss = loss_of(value, root, seed, layers=True)
    except UnsupportedError:
        return None
    return loss if isinstance(loss.call.module, torch.nn.Linear) else None


def _error_of(loss: Loss) -> tuple[Part, tuple[int, ...]] | None:
    """A squared error of the model's one output and one target, and the shape that the output has there."""
    found = squared_error(loss)
    if found is None or len(loss.targets) != 1:
        return None
    reduction, factor, first, second = found
    for prediction, target in ((first, second), (second, first)):
        made = unreshaped(loss, prediction)
        if made == Ref("predictions") and target == Ref("target"):
            return scaled(loss.targets[0].numel(), factor, reduction), _shape(loss, prediction)
    return None


def _shape(loss: Loss, ref: Ref) -> tuple[int, ...]:
    """The shape of what stands at ``ref``, which was only reshaped."""
    output = torch.from_numpy(loss.call.outputs)
    return tuple(loss.of(output, [torch.empty(())], ref).shape)
