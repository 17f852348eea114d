"""The judge is judged: faults put into the port must be caught where they are, and honest runs must raise no alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
import parity
from parity import Port, Recording
from parity.judging.comparisons import ulps
from tests.helpers.strategies import Training, trainings_of_few_shapes
from tests.helpers.torch_programs import minibatches, regression, small

STEPS = 12


@pytest.fixture(scope="module")
def recording() -> Recording:
    return parity.record(regression(small(STEPS)))


@pytest.fixture(scope="module")
def rate(recording: Recording) -> float:
    return recording.learning_rate or 0.0


def _halved_gradient(port: Port, rate: float) -> Port:
    """The loss has its right value, and half its gradient."""

    def loss(predictions: Any, targets: Any) -> Any:
        value = port.loss(predictions, targets)
        return 0.5 * value + jax.lax.stop_gradient(0.5 * value)

    return dataclasses.replace(port, loss=loss)


def _rate_off(port: Port, rate: float) -> Port:
    return dataclasses.replace(port, optimizer=jaxreg.sgd(1.01 * rate))


def _no_bias(port: Port, rate: float) -> Port:
    return dataclasses.replace(port, apply=lambda params, inputs: inputs @ params["kernel"] + 0 * params["bias"])


def _sum(port: Port, rate: float) -> Port:
    return dataclasses.replace(port, loss=lambda p, t: jaxreg.mse_loss(p, t, reduction="sum"))


def _step_missing(port: Port, rate: float) -> Port:
    return dataclasses.replace(port, optimizer=jaxreg.sgd(lambda step: jnp.where(step == 7, 0.0, rate)))


def _other_seed(port: Port, rate: float) -> Port:
    random = np.random.default_rng(5)
    return dataclasses.replace(
        port, params=jax.tree.map(lambda p: random.normal(size=p.shape).astype(p.dtype), port.params)
    )


def _float32_in_float64(port: Port, rate: float) -> Port:
    def apply(params: Any, inputs: Any) -> Any:
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        return port.apply(params, inputs.astype(jnp.float32)).astype(inputs.dtype)

    return dataclasses.replace(port, apply=apply)


def _bfloat16_products(port: Port, rate: float) -> Port:
    def apply(params: Any, inputs: Any) -> Any:
        product = inputs.astype(jnp.bfloat16) @ params["kernel"].astype(jnp.bfloat16)
        return product.astype(inputs.dtype) + params["bias"]

    return dataclasses.replace(port, apply=apply)


def _bfloat16_products_in_float32_only(port: Port, rate: float) -> Port:
    """What an accelerator's default does: float64 is left alone."""
    coarse = _bfloat16_products(port, rate)

    def apply(params: Any, inputs: Any) -> Any:
        return (port if inputs.dtype == jnp.float64 else coarse).apply(params, inputs)

    return dataclasses.replace(port, apply=apply)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("fault", "stage", "step", "off"),
    [
        (_halved_gradient, "gradient", 0, "program"),
        (_rate_off, "update", 0, "program"),
        (_no_bias, "forward", 0, "program"),
        (_sum, "loss", 0, "program"),
        (_step_missing, "update", 7, "program"),
        (_other_seed, "initial weights", 0, "program"),
        (_float32_in_float64, "forward", 0, "program"),
        (_bfloat16_products, "forward", 0, "program"),
        (_bfloat16_products_in_float32_only, "forward", 0, "jax"),
    ],
)
@jax.numpy_dtype_promotion("standard")  # faults are written as people write them
@jax.numpy_rank_promotion("allow")
def test_faults_are_caught_where_they_are(
    recording: Recording, rate: float, fault: Callable[[Port, float], Port], stage: str, step: int, off: str
) -> None:
    verdict = parity.check(recording, fault(parity.port(recording), rate))
    assert not verdict.ok
    first = verdict.first_divergence
    assert first is not None
    assert (first.stage, first.step, first.off) == (stage, step, off)
    assert stage in verdict.headline
    assert f"step {step}" in verdict.headline
    with pytest.raises(parity.DivergenceError, match=stage):
        verdict.raise_for_divergence()


@pytest.mark.cases(1)
@pytest.mark.parametrize("share", [1e-6, 1e-9])
def test_a_learning_rate_hardly_off_is_caught(recording: Recording, rate: float, share: float) -> None:
    port = dataclasses.replace(parity.port(recording), optimizer=jaxreg.sgd(rate * (1 + share)))
    first = parity.check(recording, port).first_divergence
    assert first is not None
    assert (first.stage, first.step) == ("update", 0)


def test_the_message_names_the_factor(recording: Recording, rate: float) -> None:
    first = parity.check(recording, _halved_gradient(parity.port(recording), rate)).first_divergence
    assert first is not None
    assert "a factor of 0.5." in first.message


@pytest.mark.thorough
def test_wrong_momentum_parts_at_its_first_step() -> None:
    """Dampening is left out: right at step 0, which PyTorch does not damp, wrong from step 1."""
    recording = parity.record(regression(small(), optimizer={"momentum": 0.9, "dampening": 0.5}))
    assert parity.check(recording).ok
    wrong = jaxreg.sgd(recording.learning_rate or 0.0, 0.9)
    first = parity.check(recording, dataclasses.replace(parity.port(recording), optimizer=wrong)).first_divergence
    assert first is not None
    assert (first.stage, first.step) == ("optimizer state", 1)


