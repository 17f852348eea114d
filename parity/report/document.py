"""A judgement as the plain document that the report is made of."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import platform
import re
from collections.abc import Sequence

import jax
import numpy as np

from parity.judging import scales
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.judging.judgement import Judgement
from parity.recording.recording import Array, Recording, Tree
from parity.report import curves, summary
from parity.report.render.numbers import JsonDict, count

VERSION = 1
# Final weights that a page lists, batches of a data set it describes, and groups of learning rates.
_LISTED_WEIGHTS, _LISTED_SHAPES, _LISTED_RATES = 16, 4, 6
# The longest text of a model's settings that still reads as one.
_SETTINGS_LENGTH = 300
# How the headline of a report names the programs that do not hold.
_OUTCOMES = {
    "parts": "The two sides part",
    "inaccurate": "A side loses accuracy",
    "not judged": "Not judged, because there are no finite numbers to compare",
}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "altair")


def report(judgements: Sequence[Judgement], command: str) -> JsonDict:
    """Return the document of a whole report."""
    programs = [program(judgement) for judgement in judgements]
    return {
        "version": VERSION,
        "ok": all(judgement.ok for judgement in judgements),
        "headline": _headline(judgements),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(judgements),
        "programs": programs,
    }


def _headline(judgements: Sequence[Judgement]) -> str:
    told = []
    for outcome, words in _OUTCOMES.items():
        if titles := [judgement.title for judgement in judgements if judgement.outcome == outcome]:
            told.append(f"{words}: {', '.join(titles)}.")
    if told:
        return " ".join(told)
    if len(judgements) == 1:
        return "Parity holds: this program is the same training in PyTorch and in JAX."
    every = "both" if len(judgements) == 2 else f"all {len(judgements):,}"
    return f"Parity holds: {every} programs train the same in PyTorch and in JAX."


def environment(judgements: Sequence[Judgement]) -> JsonDict:
    """Return where and with what the two sides ran."""
    judgement = judgements[0]
    recorded = judgement.recording.environment
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    dtypes = " or ".join(dict.fromkeys(str(each.recording.dtype) for each in judgements))
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"torch": recorded["torch"], **{name: importlib.metadata.version(name) for name in _PACKAGES}},
        "devices": {"torch": recorded["device"], "jax": judgement.replay.device},
        "precision": f"{dtypes} on both sides, JAX's products at {chosen or 'highest'}; reference float64",
        "threads": {"torch": recorded["threads"], "cores": os.cpu_count() or 1},
    }


def slug(name: str) -> str:
    """Return a name that is safe in file names."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-") or "program"


def program(judgement: Judgement) -> JsonDict:
    """Return the document of one program."""
    recording = judgement.recording
    first, printed = judgement.first_divergence, summary.printed(judgement)
    divergence = first and {key: getattr(first, key) for key in ("stage", "tensor", "step", "message")}
    return {
        "name": judgement.name,
        "title": judgement.title,
        "verdict": {
            "ok": judgement.ok,
            "outcome": judgement.outcome,
            "headline": judgement.headline,
            "sentences": list(summary.sentences(judgement, printed)),
        },
        "facts": [{"label": label, "value": value} for label, value in _facts(recording)],
        "code": {
            "torch": {"file": f"{recording.name}.py", "text": recording.source},
            "jax": {"file": judgement.jax_file, "text": judgement.jax_code},
        },
        "printed": [
            {"torch": line.torch, "jax": line.jax, "same": line.same} for line in printed if line.same is not None
        ],
        "printed_total": len(printed),
        "findings": [_finding(finding) for finding in judgement.findings],
        "first_divergence": divergence,
        "causes": [_cause(cause) for cause in judgement.causes],
        "warnings": [str(warning) for warning in judgement.warnings],
        "matrix": judgement.matrix.to_dict() if judgement.matrix else None,
        "final": _final(judgement),
        "final_total": sum(values.size for values in recording.initial.values()),
        "timing": dataclasses.asdict(judgement.timing) if judgement.timing else None,
        "series": curves.series(judgement),
    }


def _cause(cause: Cause) -> JsonDict:
    plain = ("name", "sentence", "fix", "stage", "tensor", "step", "agreement")
    return {name: getattr(cause, name) for name in plain}


def _facts(recording: Recording) -> list[tuple[str, str]]:
    seed = "the program's own" if recording.seed is None else f"{recording.seed}, in place of the program's own"
    size = sum(values.size for values in recording.initial.values())
    facts = [
        ("Model", _short(str(recording.model))),
        ("Parameters", f"{size:,} in {count(len(recording.initial), 'tensor')}"),
        ("Loss", _short(str(recording.loss))),
        ("Optimizer", _short(str(recording.optimizer))),
        ("Learning rate", _rate(recording)),
        ("Data", _data(recording)),
        ("Steps", f"{recording.steps:,}"),
        ("Seed", seed),
    ]
    if recording.initial_buffers:
        facts.insert(2, ("Model state", ", ".join(_some(list(recording.initial_buffers)))))
    return [*facts, *(("Note", note) for note in recording.notes)]


