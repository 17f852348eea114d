"""A side that loses accuracy where the other keeps it is told, and honest rounding never is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from parity.judging import accuracy_loss

EPS = float(np.finfo(np.float32).eps)
FLOAT32 = np.dtype(np.float32)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 200),
    worse=st.floats(1, 4),
    magnified=st.floats(0, 7),
)
@settings(max_examples=200)
def test_errors_of_one_kind_are_never_told(seed: int, count: int, worse: float, magnified: float) -> None:
    """However ill-conditioned a program is, both sides feel it."""
    random = np.random.default_rng(seed)
    exact = random.standard_normal((count, 1))
    unit = EPS * 10**magnified
    ours, theirs = (exact + unit * random.standard_normal((count, 1)) for _ in range(2))
    size = float(np.abs(exact).max())
    assert accuracy_loss.find(ours, exact + worse * (theirs - exact), exact, size, FLOAT32) is None


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_half_of_the_digits_lost_on_one_side_is_told(side: str) -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((32, 1))
    good, bad = (exact + scale * random.standard_normal((32, 1)) for scale in (1e-7, 1e-2))
    pair = (bad, good) if side == "torch" else (good, bad)
    lost = accuracy_loss.find(*pair, exact, 1.0, FLOAT32)
    assert lost is not None
    assert lost.side == side
    assert 5e-3 < lost.own < 2e-2
    # Few numbers tell it too, if the sides are further apart than chance leaves so few; one number never does.
    for count in (1, 2, 8, 16):
        ours, theirs = (values[:count] for values in pair)
        few = accuracy_loss.find(ours, theirs, exact[:count], 1.0, FLOAT32)
        assert (few and few.side) == (None if count == 1 else side)
    # A row of a gradient is one witness, however many numbers it has.
    ours, theirs, truth = (values.reshape(1, -1) for values in (*pair, exact))
    assert accuracy_loss.find(ours, theirs, truth, 1.0, FLOAT32, by_row=True) is None
    assert accuracy_loss.find(ours, theirs, truth, 1.0, FLOAT32) is not None


@pytest.mark.parametrize("count", [1, 2, 5, 30, 400])
def test_the_chance_is_the_one_that_is_named(count: int) -> None:
    """The F distribution of as many squares on both sides, by its own sampling at a chance that can be sampled."""
    random = np.random.default_rng(count)
    ratios = np.sqrt((random.standard_normal((2, 4000, count)) ** 2).sum(-1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy_loss, "_FAILURE_PROBABILITY", 0.01)
        level = accuracy_loss._level(count)
    # Of 4,000 draws at a chance of 1 in 100 at most, 40 are expected; 70 are five deviations more.
    assert int((ratios[0] / ratios[1] > level).sum()) <= 70


def test_what_is_not_finite_is_left_out_without_a_warning() -> None:
    exact = np.full((32, 1), np.inf)
    exact[:20] = 1.0
    assert accuracy_loss.find(exact, exact, exact, 1.0, FLOAT32) is None


def far_from_zero() -> None:
    torch.manual_seed(0)
    model = torch.nn.LayerNorm(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = 1000 + torch.randn(8, 4), torch.randn(8, 4)
    for _ in range(2):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def norm(fast: bool) -> Any:
    def apply(params: Any, x: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = (x * x).mean(-1, keepdims=True) - mean * mean if fast else ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * params["weight"] + params["bias"]

    def loss(made: Any, wanted: Any) -> Any:
        return jnp.mean((made - wanted) ** 2)

    return lambda recording: parity.Port(dict(recording.initial), apply, loss, optax.sgd(0.1))


def large_and_alike() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.randn(8, 4)
    y = 5000 + torch.randn(8, 4)
    with torch.no_grad():
        model.bias.add_(5000)
    for _ in range(4):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.thorough
@jax.numpy_rank_promotion("allow")
def test_a_loss_that_is_multiplied_out_loses_accuracy_too() -> None:
    def port(recording: parity.Recording) -> parity.Port:
        def apply(params: Any, x: Any) -> Any:
            return x @ params["weight"].T + params["bias"]

        def loss(made: Any, wanted: Any) -> Any:
            return jnp.mean(made * made - 2 * made * wanted + wanted * wanted)

        return parity.Port(dict(recording.initial), apply, loss, optax.sgd(1e-6))

    verdict = parity.check(parity.record(large_and_alike), port)
    first = verdict.first_divergence
    assert first is not None
    assert (first.stage, first.off, first.inaccurate) == ("loss", "jax", True), verdict.explanation


@pytest.mark.thorough
@jax.numpy_rank_promotion("allow")  # the port is written as people write them
def test_a_fast_variance_far_from_zero_is_a_loss_of_accuracy_and_is_named() -> None:
    recording = parity.record(far_from_zero)
    verdict = parity.check(recording, norm(fast=True))
    first = verdict.first_divergence
    assert first is not None
    assert (first.stage, first.step, first.off, first.same_program) == ("forward", 0, "jax", True)
    assert verdict.headline == "JAX loses accuracy at step 0: forward, predictions."
    assert [cause.name for cause in verdict.causes] == ["fast variance"]
    for view in (str(verdict), verdict.to_markdown(), verdict.explanation):
        text = " ".join(view.split())
        assert text.index("loses accuracy") < text.index("fast variance") < text.lower().index("loss of accuracy")
    assert parity.check(recording, norm(fast=False)).ok
