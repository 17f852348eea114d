"""A verdict as the plain document that the report is made of."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from parity._judge import Finding, ulps
from parity._recording import Array, Recording

if TYPE_CHECKING:
    from parity._verdict import Verdict

Json = dict[str, Any]
VERSION = 1
# Points of a curve, elements of a tensor and points of the data that a page draws; the recording holds them all.
_CURVE, _ELEMENTS, _POINTS = 240, 6, 400
_LISTED = 16
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "altair")


def report(verdicts: Sequence[Verdict], command: str) -> Json:
    """The document of a whole report."""
    programs = [verdict.to_dict() for verdict in verdicts]
    return {
        "version": VERSION,
        "ok": all(verdict.ok for verdict in verdicts),
        "headline": _headline(verdicts),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(verdicts[0]),
        "programs": programs,
    }


def _headline(verdicts: Sequence[Verdict]) -> str:
    parting = [verdict.title for verdict in verdicts if not verdict.ok]
    if parting:
        return f"The sides part: {', '.join(parting)}."
    what = "this program is" if len(verdicts) == 1 else f"these {len(verdicts)} programs are"
    return f"Parity holds: {what} the same training in PyTorch and in JAX."


def environment(verdict: Verdict) -> Json:
    """Where and with what the two sides ran."""
    recorded = verdict.recording.environment
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    dtype = verdict.recording.dtype
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"torch": recorded["torch"], **{name: importlib.metadata.version(name) for name in _PACKAGES}},
        "devices": {"torch": recorded["device"], "jax": verdict.replay.device},
        "precision": f"{dtype} on both sides, JAX's products at {chosen or 'highest'}; arbiter float64",
        "threads": {"torch": recorded["threads"], "cores": os.cpu_count() or 1},
    }


def slug(name: str) -> str:
    """A name that is safe in file names."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-") or "program"


def program(verdict: Verdict) -> Json:
    """The document of one program."""
    recording = verdict.recording
    first = verdict.first_divergence
    divergence = first and {key: getattr(first, key) for key in ("stage", "tensor", "step", "message")}
    return {
        "name": verdict.name,
        "title": verdict.title,
        "verdict": {"ok": verdict.ok, "headline": verdict.headline, "sentences": list(verdict.sentences)},
        "facts": [{"label": label, "value": value} for label, value in _facts(recording)],
        "code": {
            "torch": {"file": f"{recording.name}.py", "text": recording.source},
            "jax": {"file": verdict.jax_file, "text": verdict.jax_code},
        },
        "printed": [
            {"torch": line.torch, "jax": line.jax, "same": line.same}
            for line in verdict.printed
            if line.same is not None
        ],
        "findings": [_finding(finding) for finding in verdict.findings],
        "first_divergence": divergence,
        "final": _final(verdict),
        "timing": dataclasses.asdict(verdict.timing) if verdict.timing else None,
        "series": _series(verdict),
    }


def _facts(recording: Recording) -> list[tuple[str, str]]:
    first = recording.batches[0]
    batches = (
        f", {len(recording.batches)} different batches" if len(recording.batches) > 1 else ", the whole batch each step"
    )
    if len(first.parts) > 1:
        batches += f", gradients of {len(first.parts)} passes added up"
    seed = "the program's own" if recording.seed is None else f"{recording.seed}, in place of the program's own"
    return [
        ("Model", str(recording.model)),
        ("Loss", str(recording.loss)),
        ("Optimizer", str(recording.optimizer)),
        ("Learning rate", _rate(recording)),
        ("Data", f"inputs {_shape(first.inputs)}, targets {_shape(first.targets)}, {recording.dtype}{batches}"),
        ("Steps", f"{recording.steps:,}"),
        ("Seed", seed),
    ]


def _rate(recording: Recording) -> str:
    """The learning rate, and what else one parameter has and another has not."""
    if recording.learning_rate is not None and recording.is_plain:
        return f"{recording.learning_rate:g}"
    told = []
    for name, rates in recording.learning_rates.items():
        own = {key: value for key, value in recording.rules[name].items() if key not in recording.optimizer.settings}
        rate = f"{rates[0]:g}" if (rates == rates[0]).all() else f"{rates[0]:g} to {rates[-1]:g}, changing"
        told.append(", ".join([f"{name}: {rate}", *(f"{key}={value!r}" for key, value in own.items())]))
    return "; ".join([*told, *(f"{name}: frozen" for name in recording.frozen)])


def _shape(array: Array) -> str:
    return " × ".join(f"{length:,}" for length in array.shape) or "scalar"


