"""Every number in a verdict's sentences, read back, is that of its findings."""

from __future__ import annotations

import dataclasses
import re
import types
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parity import Verdict
from parity._words import place
from parity.judging.finding import Finding
from parity.report.printed_lines import LinePair
from parity.report.render import numbers
from tests.report.test_read_back import stands_for

shares = st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 1e-6, 0.99999, 1.0])
sizes = st.floats(0, 1e9) | st.sampled_from([0.0, 5e-324, 1e-16])


def findings(stage: str, tensor: str) -> st.SearchStrategy[Finding]:
    known = st.fixed_dictionaries({"ulps": st.none() | sizes, "float64_difference": sizes})
    zero = st.just({"ulps": None, "float64_difference": None, "zero": True})
    own = st.fixed_dictionaries(
        {
            "torch_used": shares,
            "jax_used": shares,
            "unbounded": st.sampled_from([0.0, 0.5, 1.0]),
            "finite": st.sampled_from([True, True, True, False]),
            "step": st.none(),
        }
    )
    return st.builds(
        lambda relative, other: Finding(
            **{"stage": stage, "tensor": tensor, "same_program": True, "torch_within": True, "jax_within": True}
            | {"difference": 0.0, "float64_bound": None, "message": ""}
            | relative
            | other
        ),
        known | zero,
        own,
    )


every = st.tuples(
    *(findings(stage, stage) for stage in ("forward", "loss", "gradient", "update")),
    *(findings("trajectory", name) for name in "ab"),
    *(findings("final weights", name) for name in "abcdef"),
)


def verdict(found: tuple[Finding, ...], steps: int = 5, **changes: Any) -> Verdict:
    """A verdict of findings alone."""
    run = types.SimpleNamespace(losses=np.zeros(steps), weights={})
    recording = types.SimpleNamespace(
        steps=steps, kept=np.arange(steps), dtype=np.dtype(np.float32), notes=(), printed=(), observed=run
    )
    replay = types.SimpleNamespace(free=run, conventions={})
    bounds = types.SimpleNamespace(open_from=None, open_from64=None, sampled=())
    given: dict[str, Any] = {"recording": recording, "replay": replay, "bounds": bounds, "name": "a", "title": "a"}
    return Verdict(findings=found, **(given | changes))


@given(every, st.integers(1, 12))
def test_those_that_fail_are_counted(found: tuple[Finding, ...], failing: int) -> None:
    made = verdict(tuple(dataclasses.replace(f, step=1234 if i < failing else None) for i, f in enumerate(found)))
    assert made.headline == "The two sides part at step 1,234: forward."
    verb = "fails" if failing == 1 else "fail"
    assert made.sentences[0].startswith(f"{failing} of 12 checks {verb}.")


@given(every, st.integers(1, 12000), st.booleans())
@settings(max_examples=100)
def test_the_sentences_say_what_was_found(found: tuple[Finding, ...], steps: int, is_open: bool) -> None:
    start = 3 if is_open else None
    bounds = types.SimpleNamespace(open_from=start, open_from64=start, sampled=())
    made = verdict(found, steps, bounds=bounds)
    told = " ".join(made.sentences)
    assert ("the one step" in told) == (steps == 1)
    assert f"Trained on their own for {numbers.count(steps, 'step')}, the two sides end" in told
    _says_float64(told, found, is_open)
    _says_shares(told, found)
    _says_ulps(told, found)


def _says_float64(told: str, found: tuple[Finding, ...], is_open: bool) -> None:
    apart = {
        alone: max(
            (f.float64_difference or 0.0 for f in found if (f.stage in ("trajectory", "final weights")) == alone),
            default=0.0,
        )
        for alone in (False, True)
    }
    sentence = told.partition(" In float32")[0]
    match = re.search(r"(exactly equal|difference is (\S+) of its tensor's largest element)", sentence)
    assert match, sentence
    wanted = apart[False] if is_open else max(apart.values())
    assert stands_for(match[2] or "0", wanted)
    assert (match[1] == "exactly equal") == (wanted == 0)
    alone = re.search(r"Trained on their own, they stay (equal|within (\S+))\.", sentence)
    assert (alone is not None) == is_open
    assert alone is None or stands_for(alone[2] or "0", apart[True])
    zero = [place(finding.stage, finding.tensor) for finding in found if finding.zero]
    assert ("Zero to rounding" in sentence) == bool(zero)
    if zero:
        named = re.search(r"relative to it: (.*?)\.(?= |$)", sentence)
        assert named
        names = named[1].split("; ")
        assert names[:4] == zero[:4]
        assert names[4:] == ([f"{len(zero) - 4} more"] if len(zero) > 4 else [])


def _says_shares(told: str, found: tuple[Finding, ...]) -> None:
    bounded = [finding for finding in found if finding.finite and finding.unbounded < 1]
    match = re.search(r"PyTorch's reach (.+?) of a bound, JAX's (.+?)\.(?= |$)", told)
    assert (match is not None) == bool(bounded)
    if match:
        assert stands_for(match[1], max(finding.torch_used for finding in bounded))
        assert stands_for(match[2], max(finding.jax_used for finding in bounded))
    locked = [finding for finding in found if finding.stage in ("forward", "loss", "gradient", "update")]
    without = sum(finding.unbounded > 0 for finding in locked)
    assert (f"In {without} of 4 checks of single steps" in told) == bool(without)


def _says_ulps(told: str, found: tuple[Finding, ...]) -> None:
    last = {finding.tensor: finding for finding in found if finding.stage == "final weights"}
    shown = re.findall(r"\b([a-f]) (not finite|zero to rounding|(\S+) ULP)", told.partition("on their own for")[2])
    assert len(shown) == 4
    assert "this far apart, at most, in 6 tensors: " in told
    for name, words, ulps in shown:
        finding = last[name]
        assert (words == "not finite") == (not finding.finite)
        if finding.finite:
            assert stands_for(ulps or "–", finding.ulps)
    least = min(last[name].ulps or 0.0 for name, _, _ in shown)
    assert all((last[name].ulps or 0.0) <= least for name in last if name not in [each for each, _, _ in shown])


@given(st.lists(st.sampled_from([True, False, None]), max_size=5))
@example([None])
@example([False])
def test_printed_lines_are_counted(same: list[bool | None]) -> None:
    held = Finding("loss", "loss", True, True, True, 0.0, None, 1e-16, None, 0.1, 0.1, None, "")
    made = verdict((held, dataclasses.replace(held, stage="final weights")))
    lines = tuple(LinePair("a", {True: "a", False: "b", None: None}[each]) for each in same)
    object.__setattr__(made, "printed", lines)
    told = " ".join(made.sentences)
    for state, words in ((False, ("differs", "differ")), (None, ("was", "were"))):
        some = same.count(state)
        lead = f"{some} of {len(same)} printed lines {words[some > 1]}" if len(same) > 1 else "The printed line"
        assert (f"{lead} " in told) == bool(some) or len(same) == 1
        assert f"{some} of 1" not in told or len(same) == 1
    assert "of 1 printed" not in told
