"""Deep models, whose worst case is no bound at all: faults are caught there too, and honest ports are not accused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
from parity.rounding import drawn

WIDTH, DEPTH, STEPS, TURN = 64, 8, 12, 7


def deep() -> None:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(DEPTH):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [TURN], gamma=0.5)
    x, y = torch.randn(16, WIDTH), torch.randn(16, WIDTH)
    for _ in range(STEPS):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


@jax.custom_jvp
def _slightly(x: Any) -> Any:
    """The identity, with a derivative that is off by a millionth."""
    return x


@_slightly.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[0] * (1 + 1e-6)


def port(recording: parity.Recording, *, wrong: bool = False, turn: int = TURN) -> parity.Port:
    def apply(params: Any, x: Any) -> Any:
        for layer in range(0, 2 * DEPTH, 2):
            x = jnp.tanh(x @ params[f"{layer}.weight"].T + params[f"{layer}.bias"][None])
            x = _slightly(x) if wrong and not layer else x
        return x

    rate = optax.piecewise_constant_schedule(1e-3, {turn: 0.5})
    return parity.Port(dict(recording.initial), apply, lambda p, t: ((p - t) ** 2).mean(), optax.adam(rate))


def check(recording: parity.Recording, **changes: Any) -> parity.Verdict:
    with jax.numpy_dtype_promotion("standard"):  # schedules of Optax mix dtypes
        return parity.check(recording, lambda recording: port(recording, **changes))


@pytest.fixture(scope="module")
def recording() -> parity.Recording:
    return parity.record(deep)


def test_an_honest_deep_port_holds_and_what_is_not_bounded_is_said(recording: parity.Recording) -> None:
    verdict = check(recording)
    assert verdict.ok, str(verdict)
    assert "gradients" in verdict.bounds.sampled
    assert max(finding.unbounded for finding in verdict.findings) == 1
    assert "no bound applies. Those values are checked in float64 alone." in " ".join(verdict.sentences)
    assert "random rounding errors in every operation" in " ".join(verdict.sentences)
    for finding in verdict.findings:
        assert (finding.float64_bound or 0.0) < 1e-7, finding


def test_a_gradient_off_by_a_millionth_is_caught_in_a_deep_model(recording: parity.Recording) -> None:
    """The worst case of float64 alone would let it pass."""
    first = check(recording, wrong=True).first_divergence
    assert first is not None
    assert (first.stage, first.step, first.off) == ("gradient", 0, "program")


def test_a_schedule_that_turns_between_kept_steps_is_caught_by_the_trajectory() -> None:
    recording = parity.record(deep, memory_limit=14e6)
    assert not {TURN - 1, TURN} & set(recording.kept.tolist())
    assert check(recording).ok
    first = check(recording, turn=TURN - 1).first_divergence
    assert first is not None
    assert first.stage == "trajectory"


def test_drawn_errors_are_as_large_as_honest_ones_and_none_where_the_unit_is_zero() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((32, 128)), rng.standard_normal((128, 128)) / 12

    def network(x: Any) -> Any:
        for _ in range(4):
            x = jnp.tanh(x @ w.astype(x.dtype))
        return x

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        exact = network(jnp.asarray(x.astype(np.float32), np.float64))
        assert np.array_equal(drawn(network, unit=0.0, seed=1)(x.astype(np.float32)), exact)
        honest = np.abs(np.asarray(network(jnp.asarray(x, np.float32)), np.float64) - exact).max()
        samples = [
            np.abs(drawn(network, unit=2.0**-24, seed=s)(x.astype(np.float32)) - exact).max() for s in range(1, 4)
        ]
    assert honest < max(samples) < 1e3 * honest
    assert len(set(map(float, samples))) == 3