def _finding(finding: Finding) -> Json:
    plain = ("stage", "tensor", "holds", "same_program", "difference", "ulps", "float64_difference", "float64_bound")
    return {
        **{name: getattr(finding, name) for name in plain},
        "bound_used": {"torch": finding.torch_used, "jax": finding.jax_used},
        "within": {"torch": finding.torch_within, "jax": finding.jax_within},
        "off": finding.off,
        "step": finding.step,
        "message": finding.message,
    }


def _final(verdict: Verdict) -> list[Json]:
    rows: list[Json] = []
    for name, torch in verdict.recording.observed.weights.items():
        jax_side, exact = verdict.replay.free.weights[name][-1], verdict.recording.arbiter_free.weights[name][-1]
        apart = ulps(torch[-1], jax_side)
        for index in list(np.ndindex(exact.shape))[: _LISTED - len(rows)]:
            values = {"torch": torch[-1][index], "jax": jax_side[index], "float64": exact[index], "ulps": apart[index]}
            rows.append({"tensor": name, "element": str(list(index)), **{key: float(v) for key, v in values.items()}})
    return rows


# -- curves


def _series(verdict: Verdict) -> Json:
    recording, replay, bounds = verdict.recording, verdict.replay, verdict.bounds
    at = _thinned(recording.steps)
    losses = zip(at, recording.observed.losses[at], replay.free.losses[at], strict=True)
    weights: list[Json] = []
    distance: list[Json] = []
    after = _thinned(recording.steps + 1)
    for name, initial in recording.initial.items():
        sides = {
            "torch": _from_start(initial, recording.observed.weights[name]),
            "jax": _from_start(replay.initial[name], replay.free.weights[name]),
        }
        for index in list(np.ndindex(initial.shape))[: max(0, _ELEMENTS - len(weights) // len(after))]:
            for step in after:
                values = {side: float(curve[(step, *index)]) for side, curve in sides.items()}
                weights.append({"tensor": f"{name}{list(index)}", "step": int(step), **values})
        gaps = {
            "float32": _gap(sides["torch"], sides["jax"]),
            "float64": _gap(
                _from_start(initial, recording.arbiter_free.weights[name]),
                _from_start(replay.initial[name], replay.free64.weights[name]),
            ),
            "bound": _from_start(0 * initial, 2 * bounds.free.weights[name])
            .reshape(recording.steps + 1, -1)
            .max(1, initial=0.0),
        }
        distance += [
            {"tensor": name, "step": int(step), **{k: float(v[step]) for k, v in gaps.items()}} for step in after
        ]
    return {
        "loss": [{"step": int(step), "torch": float(torch), "jax": float(own)} for step, torch, own in losses],
        "weights": weights,
        "distance": distance,
        "data": _data(verdict),
    }


def _thinned(length: int) -> Array:
    """Steps worth drawing: closer at the start, where things move, and evenly to the end."""
    if length <= _CURVE:
        return np.arange(length)
    early, even = np.geomspace(1, length, _CURVE // 2) - 1, np.linspace(0, length - 1, _CURVE // 2)
    return np.unique(np.concatenate([early, even]).astype(int))


def _from_start(initial: Array, after: Array) -> Array:
    return np.concatenate([np.asarray(initial, np.float64)[None], np.asarray(after, np.float64)])


def _gap(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.abs(a - b).reshape(len(a), -1).max(1, initial=0.0)


def _data(verdict: Verdict) -> Json | None:
    """Points and fitted lines, where one input and one output make a picture of them."""
    recording = verdict.recording
    batch = recording.batches[0]
    if (
        batch.inputs.size != len(batch.inputs)
        or batch.targets.size != len(batch.inputs)
        or "weight" not in recording.initial
    ):
        return None
    x, y = (np.asarray(values, np.float64).ravel() for values in (batch.inputs, batch.targets))
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int))
    ends = np.array([x.min(), x.max()])
    lines = {}
    for side, weights in (("torch", recording.observed.weights), ("jax", verdict.replay.free.weights)):
        bias = weights["bias"][-1].item() if "bias" in weights else 0.0
        lines[side] = weights["weight"][-1].item() * ends + bias
    return {
        "x_label": verdict.axes[0],
        "y_label": verdict.axes[1],
        "points": [{"x": float(x[i]), "y": float(y[i])} for i in chosen],
        "lines": [
            {"x": float(ends[i]), "torch": float(lines["torch"][i]), "jax": float(lines["jax"][i])} for i in (0, 1)
        ],
    }