def _short(text: str) -> str:
    return text if len(text) <= _SETTINGS_LENGTH else f"{text[:_SETTINGS_LENGTH]} …"


def _some(texts: Sequence[str], most: int = _LISTED_RATES) -> list[str]:
    more = len(texts) - most
    return [*texts[:most], *([f"{more:,} more"] if more > 0 else [])]


def _data(recording: Recording) -> str:
    batches = recording.batches
    first = batches[0]
    inputs, targets = _shapes(first.inputs), _shapes(first.targets)
    told = f"inputs {inputs}, " + (f"targets {targets}" if targets else "no targets beside them")
    told += f", {len(batches):,} different batches" if len(batches) > 1 else ", the whole batch each step"
    shapes = {(_shapes(batch.inputs), _shapes(batch.targets)) for batch in batches}
    if len(shapes) > 1:
        told += f" in {len(shapes):,} shapes"
    if len(first.parts) > 1:
        told += f", gradients of {len(first.parts)} passes added up"
    return told


def _shapes(tree: Tree) -> str:
    """Name every array of a tree with its shape and dtype."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    told = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        told.append(f"{name} {_shape(leaf)} {leaf.dtype}".strip())
    return ", ".join(_some(told, _LISTED_SHAPES))


def _rate(recording: Recording) -> str:
    """Describe the learning rates and other settings that differ between parameters, group by group."""
    if recording.learning_rate is not None and recording.is_plain:
        return f"{recording.learning_rate:g}"
    groups: dict[str, list[str]] = {}
    for name, rates in recording.learning_rates.items():
        own = {key: value for key, value in recording.rules[name].items() if key not in recording.optimizer.settings}
        rate = f"{rates[0]:g}" if (rates == rates[0]).all() else _changing(rates)
        groups.setdefault(", ".join([rate, *(f"{key}={value!r}" for key, value in own.items())]), []).append(name)
    if recording.frozen:
        groups["frozen"] = list(recording.frozen)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(_some([f"{', '.join(_some(names))}: {rule}" for rule, names in groups.items()]))


def _changing(rates: Array) -> str:
    """Describe changing learning rates by the first and the last, or by the range where those two are alike."""
    ends = (float(rates[0]), float(rates[-1]))
    returns = ends[0] == ends[1]
    if returns:
        ends = (float(rates.min()), float(rates.max()))
    # As many digits as tell the two apart.
    digits = next((each for each in range(6, 17) if f"{ends[0]:.{each}g}" != f"{ends[1]:.{each}g}"), 17)
    first, last = (f"{each:.{digits}g}" for each in ends)
    return f"between {first} and {last}, changing" if returns else f"{first} to {last}, changing"


def _shape(array: Array) -> str:
    return " × ".join(f"{length:,}" for length in array.shape) or "scalar"


def _finding(finding: Finding) -> JsonDict:
    plain = (
        *("stage", "tensor", "holds", "same_program", "inaccurate", "compared", "zero"),
        *("difference", "ulps", "float64_difference", "float64_bound"),
    )
    used: JsonDict = {"torch": finding.torch_used, "jax": finding.jax_used}
    own = {name: getattr(finding, name) for name in plain}
    if not finding.finite:
        own["difference"], used = None, dict.fromkeys(used)
    return {
        **own,
        "bound_used": used,
        "unbounded": finding.unbounded,
        # A side that loses accuracy is within its worst case all the same.
        "within": {side: getattr(finding, f"{side}_within") or finding.inaccurate for side in used},
        "off": finding.off,
        "step": finding.step,
        "message": finding.message,
    }


def _final(judgement: Judgement) -> list[JsonDict]:
    """Return the first elements of the final weights, of every tensor some where they are few."""
    rows: list[JsonDict] = []
    exact_weights, own_weights = judgement.recording.arbiter_free.weights, judgement.replay.free.weights
    told = {finding.tensor: finding for finding in judgement.findings if finding.stage == "final weights"}
    for name, torch in judgement.recording.observed.weights.items():
        # Relative to what the tensor's own row is: nothing, or its largest element over all steps.
        known = name in told and told[name].ulps is not None
        size = scales.size(exact_weights[name], np.zeros(())) if known else None
        for index in itertools.islice(np.ndindex(torch.shape[1:]), _LISTED_WEIGHTS - len(rows)):
            place = (-1, *index)
            sides = torch[place], own_weights[name][place], exact_weights[name][place]
            apart = scales.largest(scales.distance(sides[0], sides[1]))
            values = {key: float(value) for key, value in zip(("torch", "jax", "float64"), sides, strict=True)}
            own = {**values, "ulps": scales.ulps(apart, size, torch.dtype)}
            rows.append({"tensor": name, "element": str(list(index)), **own})
    return rows
