"""How far rounding alone can move each value of a training: the closed form for Linear, MSELoss and SGD.

Whoever brings another way to derive bounds gives the judge a :class:`Bounds`; nothing else changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity._errors import UnsupportedError
from parity._linear_bounds import Format, Problem, chain_bounds
from parity._recording import LINEAR, MSE, SGD, Array, Batch, Recording, Trace
from parity._replay import Replay
from parity._sgd_bounds import Rule, free_bounds, locked_bounds, step_roundings

# Elements of the largest temporary array; longer trainings are taken in pieces.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds in the shape of the traces they hold for: on the distance from the exact value.

    Attributes:
        locked, locked64: of one step from the recorded state, in the recording's dtype and in float64.
        free_torch, free_jax, free_torch64, free_jax64: of each side's training on its own.
    """

    locked: Trace
    locked64: Trace
    free_torch: Trace
    free_jax: Trace
    free_torch64: Trace
    free_jax64: Trace


def derive(recording: Recording, replay: Replay) -> Bounds:
    """The bounds for a recorded training and its replay.

    Raises:
        UnsupportedError: the training is not one of Linear, MSELoss and SGD.
    """
    kinds = [recording.model.type, recording.loss.type, recording.optimizer.type]
    if kinds != [LINEAR, MSE, SGD]:
        raise UnsupportedError(
            f"no rounding bound is known for {recording.model.type} with {recording.loss.type} and "
            f"{recording.optimizer.type}; it is for torch.nn.Linear with torch.nn.MSELoss and torch.optim.SGD"
        )
    own, double = Format.of(recording.dtype), Format.of(np.dtype(np.float64))
    return Bounds(
        locked=_locked(recording, own),
        locked64=_locked(recording, double),
        free_torch=_free(recording, recording.observed, recording.initial, own),
        free_jax=_free(recording, replay.free, replay.initial, own),
        free_torch64=_free(recording, recording.arbiter_free, recording.initial, double),
        free_jax64=_free(recording, replay.free64, replay.initial, double),
    )


def _locked(recording: Recording, form: Format) -> Trace:
    """Weights, and what the optimizer is fed, are as recorded; the float64 run stands for the exact values."""
    exact = recording.arbiter_locked
    before = _joined(recording.weights_before())
    rule, rates = _rule(recording)
    buffer = _buffer(exact, before)
    rounded = step_roundings(
        rule, rates, _joined(recording.observed.gradients), buffer, before, _joined(exact.weights), form
    )
    off_buffer, off_weights = locked_bounds(rule, rates, rounded, form)
    return _as_trace(recording, _chain(recording, before, np.zeros_like(before), form), off_buffer, off_weights)


def _free(recording: Recording, run: Trace, initial: Any, form: Format) -> Trace:
    """Errors are bounded at the weights that the run itself passed through, and carried along."""
    after = _joined(run.weights)
    before = np.concatenate([_joined({name: value[None] for name, value in initial.items()}), after[:-1]])
    rule, rates = _rule(recording)
    fresh = _chain(recording, before, np.zeros_like(before), form)
    rounded = step_roundings(rule, rates, _joined(run.gradients), _buffer(run, before), before, after, form)
    hessians = [_hessian(recording, batch) for batch in recording.batches]
    off_buffer, off_weights = free_bounds(
        rule, rates, hessians, recording.batch_of_step, _gradient_bounds(recording, fresh), rounded
    )
    off_before = np.concatenate([np.zeros_like(off_weights[:1]), off_weights[:-1]])
    return _as_trace(recording, _chain(recording, before, off_before, form), off_buffer, off_weights)


# -- weights and biases as one array (steps, outputs, inputs + 1), which is how SGD sees them


def _joined(tensors: Any) -> Array:
    weight = np.asarray(tensors["weight"], np.float64)
    return (
        np.concatenate([weight, np.asarray(tensors["bias"], np.float64)[..., None]], -1)
        if "bias" in tensors
        else weight
    )


def _parted(recording: Recording, joined: Array) -> dict[str, Array]:
    if "bias" not in recording.initial:
        return {"weight": joined}
    return {"weight": joined[..., :-1], "bias": joined[..., -1]}


