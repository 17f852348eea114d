"""A verdict as a document, for models of any size and recordings of which some steps were left out."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import tracemalloc
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest

import parity
from parity import Verdict
from parity.bounds.derive import Bounds
from parity.judging.cause import Cause
from parity.recording.program_output import Number, PrintedLine, Source
from parity.recording.recording import Batch, Evaluation, Part, Recording, Trace
from parity.report.render import html, markdown, numbers, terminal
from tests.helpers.torch_programs import regression, small

SCHEMA = json.loads(files("parity.report").joinpath("schema.json").read_text())
KEPT = np.array([0, 1, 2, 6, 11])


@pytest.fixture(scope="module")
def honest() -> Verdict:
    return parity.check(regression(small(12)))


def _rows(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[KEPT] for name, values in tensors.items()}


def _trace(trace: Trace) -> Trace:
    """The trace with the tensors of the kept steps only, and all losses."""
    return dataclasses.replace(
        trace,
        predictions=tuple(trace.predictions[step] for step in KEPT),
        gradients=_rows(trace.gradients),
        weights=_rows(trace.weights),
        state={key: _rows(tensors) for key, tensors in trace.state.items()},
    )


@pytest.fixture(scope="module")
def thinned(honest: Verdict) -> Verdict:
    """The same verdict, had only five of its twelve steps been kept."""
    traces = ("observed", "arbiter_locked", "arbiter_free")
    seen: dict[str, Any] = {name: _trace(getattr(honest.recording, name)) for name in traces}
    recording = dataclasses.replace(
        honest.recording,
        thinned=KEPT,
        notes=("Tensors are kept of the first 3 steps, every 5th and the last.",),
        **seen,
    )
    sides = ("locked", "free", "locked64", "free64")
    own: dict[str, Any] = {name: _trace(getattr(honest.replay, name)) for name in sides}
    replay = dataclasses.replace(honest.replay, **own)
    limits: dict[str, Any] = {
        field.name: _trace(value)
        for field in dataclasses.fields(Bounds)
        if isinstance(value := getattr(honest.bounds, field.name), Trace)
    }
    return dataclasses.replace(
        honest, recording=recording, replay=replay, bounds=dataclasses.replace(honest.bounds, **limits)
    )


def _valid(verdict: Verdict) -> dict[str, Any]:
    document = verdict.to_dict()
    program = SCHEMA["properties"]["programs"]["items"]
    jsonschema.validate(numbers.encode(document), {**program, "$defs": SCHEMA["$defs"]})
    return document


def test_curves_of_kept_steps_stand_at_their_own_steps(thinned: Verdict, honest: Verdict) -> None:
    part, whole = (_valid(verdict)["series"] for verdict in (thinned, honest))
    assert part["loss"] == whole["loss"]
    steps = [0, *(KEPT + 1).tolist()]
    for curve in ("weights", "distance"):
        assert [row["step"] for row in part[curve] if row["tensor"] == part[curve][0]["tensor"]] == steps
        assert part[curve] == [row for row in whole[curve] if row["step"] in steps]


def test_what_was_left_out_is_said(thinned: Verdict) -> None:
    told = " ".join(thinned.sentences)
    assert "agree in every loss, and in every prediction, gradient and weight of the 5 of 12 steps kept" in told
    assert "Tensors are kept of the first 3 steps, every 5th and the last." in told
    facts = _valid(thinned)["facts"]
    assert {"label": "Note", "value": thinned.recording.notes[0]} in facts


def test_a_note_stands_in_every_view(thinned: Verdict) -> None:
    """Such as that what comes before the linear layer is fed as data; also where the sides part."""
    note = "What the model makes of its input (BatchNorm1d) is fed as data."
    recording = dataclasses.replace(thinned.recording, notes=(note,))
    document = dataclasses.replace(thinned, recording=recording).to_dict()
    parted = {**document, "verdict": {**document["verdict"], "ok": False}}
    assert note in document["verdict"]["sentences"]
    for program in (document, parted):
        page = re.sub("<[^>]*>", "", html.fragment(program))
        for shown in (terminal.table(program), markdown.comment(program).replace("\\", ""), page):
            assert note in " ".join(shown.split())


def test_where_not_finite_is_told_by_the_step_and_not_the_row(thinned: Verdict) -> None:
    free = thinned.replay.free
    weights = {name: values.copy() for name, values in free.weights.items()}
    weights["bias"][3:] = np.nan
    replay = dataclasses.replace(thinned.replay, free=dataclasses.replace(free, weights=weights))
    told = " ".join(dataclasses.replace(thinned, replay=replay).sentences)
    assert "JAX has inf or NaN from step 6 on" in told


def test_printed_weights_are_looked_up_at_their_step(thinned: Verdict, honest: Verdict) -> None:
    weight = float(honest.recording.observed.weights["weight"][6, 0, 0])

    def line(step: int) -> Any:
        text = f"w {weight:.6f}"
        source = Source("weights", "weight", step, step)
        printed = (PrintedLine(text, step, (Number(2, len(text), source, ".6f"),)),)
        recording = dataclasses.replace(thinned.recording, printed=printed)
        return dataclasses.replace(thinned, recording=recording).printed[0].jax

    own = float(honest.replay.free.weights["weight"][6, 0, 0])
    assert line(7) == f"w {own:.6f}"
    assert line(6) is None  # its weights were not kept
    assert line(13) is None


def test_printed_predictions_may_be_trees(honest: Verdict) -> None:
    a, b = np.array([[1.2345678]], np.float32), np.float32(7.5432)
    inputs: Any = {"x": a}
    outputs: Any = {"logits": a, "score": b}
    evaluation = Evaluation(12, inputs, outputs)
    numbers = (
        Number(0, 6, Source("evaluation", leaf=1), ".4f"),
        Number(11, 17, Source("evaluation", leaf=0), ".4f"),
    )
    recording = dataclasses.replace(
        honest.recording, evaluations=(evaluation,), printed=(PrintedLine("7.5432 and 1.2346", 12, numbers),)
    )
    for own, expected in [
        ({"logits": a + 1, "score": b + 1}, "8.5432 and 2.2346"),
        ({"logits": np.zeros((2, 2)), "score": b + 1}, None),  # the port gives another shape: nothing to compare
    ]:
        answers: Any = (own,)
        replay = dataclasses.replace(honest.replay, evaluations=answers)
        assert dataclasses.replace(honest, recording=recording, replay=replay).printed[0].jax == expected


def _facts(recording: Recording, honest: Verdict) -> dict[str, str]:
    document = _valid(dataclasses.replace(honest, recording=recording))
    return {fact["label"]: fact["value"] for fact in document["facts"]}


def test_facts_of_any_model(honest: Verdict) -> None:
    tokens = np.zeros((4, 7), np.int64)
    inputs: Any = {"ids": tokens, "mask": np.ones((4, 7), bool)}
    targets: Any = (tokens, tokens[:, 0])
    none: Any = ()
    batch = Batch(inputs, targets, (4,))
    names = [f"layers.{place}.weight" for place in range(9)]
    recording = dataclasses.replace(
        honest.recording,
        model=Part("my.package.Decoder", {"depth": 9, "shape": (3, 4), "text": "x" * 999}),
        optimizer=Part("torch.optim.adamw.AdamW", {"betas": (0.9, 0.999), "fused": None}),
        batches=(batch, dataclasses.replace(batch, targets=none)),
        initial_buffers={"norm.running_mean": np.zeros(3, np.float32)},
        learning_rates={name: np.array([0.1, 0.1 if place else 0.2]) for place, name in enumerate(names)},
        rules={name: {"weight_decay": 0.1} for name in names},
    )
    facts = _facts(recording, honest)
    assert facts["Model"].startswith("Decoder(depth=9, shape=(3, 4), text='xxx")
    assert len(facts["Model"]) < 320
    assert facts["Model state"] == "norm.running_mean"
    assert facts["Parameters"] == "8 in 2 tensors"
    assert facts["Optimizer"] == "AdamW(betas=(0.9, 0.999), fused=None)"
    assert facts["Data"] == (
        "inputs ids 4 × 7 int64, mask 4 × 7 bool, targets 0 4 × 7 int64, 1 4 int64, 2 different batches in 2 shapes"
    )
    rest = ", ".join(names[1:7])
    assert facts["Learning rate"] == (
        f"layers.0.weight: 0.1 to 0.2, changing, weight_decay=0.1; {rest}, 2 more: 0.1, weight_decay=0.1; "
        "weight, bias: frozen"
    )
    assert _valid(dataclasses.replace(honest, recording=recording))["series"]["data"] is None


def test_a_million_parameters_stay_small_and_quick(honest: Verdict) -> None:
    tensors = {f"block.{place}.weight": (100, 1000) for place in range(10)} | {"head.bias": (3,)}
    steps = honest.recording.steps
    values = {name: np.zeros((steps, *shape), np.float32) for name, shape in tensors.items()}
    initial = {name: array[0] for name, array in values.items()}

    def big(trace: Trace) -> Trace:
        return dataclasses.replace(trace, weights=values)

    recording = dataclasses.replace(
        honest.recording,
        initial=initial,
        observed=big(honest.recording.observed),
        arbiter_free=big(honest.recording.arbiter_free),
    )
    replay = dataclasses.replace(
        honest.replay, initial=initial, free=big(honest.replay.free), free64=big(honest.replay.free64)
    )
    [failing] = [finding for finding in honest.findings if (finding.stage, finding.tensor) == ("trajectory", "bias")]
    findings = (*honest.findings, dataclasses.replace(failing, tensor="block.9.weight", step=3, message="off"))
    verdict = dataclasses.replace(honest, recording=recording, replay=replay, findings=findings)
    tracemalloc.start()
    begin = time.perf_counter()
    document = _valid(verdict)
    seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    drawn = list(dict.fromkeys(row["tensor"] for row in document["series"]["distance"]))
    assert len(drawn) == 8
    assert "block.9.weight" in drawn
    assert len({row["tensor"] for row in document["series"]["weights"]}) == 6
    assert len(document["final"]) == 16
    assert len(json.dumps(numbers.encode(document))) < 200_000
    assert peak < 32e6  # the weights of all steps have 48 MB a side
    assert seconds < 20


def test_causes_and_warnings_are_in_every_form(honest: Verdict) -> None:
    [first] = [finding for finding in honest.findings if finding.stage == "loss"]
    cause = Cause("half loss", "It is half.", "double it", "loss", "loss", 2, 1e-15)
    other = Cause("bare", "Nothing known.", "", "loss", "loss", 2, 0.0)
    findings = (dataclasses.replace(first, step=2, same_program=False, message="twice as large"),)
    verdict = dataclasses.replace(honest, findings=findings, causes=(cause, other), warnings=("Loose.",))
    document = _valid(verdict)
    assert document["causes"][0]["agreement"] == 1e-15
    assert document["causes"][1] == {
        "name": "bare", "sentence": "Nothing known.", "fix": "", "stage": "loss", "tensor": "loss", "step": 2,
        "agreement": 0.0,
    }  # fmt: skip
    assert document["warnings"] == ["Loose."]
    for shown in (repr(verdict), verdict._repr_html_(), verdict.to_markdown(), verdict.explanation):
        assert "half loss" in shown
        assert "double it" in shown
        assert "Loose." in shown
    with pytest.raises(parity.DivergenceError) as error:
        verdict.raise_for_divergence()
    assert str(error.value).splitlines()[:6] == [
        "The two sides part at step 2: loss.",
        "Cause: half loss. It is half.",
        "Fix: double it",
        "Cause: bare. Nothing known.",
        "stage: loss, tensor: loss, step: 2",
        "twice as large",
    ]


def test_a_notebook_shows_charts_and_the_matrix(honest: Verdict) -> None:
    matrix = parity.matrix(honest.recording, precisions=["highest"])
    shown = dataclasses.replace(honest, matrix=matrix)._repr_html_()
    assert shown.count("<svg") == 4
    assert "<script" not in shown
    assert "highest" in shown
    assert "matrix" in json.dumps(numbers.encode(_valid(dataclasses.replace(honest, matrix=matrix))))
