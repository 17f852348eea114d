"""What the charts draw: curves of a judgement, thinned to what a page can show and computed for nothing else."""

from __future__ import annotations

import itertools

import numpy as np

from parity.judging.judgement import Judgement
from parity.recording.recording import LINEAR, Array, Recording, Tensors, Tree
from parity.report.render.numbers import JsonDict

# Points of a curve, elements of the weights, tensors with a distance, and points of the data that a page draws.
_CURVE_POINTS, _WEIGHT_CURVES, _DISTANCE_CURVES, _DATA_POINTS = 240, 6, 8, 400


def series(judgement: Judgement) -> JsonDict:
    """Return the curves of losses, a few weights and the distances of the tensors most apart, and the data."""
    return {
        "loss": _losses(judgement),
        "weights": _weights(judgement),
        "distance": _distances(judgement),
        "data": _data(judgement),
    }


def thinned(length: int) -> Array:
    """Return the places worth drawing: closer at the start, where things move, and evenly to the end."""
    if length <= _CURVE_POINTS:
        return np.arange(length)
    early, even = np.geomspace(1, length, _CURVE_POINTS // 2) - 1, np.linspace(0, length - 1, _CURVE_POINTS // 2)
    return np.unique(np.concatenate([early, even]).astype(int))


def _losses(judgement: Judgement) -> list[JsonDict]:
    torch, own = judgement.recording.observed.losses, judgement.replay.free.losses
    steps = np.arange(len(torch)) if len(own) == len(torch) else judgement.recording.kept
    torch = torch[steps] if len(own) != len(torch) else torch
    at = thinned(len(steps))
    return [{"step": int(steps[i]), "torch": float(torch[i]), "jax": float(own[i])} for i in at]


def _places(recording: Recording) -> list[tuple[int, int]]:
    """Return the points of a curve: how many steps were made, and the row of the tensors (-1 for the start)."""
    made = np.concatenate([[0], recording.kept + 1])
    return [(int(made[i]), int(i) - 1) for i in thinned(len(made))]


def _weights(judgement: Judgement) -> list[JsonDict]:
    recording, replay = judgement.recording, judgement.replay
    every = ((name, index) for name, values in recording.initial.items() for index in np.ndindex(values.shape))
    rows: list[JsonDict] = []
    for name, index in itertools.islice(every, _WEIGHT_CURVES):
        for step, row in _places(recording):
            torch = _after(recording.initial, recording.observed.weights, name, row)[index]
            own = _after(replay.initial, replay.free.weights, name, row)[index]
            rows.append({"tensor": f"{name}{list(index)}", "step": step, "torch": float(torch), "jax": float(own)})
    return rows


def _distances(judgement: Judgement) -> list[JsonDict]:
    recording, replay = judgement.recording, judgement.replay
    bounds = judgement.bounds
    rows: list[JsonDict] = []
    for name in _most_apart(judgement):
        for step, row in _places(recording):
            torch = _after(recording.initial, recording.observed.weights, name, row)
            own = _after(replay.initial, replay.free.weights, name, row)
            torch64 = _after(recording.initial, recording.arbiter_free.weights, name, row)
            own64 = _after(replay.initial, replay.free64.weights, name, row)
            limits = 2 * [_bound(bounds.free.weights, name, row)]
            values = {
                "float32": _largest_distance(torch, own),
                "float64": _largest_distance(torch64, own64),
                "bound": _largest(*limits),
            }
            rows.append({"tensor": name, "step": step, **values})
    return rows


def _most_apart(judgement: Judgement) -> list[str]:
    """Return the tensors whose distance is drawn, in the program's order: first chosen are those that fail."""
    names = list(judgement.recording.initial)
    if len(names) <= _DISTANCE_CURVES:
        return names
    rank: dict[str, tuple[float, ...]] = {}
    for finding in judgement.findings:
        if finding.stage in ("trajectory", "final weights") and finding.tensor in judgement.recording.initial:
            used = max(finding.torch_used, finding.jax_used)
            own = (float(not finding.holds), used, finding.float64_difference or 0.0)
            rank[finding.tensor] = max(own, rank.get(finding.tensor, own))
    chosen = sorted(names, key=lambda name: rank.get(name, (-1.0,)), reverse=True)[:_DISTANCE_CURVES]
    return [name for name in names if name in chosen]


def _after(initial: Tensors, weights: Tensors, name: str, row: int) -> Array:
    return np.asarray(initial[name] if row < 0 else weights[name][row])


def _bound(weights: Tensors, name: str, row: int) -> Array:
    """Return the bound on one side: zero at the start, infinite where none was derived."""
    if row < 0:
        return np.zeros(())
    values = weights.get(name)
    return np.asarray(np.inf if values is None or len(values) <= row else values[row], np.float64)


def _largest(torch: Array, own: Array) -> float:
    return float(np.max(torch + own, initial=0.0))


def _largest_distance(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0.0))


def _data(judgement: Judgement) -> JsonDict | None:
    """Return points and fitted lines, where one input and one output make a picture of them."""
    recording = judgement.recording
    batch = recording.batches[0]
    if not _is_line(recording, batch.inputs, batch.targets):
        return None
    x, y = (np.asarray(values, np.float64).ravel() for values in (batch.inputs, batch.targets))
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _DATA_POINTS)).astype(int))
    ends = np.array([x.min(), x.max()])
    lines = {}
    for side, weights in (("torch", recording.observed.weights), ("jax", judgement.replay.free.weights)):
        bias = weights["bias"][-1].item() if "bias" in weights else 0.0
        lines[side] = weights["weight"][-1].item() * ends + bias
    return {
        "x_label": judgement.axes[0],
        "y_label": judgement.axes[1],
        "points": [{"x": float(x[i]), "y": float(y[i])} for i in chosen],
        "lines": [
            {"x": float(ends[i]), "torch": float(lines["torch"][i]), "jax": float(lines["jax"][i])} for i in (0, 1)
        ],
    }


def _is_line(recording: Recording, inputs: Tree, targets: Tree) -> bool:
    if recording.model.type != LINEAR or not (isinstance(inputs, np.ndarray) and isinstance(targets, np.ndarray)):
        return False
    return inputs.ndim > 0 and inputs.size == targets.size == len(inputs) > 0
