"""Printed lines on the JAX side: which number is which, in whatever way it was written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parity
from parity import Verdict
from parity._printed import _counterpart
from parity._recording import PrintedLine
from tests.parity.torch_programs import regression, small

TORCH, JAX = np.float32(1.9748942), np.float32(1.9748940)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.9748941659927368", repr(float(JAX))),
        ("1.9749", "1.9749"),
        ("1.974894", "1.974894"),
        ("1.9748942", "1.9748940"),
        ("+1.97", "+1.97"),
        ("1.975e+00", "1.975e+00"),
        ("1.9750", None),
        ("2.5", None),
    ],
)
def test_formats(text: str, expected: str | None) -> None:
    assert _counterpart(text, [(np.float32(7), np.float32(8)), (TORCH, JAX)]) == expected


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 8))
def test_any_number_finds_itself(value: float, decimals: int) -> None:
    number = np.float32(value)
    for text in (f"{float(number):.{decimals}f}", f"{float(number):.{decimals}e}", repr(float(number))):
        assert _counterpart(text, [(number, number)]) == text


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return parity.check(regression(small(4)))


def _line(verdict: Verdict, text: str, step: int = 4) -> tuple[str | None, bool | None]:
    recording = dataclasses.replace(verdict.recording, printed=(PrintedLine(text, step, step, 0),))
    line = dataclasses.replace(verdict, recording=recording).printed[0]
    return line.jax, line.same


def test_losses_and_weights_are_found(verdict: Verdict) -> None:
    loss, weight = verdict.recording.observed.losses[3], verdict.recording.observed.weights["weight"][3, 1, 2]
    text = f"step 4 of 10: loss {loss:.5f}, weight {weight:.3f}"
    assert _line(verdict, text) == (text, True)
    before = f"at the start {verdict.recording.initial['bias'][0]:.6f}"
    assert _line(verdict, before, step=0) == (before, True)


def test_integers_are_the_programs_own(verdict: Verdict) -> None:
    assert _line(verdict, "Epoch [3/10], 100 rows") == ("Epoch [3/10], 100 rows", True)


def test_a_number_of_unknown_origin_is_not_compared(verdict: Verdict) -> None:
    assert _line(verdict, "took 12.75 seconds") == (None, None)
    recording = dataclasses.replace(verdict.recording, printed=(PrintedLine("took 12.75 seconds", 4, 4, 0),))
    told = dataclasses.replace(verdict, recording=recording)
    assert told.to_dict()["printed"] == []
    assert "The printed line was not compared: not every number there is a recorded loss" in " ".join(told.sentences)


def test_a_line_that_differs_is_said_to(verdict: Verdict) -> None:
    losses = verdict.replay.free.losses * np.float32(1.5)
    free = dataclasses.replace(verdict.replay.free, losses=losses)
    changed = dataclasses.replace(verdict, replay=dataclasses.replace(verdict.replay, free=free))
    own, same = _line(changed, f"loss {verdict.recording.observed.losses[3]:.5f}")
    assert own == f"loss {losses[3]:.5f}"
    assert same is False
