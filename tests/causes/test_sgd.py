"""Faults in SGD, each named; estimates have the digits that the steps determine."""

from __future__ import annotations

import dataclasses
import functools
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
from parity.causes.optimizer.learning_rate import explanations
from parity.causes.optimizer.steps import columns
from tests.helpers.judged import causes, only
from tests.helpers.torch_programs import minibatches, regression, small


@functools.cache
def recorded(**options: Any) -> Recording:
    return parity.record(regression(small(10, outputs=3), optimizer=options))


HEAVY = {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}
NESTEROV = {"momentum": 0.9, "nesterov": True}


def _with(recording: Recording, *before: Any, **changed: Any) -> Port:
    """The right port, but for other settings of the optimizer, and what comes before it."""
    rule = {key: v for key, v in recording.rules["weight"].items() if key in ("momentum", "dampening", "weight_decay")}
    rule |= {key: bool(recording.rules["weight"][key]) for key in ("nesterov", "maximize")}
    options = {"learning_rate": recording.learning_rate, **rule, **changed}
    rate, momentum = options.pop("learning_rate"), options.pop("momentum")
    own = jaxreg.sgd(rate, momentum, **options)
    return dataclasses.replace(parity.port(recording), optimizer=optax.chain(*before, own))


def _added_up() -> optax.GradientTransformation:
    def update(gradients: Any, total: Any, params: Any = None) -> Any:
        total = jax.tree.map(jnp.add, gradients, total)
        return total, total

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def _late() -> optax.GradientTransformation:
    def update(gradients: Any, before: Any, params: Any = None) -> Any:
        return before, gradients

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def _decoupled(recording: Recording) -> Port:
    rate = recording.learning_rate or 0.0
    own = optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.1), optax.scale(-rate))
    return dataclasses.replace(parity.port(recording), optimizer=own)


def _bias_frozen(recording: Recording) -> Port:
    port = parity.port(recording)
    still = optax.masked(optax.set_to_zero(), {"kernel": False, "bias": True})
    return dataclasses.replace(port, optimizer=optax.chain(port.optimizer, still))


FAULTS: list[tuple[dict[str, Any], Callable[[Recording], Port], str, str]] = [
    ({}, lambda r: _with(r, learning_rate=(r.learning_rate or 0.0) * (1 + 1e-9)), "learning rate", "learning rate to"),
    ({}, lambda r: _with(r, maximize=True), "maximize missed", "maximize=False"),
    ({}, lambda r: _with(r, _added_up()), "gradients not zeroed", "own gradient"),
    ({}, lambda r: _with(r, _late()), "stale gradient", "gradient at the weights"),
    ({}, lambda r: _with(r, optax.clip_by_global_norm(0.5)), "gradient clipping", "clip"),
    ({}, _bias_frozen, "frozen parameter", "optimizer"),
    (HEAVY, lambda r: _with(r, dampening=0.0), "dampening missing", "dampening=0.3"),
    (HEAVY, lambda r: _with(r, weight_decay=0.123), "decay", "weight_decay=0.1"),
    (HEAVY, lambda r: _with(r, weight_decay=0.0), "decay", "weight_decay=0.1"),
    (HEAVY, lambda r: _with(r, momentum=0.9 * (1 - 1e-6)), "momentum", "momentum to 0.9"),
    ({"momentum": 0.9, "weight_decay": 0.1}, _decoupled, "decoupled decay", "add_decayed_weights"),
    (NESTEROV, lambda r: _with(r, nesterov=False), "Nesterov missing", "nesterov=True"),
    ({"momentum": 0.9}, lambda r: _with(r, nesterov=True), "Nesterov added", "nesterov=True out"),
]


@pytest.mark.cases(4)
@pytest.mark.parametrize(("options", "fault", "name", "fix"), FAULTS)
def test_faults_are_named(options: dict[str, Any], fault: Callable[[Recording], Port], name: str, fix: str) -> None:
    recording = recorded(**options)
    cause = only(recording, fault(recording))
    assert cause.name == name, cause
    assert fix in cause.fix


@pytest.mark.cases(1)
@pytest.mark.parametrize("options", [{}, HEAVY, NESTEROV])
def test_honest_ports_have_no_cause(options: dict[str, Any]) -> None:
    assert causes(recorded(**options), _with(recorded(**options))) == ()


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (lambda rates: lambda step: jnp.asarray(np.append(rates, rates[-1]))[step + 1], "schedule off by one"),
        (lambda rates: lambda step: jnp.asarray(rates)[jnp.maximum(step - 1, 0)], "schedule off by one"),
        (lambda rates: lambda step: rates[0] * 0.5**step, "schedule stepped per batch"),
        (lambda rates: rates[0], "schedule missing"),
    ],
)
def test_schedules_are_named(schedule: Any, name: str) -> None:
    recording = parity.record(minibatches())
    rates = recording.learning_rates["weight"]
    port = dataclasses.replace(parity.port(recording), optimizer=jaxreg.sgd(schedule(rates)))
    assert only(recording, port).name == name


@pytest.mark.thorough
@given(st.floats(-9, -1), st.booleans())
@settings(max_examples=8)
def test_the_rates_factor_is_estimated(power: float, more: bool) -> None:
    """From 10 % down to 1e-9, to the digits that are told."""
    recording = recorded()
    factor = 1 + (10.0**power if more else -(10.0**power))
    from parity.replay.replay import replay
    from parity.replay.session import Session

    steps = columns(
        recording,
        replay(Session.of(_with(recording, learning_rate=(recording.learning_rate or 0.0) * factor), recording)),
    )
    assert steps is not None
    [(variant, made)] = list(explanations(steps, recording))
    assert variant.name == "learning rate"
    assert steps.explained(made)
    told = variant.what.removeprefix("its learning rate is ").removesuffix(" times PyTorch's").replace(" ", "")
    sign = 1 if "+" in told else -1
    share = float(told.split("1", 1)[1][1:]) * sign if told.startswith(("1+", "1-")) else float(told) - 1
    assert share == pytest.approx(factor - 1, rel=1e-4)