@pytest.mark.thorough
def test_a_fault_of_pytorchs_side_is_pinned_on_it(recording: Recording) -> None:
    """A recorded gradient that something changed on the way, as clipping would."""
    gradients = {name: values.copy() for name, values in recording.observed.gradients.items()}
    gradients["weight"][3] *= np.float32(0.5)
    observed = dataclasses.replace(recording.observed, gradients=gradients)
    verdict = parity.check(dataclasses.replace(recording, observed=observed))
    first = verdict.first_divergence
    assert first is not None
    assert (first.stage, first.tensor, first.step, first.off) == ("gradient", "weight", 3, "torch")


@given(trainings_of_few_shapes(), st.sampled_from(["mean", "sum"]), st.sampled_from([0.0, 0.0, 0.9]))
@settings(max_examples=settings().max_examples // 4)
def test_no_alarm_on_honest_runs(training: Training, reduction: str, momentum: float) -> None:
    """1 to 300 rows, 1 to 16 inputs, 1 to 4 outputs, scales from 1e-3 to 1e3, some of them diverging."""
    program = regression(training, reduction=reduction, optimizer={"momentum": momentum})
    verdict = parity.check(program)
    assert verdict.ok, f"{verdict.headline}\n{verdict.sentences}"


@pytest.mark.cases(1)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_batches_and_schedules_are_followed(momentum: float) -> None:
    verdict = parity.check(minibatches(momentum=momentum))
    assert verdict.ok, str(verdict)
    assert len({batch.inputs.shape for batch in verdict.recording.batches}) == 2


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"maximize": True, "lr": 1e-4},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.5, "dampening": 0.2, "weight_decay": 0.01},
    ],
)
def test_every_option_of_sgd_is_judged(options: dict[str, Any]) -> None:
    verdict = parity.check(regression(small(30), optimizer=options))
    assert verdict.ok, str(verdict)


def test_float64_programs_are_judged_too() -> None:
    import torch

    verdict = parity.check(regression(small(), dtype=torch.float64))
    assert verdict.ok, str(verdict)
    assert verdict.recording.dtype == np.float64


@pytest.mark.thorough
def test_divergence_on_both_sides_is_parity() -> None:
    verdict = parity.check(regression(small(400, rate_share=3.0)))
    assert verdict.ok, str(verdict)
    assert not np.isfinite(verdict.recording.observed.losses[-1])
    assert "Both trainings diverge: " in verdict.sentences[-1]
    assert "That is parity too." in verdict.sentences[-1]


@pytest.mark.thorough
@jax.numpy_dtype_promotion("standard")
def test_nan_on_one_side_only_is_not() -> None:
    recording = parity.record(regression(small(STEPS)))
    port = parity.port(recording)
    broken = dataclasses.replace(port, loss=lambda p, t: jnp.where(p.sum() < 1e9, jnp.nan, 0.0) * port.loss(p, t))
    first = parity.check(recording, broken).first_divergence
    assert first is not None
    assert (first.stage, first.step) == ("loss", 0)
    assert "JAX has nan here, where PyTorch has" in first.message


def _diverging() -> None:
    """A hidden layer with relu whose training overflows: its loss is NaN from some step on."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    x = 100 * torch.randn(12, 3)
    for _ in range(8):
        loss = ((model(x) - x[:, :1]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.thorough
@pytest.mark.parametrize("rate", [0.1, 0.11])
@jax.numpy_dtype_promotion("standard")
def test_what_follows_a_loss_that_is_nan_on_both_sides_is_not_compared(rate: float) -> None:
    """PyTorch's relu hands a gradient through where its input is NaN, and JAX's gives zero."""

    def port(recording: Recording) -> Port:
        def apply(params: Any, x: Any) -> Any:
            hidden = jax.nn.relu(x @ params["0.weight"].T + params["0.bias"][None])
            return hidden @ params["2.weight"].T + params["2.bias"][None]

        optimizer = jaxreg.sgd(rate, maximize=True)
        return Port(dict(recording.initial), apply, lambda p, t: ((p - t) ** 2).mean(), optimizer)

    recording = parity.record(_diverging)
    assert np.isnan(recording.observed.losses[-1])
    verdict = parity.check(recording, port)
    # A fault before that is still seen.
    assert verdict.ok == (rate == 0.1), str(verdict)
    if verdict.ok:
        assert not verdict.causes


def test_ulps_count_representable_numbers() -> None:
    one, tiny = np.float32(1), np.float32(2) ** np.float32(-149)
    a = np.array([1, 1, -tiny, 0, -0.0, np.nan], np.float32)
    b = np.array([one, np.nextafter(one, np.float32(2)), tiny, tiny, 0, 1], np.float32)
    assert ulps(a, b)[:5].tolist() == [0, 1, 2, 1, 0]
    assert np.isnan(ulps(a, b)[5])


def test_optax_sgd_and_plain_functions_are_ports_too(recording: Recording, rate: float) -> None:
    port = Port(
        params={"w": recording.initial["weight"].T, "b": recording.initial["bias"]},
        apply=lambda params, inputs: inputs @ params["w"] + params["b"][None],
        loss=lambda predictions, targets: jnp.mean((predictions - targets) ** 2),
        optimizer=optax.sgd(rate),
    )
    assert parity.check(recording, port).ok
