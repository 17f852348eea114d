"""The one table of optimizers gives the same numbers on JAX's arrays and on numbers that know their error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.optimizers import clipping
from parity.optimizers.arithmetic import TRACED
from parity.optimizers.error_arithmetic import WITH_ERRORS, of
from parity.optimizers.rule import PORTED_KINDS, OptimizerRule, changed, of_torch, spread
from parity.optimizers.updates import Step, step_constants, update

WIDTH = 5
RATES = np.full(WIDTH, 0.1)
SWITCHES: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9, "dampening": 0.3, "nesterov": "torch", "weight_decay": 0.1},
    {"momentum": 0.9, "rate_inside": -1, "first_damped": True, "maximize": True},
    {"decay_form": "whole", "weight_decay": 0.1, "eps_place": "inside", "amsgrad": True, "centered": True},
    {"eps_place": "before", "corrected": (False, True), "rectified": False, "lr_decay": 0.1},
]


@pytest.mark.parametrize("kind", PORTED_KINDS)
@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("number", [0, 7])
def test_both_arithmetics_agree_within_the_error(kind: str, switches: dict[str, Any], number: int) -> None:
    rule = OptimizerRule(kind, RATES, **switches)
    rng = np.random.default_rng(0)
    weights, gradients, first, second = rng.normal(size=(4, WIDTH))
    state = dict(zip(rule.state_keys, (first, np.abs(second) + 1, np.abs(second) + 2), strict=False))
    if kind in ("RMSprop", "Adagrad", "Adadelta"):
        state[rule.state_keys[0]] = np.abs(second) + 30
    constants = step_constants(rule, RATES, number)
    exact = {key: of(values) for key, values in state.items()}
    made, after = update(Step(rule, constants, number == 0, of(weights), of(gradients), exact, WITH_ERRORS))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        arrays = {key: jnp.asarray(values) for key, values in state.items()}
        numbers = {key: jnp.asarray(constant.value) for key, constant in constants.items()}
        given = jnp.asarray(weights), jnp.asarray(gradients)
        traced, kept = update(Step(rule, numbers, jnp.asarray(number == 0), *given, arrays, TRACED))
    assert (np.abs(np.asarray(traced) - made.value) <= made.slack).all()
    assert made.slack.max() < 1e-12
    assert set(kept) == set(after) == set(rule.state_keys)
    for key, values in kept.items():
        assert (np.abs(np.asarray(values) - after[key].value) <= after[key].slack).all(), key


def test_settings_may_differ_from_element_to_element() -> None:
    rules = [of_torch("SGD", {"momentum": momentum}, RATES[:1]) for momentum in (0.0, 0.9)]
    rule = spread(rules, np.array([0, 0, 1, 1, 1]), RATES[None])
    state = {"momentum_buffer": of(np.ones(WIDTH))}
    constants = step_constants(rule, RATES, 1)
    made, _ = update(Step(rule, constants, False, of(np.zeros(WIDTH)), of(np.ones(WIDTH)), state, WITH_ERRORS))
    np.testing.assert_allclose(made.value, [-0.1, -0.1, -0.19, -0.19, -0.19])
    still = changed(rule, "frozen", np.array([True, False, False, False, True]))
    made, _ = update(Step(still, constants, False, of(np.zeros(WIDTH)), of(np.ones(WIDTH)), state, WITH_ERRORS))
    np.testing.assert_allclose(made.value, [0, -0.1, -0.19, -0.19, 0])


@pytest.mark.parametrize(
    "how",
    [
        {"clip_value": 0.5},
        {"max_norm": 1.0, "norm_type": 2.0},
        {"max_norm": 1.0, "norm_type": 1.0},
        {"max_norm": 1.0, "norm_type": np.inf},
        {},
    ],
)
def test_clipping_is_pytorchs(how: dict[str, float]) -> None:
    rng = np.random.default_rng(1)
    given = {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}
    parameters = {
        name: torch.nn.Parameter(torch.zeros(values.shape, dtype=torch.float64)) for name, values in given.items()
    }
    for name, parameter in parameters.items():
        parameter.grad = torch.tensor(given[name])
    if "clip_value" in how:
        torch.nn.utils.clip_grad_value_(parameters.values(), how["clip_value"])
    elif how:
        torch.nn.utils.clip_grad_norm_(parameters.values(), how["max_norm"], how["norm_type"])
    with jax.enable_x64(True):
        clipped = clipping.clip(how, {name: jnp.asarray(values) for name, values in given.items()})
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        np.testing.assert_allclose(clipped[name], parameter.grad.numpy(), rtol=1e-14)
    if how.get("norm_type") == 2:
        norm = np.sqrt(sum((values**2).sum() for values in given.values()))
        np.testing.assert_allclose(clipping.norm_share(norm, 1.0) * given["b"], clipped["b"], rtol=1e-14)
