"""Rates that Optax works out, by schedules or as injected hyperparameters, are honest; a wrong one is still caught."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
from parity import Port, Recording
from parity.porting.optax_state import ExactCounts

STEPS = 4


@pytest.fixture(autouse=True)
def as_users_have_it() -> Iterator[None]:
    """Optax's schedules mix dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


SCHEDULERS = {
    "exponential": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    "linear": lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, 3),
    "polynomial": lambda optimizer: torch.optim.lr_scheduler.PolynomialLR(optimizer, 6, 2.0),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6),
    "constant": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
}


def _train(kind: Any, schedule: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    inputs, targets = torch.randn(8, 3), torch.randn(8, 2)
    optimizer = kind(model.parameters(), lr=0.01)
    scheduler = SCHEDULERS[schedule](optimizer)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()


@functools.cache
def _recorded(kind: Any, schedule: str) -> Recording:
    return parity.record(lambda: _train(kind, schedule))


def _apply(params: Any, inputs: Any) -> Any:
    return inputs @ params["weight"].T + params["bias"]


def _loss(predictions: Any, targets: Any) -> Any:
    return jnp.mean((predictions - targets) ** 2)


def _verdict(kind: Any, schedule: str, optimizer: optax.GradientTransformation) -> parity.Verdict:
    recording = _recorded(kind, schedule)
    return parity.check(recording, Port(dict(recording.initial), _apply, _loss, optimizer))


HONEST = [
    (torch.optim.SGD, "exponential", optax.sgd(optax.exponential_decay(0.01, 1, 0.9))),
    (torch.optim.SGD, "linear", optax.sgd(optax.linear_schedule(0.0025, 0.01, 3))),
    (torch.optim.SGD, "polynomial", optax.sgd(optax.polynomial_schedule(0.01, 0.0, 2, 6))),
    (torch.optim.SGD, "cosine", optax.sgd(optax.cosine_decay_schedule(0.01, 6))),
    (torch.optim.Adam, "constant", optax.inject_hyperparams(optax.adam)(learning_rate=0.01)),
]
WRONG = [
    (torch.optim.SGD, "exponential", optax.sgd(optax.exponential_decay(0.01, 1, 0.900001)), "update", 1),
    (torch.optim.SGD, "linear", optax.sgd(optax.linear_schedule(0.00250001, 0.01, 3)), "update", 0),
    (torch.optim.Adam, "constant", optax.inject_hyperparams(optax.adam)(0.01, b2=0.99901), "optimizer state", 0),
]


@pytest.mark.cases(2)
@pytest.mark.parametrize(("kind", "schedule", "optimizer"), HONEST)
def test_what_optax_works_out_of_the_count_is_as_exact_as_pytorch_s(
    kind: Any, schedule: str, optimizer: optax.GradientTransformation
) -> None:
    verdict = _verdict(kind, schedule, optimizer)
    assert verdict.ok, verdict.first_divergence


@pytest.mark.cases(1)
@pytest.mark.parametrize(("kind", "schedule", "optimizer", "stage", "step"), WRONG)
def test_a_schedule_or_a_setting_that_is_another_one_is_caught(
    kind: Any, schedule: str, optimizer: optax.GradientTransformation, stage: str, step: int
) -> None:
    first = _verdict(kind, schedule, optimizer).first_divergence
    assert first is not None
    assert (first.stage, first.step) == (stage, step)


def test_a_rate_of_the_wrong_sign_is_named_so() -> None:
    (cause,) = _verdict(torch.optim.Adam, "constant", optax.adam(-0.02)).causes
    assert cause.name == "learning rate of the wrong sign"
    assert "it steps in the opposite direction, and its size is 2 times PyTorch's" in cause.sentence


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(optax.exponential_decay(0.1, 3, 0.5)),
        optax.MultiSteps(optax.adam(optax.linear_schedule(0.1, 0.2, 3)), 2).gradient_transformation(),
        optax.inject_hyperparams(optax.adamw)(optax.warmup_cosine_decay_schedule(0.1, 0.2, 2, 5)),
        optax.masked(optax.sgd(optax.join_schedules([optax.constant_schedule(0.1)] * 2, [2])), {"a": True, "b": False}),
    ],
)
def test_exact_counts_keep_the_state_s_types_and_change_nothing_in_float32(
    optimizer: optax.GradientTransformation,
) -> None:
    exact = ExactCounts.of(optimizer)
    assert ExactCounts.of(exact) is exact
    for wide in (False, True):
        with jax.enable_x64(wide):
            params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}
            state, plain = exact.init(params), optimizer.init(params)
            for _ in range(3):
                before = jax.tree.map(jnp.result_type, state)
                updates, state = exact.update(params, state, params)
                expected, plain = optimizer.update(params, plain, params)
                assert jax.tree.map(jnp.result_type, state) == before
                for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
                    np.testing.assert_allclose(ours, theirs, rtol=1e-6 if wide else 0)
