"""The rounding bounds: never exceeded, in any order of the sums, and not so loose that they say nothing."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from parity._bounds import derive
from parity._linear_bounds import Format, Problem, chain_bounds
from parity._replay import replay
from parity._sgd_bounds import Rounded, Rule, free_bounds, step_roundings
from tests.parity.torch_programs import minibatches, regression, small
from tests.strategies import Training, trainings

SINGLE = Format.of(np.dtype(np.float32))


def test_formats() -> None:
    assert (SINGLE.unit, SINGLE.tiny) == (2.0**-24, 2.0**-126)
    assert SINGLE.gamma(3) == 3 * 2.0**-24 / (1 - 3 * 2.0**-24)
    assert math.isinf(SINGLE.gamma(2**24))


def _in_float32(problem: Problem, weight: np.ndarray, bias: np.ndarray, order: np.random.Generator) -> list[np.ndarray]:
    """Forward, loss and gradient with every operation rounded to float32 and every sum taken in a drawn order."""
    x, y = (np.asarray(values, np.float32) for values in (problem.inputs, problem.targets))
    w, b = weight.astype(np.float32), bias.astype(np.float32)

    def dot(a: np.ndarray, c: np.ndarray) -> np.ndarray:
        total = np.zeros((a.shape[0], c.shape[1]), np.float32)
        for k in order.permutation(a.shape[1]):
            total = total + a[:, k : k + 1] * c[k : k + 1]
        return total

    def total(values: np.ndarray) -> np.float32:
        result = np.float32(0)
        for value in order.permutation(values.ravel()):
            result = np.float32(result + value)
        return result

    predictions = dot(x, w.T) + b
    residual = predictions - y
    scale = np.float32(problem.scale)
    loss = total(residual * residual) * scale
    upstream = np.float32(2) * residual * scale
    return [predictions, np.asarray(loss), dot(upstream.T, x), np.array([total(column) for column in upstream.T])]


@given(trainings(), st.integers(0, 2**31))
@settings(max_examples=100)
def test_never_exceeded_in_any_order_of_the_sums(training: Training, seed: int) -> None:
    order = np.random.default_rng(seed)
    x, y = (values[:40].astype(np.float64) for values in training.data())
    problem = Problem(x, y, float(np.float32(1 / y.size)))
    size = (training.outputs, training.inputs)
    weight = order.normal(size=size).astype(np.float32).astype(np.float64)
    bias = order.normal(size=training.outputs).astype(np.float32).astype(np.float64)
    residual = x @ weight.T + bias - y
    upstream = 2 * problem.scale * residual
    exact = [x @ weight.T + bias, problem.scale * (residual**2).sum(), upstream.T @ x, upstream.sum(0)]
    bounds = chain_bounds(problem, weight[None], bias[None], 0 * weight[None], 0 * bias[None], SINGLE)
    for value, truth, bound in zip(_in_float32(problem, weight, bias, order), exact, bounds, strict=True):
        assert (abs(value - truth) <= bound[0] * (1 + 1e-9)).all()


def _rule(*columns: dict[str, Any], **settings: Any) -> Rule:
    rest = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
    return Rule.of([{**rest, **column} for column in columns or (settings,)])


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2), st.floats(1e-6, 1.0))
def test_one_update_against_exact_arithmetic(values: list[float], rate: float) -> None:
    """w - lr g with every operation in float32, against fractions."""
    weight, gradient = (np.float32(value) for value in values)
    after = np.float32(weight - np.float32(np.float32(rate) * gradient))
    exact = Fraction(float(weight)) - Fraction(rate) * Fraction(float(gradient))
    rule = _rule()
    box = np.full((1, 1, 1), 1.0)
    rounded = step_roundings(
        rule, np.array([[rate]]), box * float(gradient), 0 * box, box * float(weight), box * float(exact), SINGLE
    )
    assert abs(Fraction(float(after)) - exact) <= Fraction(float(rounded.weights[0, 0, 0]))


def test_an_error_is_carried_as_the_training_carries_it() -> None:
    """One error at the first step of a known, shrinking mode: the bound must follow |1 - lr h| to the power, no looser
    than the mixing of modes allows, and momentum's as its own recurrence does."""
    steps, rate, curvature = 60, 0.1, 2.0
    rates, order = np.full((steps, 1), rate), np.zeros(steps, np.int64)
    hessians = [np.array([[curvature]])]
    error = np.zeros((steps, 1, 1))
    error[0] = 1e-3
    none = np.zeros((steps, 1, 1))
    _, weights = free_bounds(_rule(), rates, hessians, order, none, Rounded(none, none, error))
    expected = 1e-3 * abs(1 - rate * curvature) ** np.arange(steps)
    assert weights[:, 0, 0] == pytest.approx(expected, rel=1e-12)

    _, weights = free_bounds(_rule(momentum=0.9), rates, hessians, order, none, Rounded(none, none, error))
    weight, buffer = 1e-3, 0.0
    for step in range(steps):
        assert abs(weight) <= weights[step, 0, 0] * (1 + 1e-12)
        buffer = 0.9 * buffer + curvature * weight
        weight = weight - rate * buffer
    # Oscillation is bounded by its envelope, sqrt(0.9) a step.
    assert weights[-1, 0, 0] < 10 * 1e-3 * 0.9 ** (steps / 2)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 0.9]), min_size=2, max_size=2),
    st.lists(st.sampled_from([0.01, 0.1, 0.3]), min_size=2, max_size=2),
    st.lists(st.sampled_from([0.0, 0.1]), min_size=2, max_size=2),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_errors_of_columns_trained_differently_stay_below_the_bound(
    momenta: list[float], rates: list[float], decays: list[float], nesterov: bool, seed: int
) -> None:
    """Drawn errors at every step, carried by the recurrence written out, on two batches in turn."""
    random, steps = np.random.default_rng(seed), 20
    designs = random.normal(size=(2, 5, 2))
    hessians = [design.T @ design / 5 for design in designs]
    order = np.arange(steps) % 2
    columns = [
        {"momentum": m, "weight_decay": d, "nesterov": nesterov and m > 0} for m, d in zip(momenta, decays, strict=True)
    ]
    errors = np.abs(random.normal(size=(steps, 1, 2)))
    none = np.zeros_like(errors)
    both = np.tile(rates, (steps, 1))
    bound_buffer, bound_weights = free_bounds(_rule(*columns), both, hessians, order, none, Rounded(none, none, errors))
    weight, buffer, m = np.zeros(2), np.zeros(2), np.array(momenta)
    for step in range(steps):
        gradient = hessians[order[step]] @ weight + np.array(decays) * weight
        buffer = np.where(m > 0, m * buffer + gradient, 0)
        direction = np.where(m > 0, gradient + m * buffer if nesterov else buffer, gradient)
        weight = weight - np.array(rates) * direction + random.choice([-1, 1], 2) * errors[step, 0]
        assert (abs(weight) <= bound_weights[step, 0] * (1 + 1e-9)).all()
        assert (abs(buffer) <= bound_buffer[step, 0] * (1 + 1e-9)).all()


