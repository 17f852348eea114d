"""Optimizer state in another convention than PyTorch's is the same training where every update agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import parity
from parity import Port, Recording
from parity.judging.optimizer_conventions import _factor, describe

RATE, BIAS_RATE = 0.02, 0.05


@pytest.fixture(autouse=True)
def as_users_have_it() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def program(optimizer: Callable[[Any], Any], steps: int = 4, gamma: float = 1.0) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        chosen = optimizer([{"params": [model.weight]}, {"params": [model.bias], "lr": BIAS_RATE}])
        schedule = torch.optim.lr_scheduler.ExponentialLR(chosen, gamma)
        x, y = torch.randn(6, 3), torch.randn(6, 2)
        for _ in range(steps):
            chosen.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            chosen.step()
            schedule.step()

    return run


def port(make: Callable[[float], optax.GradientTransformation]) -> Callable[[Recording], Port]:
    def build(recording: Recording) -> Port:
        each = {"weight": make(RATE), "bias": make(BIAS_RATE)}
        return Port(
            dict(recording.initial),
            lambda params, x: x @ params["weight"].T + params["bias"],
            lambda made, wanted: jnp.mean((made - wanted) ** 2),
            optax.partition(each, {"weight": "weight", "bias": "bias"}),
        )

    return build


def sgd(groups: Any) -> Any:
    return torch.optim.SGD(groups, lr=RATE, momentum=0.9)


def rmsprop(groups: Any) -> Any:
    return torch.optim.RMSprop(groups, lr=RATE, momentum=0.9)


def adam(groups: Any) -> Any:
    return torch.optim.Adam(groups, lr=RATE)


def optax_rmsprop(rate: float) -> Any:
    return optax.rmsprop(rate, decay=0.99, eps_in_sqrt=False, momentum=0.9)


def unscaled_adam(rate: float) -> Any:
    """Adam whose moments are plain sums, as some write it."""

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: 0.9 * m + g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: 0.999 * v + g * g, state.nu, gradients)
        moved = jax.tree.map(
            lambda m, v: -rate * (0.1 * m / (1 - 0.9**count)) / (jnp.sqrt(0.001 * v / (1 - 0.999**count)) + 1e-8),
            mu,
            nu,
        )
        return moved, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(
    ("optimizer", "own", "factors"),
    [
        (rmsprop, optax_rmsprop, {"square_avg": (1, 1), "momentum_buffer": (-RATE, -BIAS_RATE)}),
        (
            sgd,
            lambda rate: optax.chain(optax.scale(-rate), optax.trace(0.9)),
            {"momentum_buffer": (-RATE, -BIAS_RATE)},
        ),
        (adam, unscaled_adam, {"exp_avg": (10, 10), "exp_avg_sq": (1000, 1000)}),
    ],
)
def test_state_in_another_convention_is_parity_and_is_told(optimizer: Any, own: Any, factors: Any) -> None:
    verdict = parity.check(program(optimizer), port(own))
    assert verdict.ok, verdict.explanation
    assert not verdict.causes
    found = {key: (some["weight"], some["bias"]) for key, some in verdict.replay.conventions.items()}
    assert found == pytest.approx({key: pytest.approx(some, rel=1e-12) for key, some in factors.items()})
    sentences = [line for line in verdict.sentences if line.startswith("The port keeps")]
    assert sentences == describe(verdict.replay.conventions)
    assert len(sentences) == sum(some != (1, 1) for some in factors.values())
    # The matrix replays the same steps, and must read the state in the same way.
    from parity._check import _matrix_of as of

    assert of(verdict, port(own), ["highest"], lambda line: None).ok


@pytest.mark.parametrize(
    ("recorded", "own"),
    [
        (program(rmsprop, gamma=0.5), optax_rmsprop),  # a rate that changes makes it another training
        (program(sgd), lambda rate: optax.chain(optax.scale(-rate), optax.trace(0.8))),
        (program(sgd, steps=1), lambda rate: optax.chain(optax.scale(-rate), optax.trace(0.9))),  # nothing proves it
    ],
)
def test_what_no_constant_explains_is_still_told(recorded: Any, own: Any) -> None:
    verdict = parity.check(recorded, port(own))
    assert not verdict.ok
    assert not verdict.replay.conventions


def test_thinned_recordings_too() -> None:
    recording = parity.record(program(rmsprop, steps=40), memory_limit=20_000)
    assert recording.thinned is not None
    verdict = parity.check(recording, port(optax_rmsprop))
    assert verdict.ok, verdict.explanation


NUMBERS = st.one_of(st.just(0.0), st.floats(1e-100, 1e3), st.floats(-1e3, -1e-100))


@given(st.floats(1e-30, 1e30), st.booleans(), st.lists(NUMBERS, min_size=1, max_size=9))
def test_the_factor_is_the_ratio_of_what_is_large(size: float, negative: bool, values: list[float]) -> None:
    theirs, factor = np.asarray(values), -size if negative else size
    own, spread = _factor(theirs * factor, theirs)
    if not theirs.any():
        assert (own, spread) == (1.0, 0.0)
        return
    assert own == pytest.approx(factor, rel=1e-14)
    assert spread <= 1e-14