def _buffer(run: Trace, like: Array) -> Array:
    """The momentum buffers, zero where a parameter has none."""
    kept = run.state.get("momentum_buffer", {})
    inputs = run.weights["weight"].shape[-1]
    none = {"weight": np.zeros_like(like[..., :inputs])}
    if "bias" in run.weights:
        none["bias"] = np.zeros(like.shape[:-1])
    return _joined({**none, **kept})


def _rule(recording: Recording) -> tuple[Rule, Array]:
    """SGD's settings and learning rates, column by column."""
    widths = {name: values.shape[1] if name == "weight" else 1 for name, values in recording.initial.items()}
    columns = [name for name in ("weight", "bias") if name in widths for _ in range(widths[name])]
    still = np.zeros(recording.steps)
    rates = np.stack([recording.learning_rates.get(name, still) for name in columns], -1)
    return Rule.of([recording.rules.get(name) for name in columns]), rates


def _problems(recording: Recording, batch: Batch) -> list[Problem]:
    """The backward passes of one step, one after the other."""
    weight, settings = recording.initial["weight"], recording.loss.settings
    problems = []
    for inputs, targets in batch.passes():
        x = np.asarray(inputs, np.float64).reshape(-1, weight.shape[1])
        y = np.asarray(targets, np.float64).reshape(-1, weight.shape[0])
        share = 1 / y.size if settings["reduction"] == "mean" else 1.0
        problems.append(Problem(x, y, float(settings.get("scale", 1.0)) * share, len(batch.parts)))
    return problems


def _hessian(recording: Recording, batch: Batch) -> Array:
    bias = "bias" in recording.initial
    total = 0.0
    for x, _, scale, _ in _problems(recording, batch):
        design = np.concatenate([x, np.ones((len(x), 1))], 1) if bias else x
        total = total + 2 * scale * design.T @ design
    return np.asarray(total)


# -- the chain of forward, loss and gradient, over all steps


@dataclasses.dataclass(eq=False)
class _Gathered:
    """Chain bounds of all steps, in the steps' order."""

    predictions: list[Array]
    losses: Array
    weight: Array
    bias: Array


def _chain(recording: Recording, before: Array, off: Array, form: Format) -> _Gathered:
    steps, outputs, width = before.shape
    inputs = recording.initial["weight"].shape[1]
    none = np.empty(0)
    kept = _Gathered([none] * steps, np.empty(steps), np.empty((steps, outputs, inputs)), np.empty((steps, outputs)))
    bias = width > inputs
    for problems, chosen in _pieces(recording, outputs):
        biases = [a[chosen, :, -1] if bias else np.zeros((len(chosen), outputs)) for a in (before, off)]
        at, off_at = before[chosen, :, :inputs], off[chosen, :, :inputs]
        passes = [chain_bounds(problem, at, biases[0], off_at, biases[1], form) for problem in problems]
        kept.losses[chosen] = sum(bounds.losses for bounds in passes)
        kept.weight[chosen] = sum(bounds.weight for bounds in passes)
        kept.bias[chosen] = sum(bounds.bias for bounds in passes)
        predictions = np.concatenate([bounds.predictions for bounds in passes], 1)
        for row, step in enumerate(chosen):
            kept.predictions[step] = predictions[row].reshape(recording.observed.predictions[step].shape)
    return kept


def _pieces(recording: Recording, outputs: int) -> Iterator[tuple[list[Problem], Array]]:
    """Each batch with the steps that were fed it, a bounded number at a time."""
    for place, batch in enumerate(recording.batches):
        problems = _problems(recording, batch)
        steps = np.flatnonzero(recording.batch_of_step == place)
        length = max(1, _CHUNK // max(1, outputs * sum(len(problem.inputs) for problem in problems)))
        for start in range(0, len(steps), length):
            yield problems, steps[start : start + length]


def _gradient_bounds(recording: Recording, kept: _Gathered) -> Array:
    if "bias" not in recording.initial:
        return kept.weight
    return np.concatenate([kept.weight, kept.bias[..., None]], -1)


def _as_trace(recording: Recording, kept: _Gathered, off_buffer: Array, off_weights: Array) -> Trace:
    gradients = _parted(recording, _gradient_bounds(recording, kept))
    state = {"momentum_buffer": _parted(recording, off_buffer)} if recording.observed.state else {}
    return Trace(tuple(kept.predictions), kept.losses, gradients, state, _parted(recording, off_weights))