def test_bounds_are_not_idle() -> None:
    """The errors seen use a good part of the bound where few roundings are made, and of no stage less than a hundredth
    of a percent."""
    verdict = parity.check(regression(small(20)))
    used = {finding.stage: max(finding.torch_used, finding.jax_used) for finding in verdict.findings}
    assert used["forward"] > 0.1
    assert used["update"] > 0.3
    assert min(used.values()) > 1e-4


def test_overflow_is_expected_where_it_can_happen() -> None:
    recording = parity.record(regression(small(400, rate_share=3.0)))
    bounds = derive(recording, replay(parity.port(recording), recording))
    assert np.isinf(bounds.free_torch.losses[-1])
    assert np.isfinite(bounds.free_torch.losses[0])


def test_changing_batches_with_momentum_have_a_bound() -> None:
    recording = parity.record(minibatches(momentum=0.9))
    bounds = derive(recording, replay(parity.port(recording), recording))
    assert np.isfinite(bounds.free_torch.weights["weight"]).all()


def test_other_trainings_have_none_yet() -> None:
    import torch

    def program() -> None:
        model, loss_fn = torch.nn.Linear(1, 1), torch.nn.L1Loss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss_fn(model(torch.ones(2, 1)), torch.ones(2, 1)).backward()
        optimizer.step()

    recording = parity.record(program)
    port = parity.port(parity.record(regression(small(1, inputs=1, outputs=1))))
    with pytest.raises(
        parity.UnsupportedError, match=r"no rounding bound is known for .* with torch.nn.modules.loss.L"
    ):
        parity.check(recording, port)
