"""The bounds of a training: never exceeded, in any order of the sums, and not so loose that they say nothing."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
import parity
from parity.bounds.derive import Bounds, derive
from parity.judging import judge
from parity.replay.session import Session
from parity.rounding import bound
from tests.helpers.strategies import Training, trainings
from tests.helpers.torch_programs import minibatches, regression, small


def _in_float32(data: list[np.ndarray], order: np.random.Generator) -> list[np.ndarray]:
    """Forward, loss and gradient with every operation rounded to float32 and every sum taken in a drawn order."""
    x, y, w, b = (np.asarray(values, np.float32) for values in data)

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
    loss = total(residual * residual) / np.float32(y.size)
    upstream = np.float32(2) * residual / np.float32(y.size)
    return [predictions, np.asarray(loss), dot(upstream.T, x), np.array([total(column) for column in upstream.T])]


def _chain(x: Any, y: Any, weight: Any, bias: Any) -> list[Any]:
    def objective(params: Any) -> tuple[Any, Any]:
        predictions = x @ params[0].T + params[1][None]
        return jnp.mean((predictions - y) ** 2), predictions

    (loss, predictions), (by_weight, by_bias) = jax.value_and_grad(objective, has_aux=True)((weight, bias))
    return [predictions, loss, by_weight, by_bias]


_bounded_chain = jax.jit(bound(_chain, precision="float32"))
_SHAPES = [(1, 1, 1), (7, 3, 2), (40, 16, 1), (33, 5, 4)]


@given(st.sampled_from(_SHAPES), st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 2**31))
@settings(max_examples=100)
def test_never_exceeded_in_any_order_of_the_sums(
    shape: tuple[int, int, int], inputs_power: float, weights_power: float, seed: int
) -> None:
    order, (n, d, o) = np.random.default_rng(seed), shape
    sizes = [(n, d), (n, o), (o, d), (o,)]
    scales = [10**inputs_power, 10 ** (inputs_power + weights_power), 10**weights_power, 10**weights_power]
    data = [(scale * order.normal(size=size)).astype(np.float32) for scale, size in zip(scales, sizes, strict=True)]
    exact, bounds = _bounded_chain(*data)
    for value, truth, most in zip(_in_float32(data, order), exact, bounds, strict=True):
        assert (np.abs(value - np.asarray(truth)) <= np.asarray(most) * (1 + 1e-9)).all()


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2), st.sampled_from([1e-6, 0.1, 0.3, 1.0]))
def test_one_update_against_exact_arithmetic(values: list[float], rate: float) -> None:
    """w - lr g with every operation in float32, against fractions."""
    weight, gradient = (np.float32(value) for value in values)
    after = np.float32(weight - np.float32(np.float32(rate) * gradient))
    exact = Fraction(float(weight)) - Fraction(rate) * Fraction(float(gradient))
    optimizer = jaxreg.sgd(rate)

    def step(weight: Any, gradient: Any) -> Any:
        return weight + optimizer.update(gradient, optimizer.init(weight), weight)[0]

    _, most = bound(step)(weight, gradient)
    assert abs(Fraction(float(after)) - exact) <= Fraction(float(most))


def _of(program: Any) -> tuple[parity.Recording, Bounds]:
    recording = parity.record(program)
    return recording, derive(Session.of(parity.port(recording), recording))


@pytest.mark.thorough
@given(trainings())
@settings(max_examples=10)
def test_pytorchs_own_float64_run_is_within_the_float32_bound_at_every_step(training: Training) -> None:
    """Locked and free, element by element: what the judge relies on, asked without the judge."""
    recording, bounds = _of(regression(training))
    for run, exact, most in (
        (recording.observed, recording.arbiter_locked, bounds.locked),
        (recording.observed, recording.arbiter_free, bounds.free),
    ):
        for name, values in run.gradients.items():
            gap = np.abs(np.asarray(values, np.float64) - exact.gradients[name])
            assert (~np.isfinite(gap) | (gap <= most.gradients[name] * (1 + 1e-6))).all()


def test_bounds_are_not_idle() -> None:
    """The errors seen use a good part of the bound where few roundings are made, and of no stage less than a hundredth
    of a percent."""
    verdict = parity.check(regression(small(20)))
    used = {finding.stage: max(finding.torch_used, finding.jax_used) for finding in verdict.findings}
    assert used["forward"] > 0.1
    assert used["update"] > 0.3
    assert min(used.values()) > 1e-4


def test_the_bound_on_a_long_training_does_not_grow_without_end() -> None:
    """A steady training forgets old errors; carried entry by entry they would have doubled every few steps."""
    recording, bounds = _of(regression(small(400), optimizer={"momentum": 0.9}))
    late, early = bounds.free.weights["weight"][-1].max(), bounds.free.weights["weight"][20].max()
    assert late < 100 * early
    assert late < 1e-3 * np.abs(recording.observed.weights["weight"]).max()


def test_overflow_is_expected_where_it_can_happen() -> None:
    _, bounds = _of(regression(small(400, rate_share=3.0)))
    assert np.isinf(bounds.free.losses[-1])
    assert np.isfinite(bounds.free.losses[0])


def test_changing_batches_with_momentum_have_a_bound() -> None:
    _, bounds = _of(minibatches(momentum=0.9))
    assert np.isfinite(bounds.free.weights["weight"]).all()


def test_the_probabilistic_bound_is_the_sharper_one_where_sums_are_long() -> None:
    _, bounds = _of(regression(small(1, rows=20_000)))
    assert (bounds.likely.gradients["bias"] < 0.2 * bounds.locked.gradients["bias"]).all()
    assert (bounds.likely.losses <= bounds.locked.losses).all()


def test_what_independent_roundings_would_hardly_do_is_told() -> None:
    """A systematic error below the worst case: every float32 product off the same way."""
    recording = parity.record(regression(small(2, rows=20_000)))
    off = recording.observed.gradients["bias"] * np.float32(1 + 4e-4)
    gradients = {**recording.observed.gradients, "bias": off}
    changed = dataclasses.replace(recording, observed=dataclasses.replace(recording.observed, gradients=gradients))
    verdict = parity.check(changed)
    finding = next(f for f in verdict.findings if (f.stage, f.tensor) == ("gradient", "bias"))
    assert finding.torch_within
    assert finding.torch_likely > 1
    assert any("PyTorch" in warning and "bias" in warning for warning in judge.warnings(verdict.findings))
