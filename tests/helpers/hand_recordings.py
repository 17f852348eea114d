"""Recordings of any PyTorch training, made step by step in the test itself: for tests of the JAX side alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from parity import Recording
from parity.recording.recording import Batch, Part, Starts, Trace


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _call(model: torch.nn.Module, inputs: Any) -> Any:
    given = pytree.tree_map(torch.from_numpy, inputs)
    if isinstance(given, dict):
        return model(**given)
    return model(*given) if isinstance(given, tuple) else model(given)


def train(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[Any, Any]],
    order: Sequence[int],
) -> Recording:
    """Train and write down every step; the arbiter's traces are the run's own."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    initial = {name: _array(value) for name, value in parameters.items()}
    initial_buffers = {name: _array(value) for name, value in buffers.items()}
    predictions, losses, rows = [], [], []
    for place in order:
        inputs, targets = batches[place]
        optimizer.zero_grad()
        made = _call(model, inputs)
        value = loss(made, pytree.tree_map(torch.from_numpy, targets))
        value.backward()
        gradients = {name: _array(p.grad) for name, p in parameters.items() if p.grad is not None}
        optimizer.step()
        state: dict[str, dict[str, np.ndarray]] = {}
        for name, parameter in parameters.items():
            for key, tensor in optimizer.state.get(parameter, {}).items():
                if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape and key != "step":
                    state.setdefault(key, {})[name] = _array(tensor)
        predictions.append(pytree.tree_map(_array, made))
        losses.append(value.item())
        weights = {name: _array(value) for name, value in parameters.items()}
        rows.append((gradients, state, weights, {name: _array(value) for name, value in buffers.items()}))
    stacked = [_stacked([row[field] for row in rows]) for field in range(4)]
    dtype = next(iter(initial.values())).dtype
    trace = Trace(tuple(predictions), np.array(losses, dtype), *stacked)
    trained = list(rows[0][0])
    return Recording(
        name="by hand",
        source="",
        seed=None,
        model=Part(type(model).__name__, {}),
        loss=Part("loss", {}),
        optimizer=Part(type(optimizer).__name__, {}),
        rules={name: {} for name in trained},
        learning_rates={name: np.full(len(order), optimizer.param_groups[0]["lr"]) for name in trained},
        initial=initial,
        batches=tuple(Batch(inputs, targets, (len(pytree.tree_leaves(inputs)[0]),)) for inputs, targets in batches),
        batch_of_step=np.array(order),
        observed=trace,
        arbiter_locked=trace,
        arbiter_free=trace,
        evaluations=(),
        printed=(),
        environment={},
        initial_buffers=initial_buffers,
    )


def _stacked(rows: list[Any]) -> Any:
    first = rows[0]
    if isinstance(first, dict):
        return {key: _stacked([row[key] for row in rows]) for key in first}
    return np.stack(rows)


def thinned(recording: Recording, keep: Sequence[int]) -> Recording:
    """The same recording with the tensors of some steps alone, and what those started from."""
    kept = np.array(keep)
    trace = recording.observed

    def some(tree: Any) -> Any:
        return {key: some(value) for key, value in tree.items()} if isinstance(tree, dict) else tree[kept]

    def before(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: before(value) for key, value in tree.items()}
        return np.concatenate([np.zeros_like(tree[:1]), tree[:-1]])[kept]

    fewer = Trace(
        tuple(trace.predictions[step] for step in keep),
        trace.losses, some(trace.gradients), some(trace.state), some(trace.weights), some(trace.buffers),
    )  # fmt: skip
    weights, buffers = recording.weights_before(), recording.buffers_before()
    starts = Starts(some(weights), before(trace.state), some(buffers))
    changed: dict[str, Any] = dict.fromkeys(("observed", "arbiter_locked", "arbiter_free"), fewer)
    return dataclasses.replace(recording, thinned=kept, starts=starts, **changed)
