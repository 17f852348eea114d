"""The article's two programs: the figures that the project stands on, step by step."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import parity
from parity import Verdict
from parity.judging.comparisons import ulps
from parity.programs import BUILT_IN, BuiltInProgram


# The other one takes as long again.
@pytest.fixture(
    scope="module",
    params=[BUILT_IN[0], pytest.param(BUILT_IN[1], marks=pytest.mark.thorough)],
    ids=lambda program: program.name,
)
def program(request: pytest.FixtureRequest) -> BuiltInProgram:
    return request.param


@pytest.fixture(scope="module")
def verdict(program: BuiltInProgram) -> Verdict:
    return parity.check(program.path)


def test_parity_holds(verdict: Verdict) -> None:
    assert verdict.ok, str(verdict)
    assert verdict.recording.steps == 1000


def test_recorded_output_is_the_programs_own(program: BuiltInProgram, verdict: Verdict) -> None:
    """The program alone, in a process of its own, prints the same lines."""
    alone = subprocess.run([sys.executable, program.path], capture_output=True, text=True, check=True)
    assert [line.text for line in verdict.recording.printed] == alone.stdout.splitlines()
    assert alone.stderr == ""


def test_float64_runs_agree_at_every_step(verdict: Verdict) -> None:
    """Losses, gradients and weights within 1e-13 of the tensor's largest element; measured: 7e-16."""
    for torch, own in (
        (verdict.recording.arbiter_locked, verdict.replay.locked64),
        (verdict.recording.arbiter_free, verdict.replay.free64),
    ):
        pairs = [(torch.losses, own.losses)]
        pairs += [(torch.gradients[name], own.gradients[name]) for name in torch.gradients]
        pairs += [(torch.weights[name], own.weights[name]) for name in torch.weights]
        for a, b in pairs:
            assert a.dtype == b.dtype == np.float64
            assert abs(a - b).max() <= 1e-13 * abs(a).max()


def test_float32_weights_end_within_4_ulp(verdict: Verdict) -> None:
    for name, values in verdict.recording.observed.weights.items():
        assert ulps(values[-1], verdict.replay.free.weights[name][-1]).max() <= 4


def test_what_the_article_says_comes_out(program: BuiltInProgram, verdict: Verdict) -> None:
    lines = [line.text for line in verdict.recording.printed]
    if program.name == "line":
        assert lines == [f"Estimated weight: {verdict.recording.observed.weights['weight'][-1].item()}"]
        assert abs(float(lines[0].split()[-1]) - 2) < 0.3
        assert verdict.recording.batches[0].inputs.shape == (100, 1)
    else:
        assert [line.split(",")[0] for line in lines[:10]] == [f"Epoch [{n}/1000]" for n in range(100, 1001, 100)]
        assert lines[-1].startswith("The predicted price of a house with 2000 square feet is: 329.")
        assert verdict.recording.batches[0].targets.ravel().tolist() == [
            150, 160, 200, 240, 280, 300, 340, 360, 380, 400
        ]  # fmt: skip


def test_printed_results_agree(program: BuiltInProgram, verdict: Verdict) -> None:
    """The estimated weight and the predicted price in every digit. A printed loss may differ in its last one: XLA
    multiplies and adds with one rounding where PyTorch has two, and rounding reaches the fourth decimal of a loss whose
    predictions are near 400, as the loss's own bound says."""
    for line in verdict.printed:
        assert line.jax is not None
        if "Loss" not in line.torch:
            assert line.same
            continue
        (head, torch), (other, own) = (text.split("Loss: ") for text in (line.torch, line.jax))
        assert head == other
        step = int(head.split("[")[1].split("/")[0]) - 1
        bound = 2 * verdict.bounds.free.losses[step]
        assert abs(float(torch) - float(own)) <= bound + 1e-4
    if program.name == "line":
        assert all(line.same for line in verdict.printed)


def test_another_seed_is_an_option_and_no_edit(program: BuiltInProgram) -> None:
    first, second = (parity.record(program.path, seed=seed) for seed in (1, 1))
    own = parity.record(program.path)
    assert first.initial["weight"] == second.initial["weight"] != own.initial["weight"]
    assert (first.observed.losses == second.observed.losses).all()
    assert first.seed == 1
