"""PyTorch's rules as JAX traces them, against PyTorch's own optimizers, and the bounds that are derived from them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from parity.bounds import torch_optimizers
from parity.rounding import Format, bound

STEPS, SHAPES = 4, {"weight": (3, 2), "bias": (2,)}
_MAYBE = st.sampled_from([0.0, 0.1])
RATES = st.sampled_from([1e-3, 0.3])
OPTIONS: dict[str, Any] = {
    "SGD": st.fixed_dictionaries(
        {"lr": RATES, "momentum": _MAYBE, "weight_decay": _MAYBE, "maximize": st.booleans()}
    ).flatmap(
        lambda o: st.fixed_dictionaries(
            {**{k: st.just(v) for k, v in o.items()}, "nesterov": st.booleans() if o["momentum"] else st.just(False)}
        )
    ),
    "Adam": st.fixed_dictionaries(
        {
            "lr": RATES,
            "weight_decay": _MAYBE,
            "amsgrad": st.booleans(),
            "betas": st.sampled_from([(0.9, 0.999), (0.4, 0.6)]),
        }
    ),
    "AdamW": st.fixed_dictionaries({"lr": RATES, "weight_decay": _MAYBE, "maximize": st.booleans()}),
    "RMSprop": st.fixed_dictionaries(
        {"lr": RATES, "momentum": _MAYBE, "weight_decay": _MAYBE, "centered": st.booleans()}
    ),
    "Adagrad": st.fixed_dictionaries({"lr": RATES, "lr_decay": _MAYBE, "weight_decay": _MAYBE}),
}


class Gradients:
    """A model whose gradients are given: the loss is the sum of its parameters times them."""

    def __init__(self, kind: str, options: dict[str, Any], seed: int) -> None:
        self.kind, self.options = kind, options
        rng = np.random.default_rng(seed)
        self.start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        self.given = [
            {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
            for _ in range(STEPS)
        ]

    def __call__(self) -> None:
        model = torch.nn.Linear(3, 2)
        model.weight.data, model.bias.data = torch.tensor(self.start["weight"].T), torch.tensor(self.start["bias"])
        optimizer = getattr(torch.optim, self.kind)(model.parameters(), **self.options)
        for row in self.given:
            x, y = torch.tensor(row["weight"]).T.contiguous(), torch.tensor(row["bias"])[None]
            loss = ((model(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def recorded(kind: str, options: dict[str, Any], seed: int) -> parity.Recording:
    return parity.record(Gradients(kind, options, seed))


def followed(recording: parity.Recording, form: Format) -> Any:
    """Weights and state after each step from the recorded ones, and how far rounding may take them."""
    rule = torch_optimizers.of(recording)
    assert rule is not None
    before = recording.weights_before()
    state = {
        key: {name: np.zeros_like(values[0], np.float64) for name, values in some.items()}
        for key, some in recording.observed.state.items()
    }
    off: Any = jax.tree.map(np.zeros_like, state)
    for step in range(recording.steps):
        values, errors = rule.constants(np.asarray(step))
        uncertain = jax.tree.map(lambda value, error: error + form.unit * np.abs(value), values, errors)
        weights = {name: np.asarray(rows[step], np.float64) for name, rows in before.items()}
        gradients = {name: np.asarray(rows[step], np.float64) for name, rows in recording.observed.gradients.items()}
        run = bound(
            lambda weights, gradients, state, values, first=step == 0: rule.update(
                weights, gradients, state, values, first
            ),
            precision=form,
            input_bounds=(None, None, off, uncertain),
        )
        # Operation by operation: nothing is compiled anew for the settings of each example.
        with jax.disable_jit():
            (moved, state), (reach, off) = run(weights, gradients, state, values)
        yield step, moved, reach, state, off


@pytest.mark.cases(2)
@pytest.mark.parametrize("kind", sorted(OPTIONS))
@given(data=st.data(), seed=st.integers(0, 2**31))
@settings(max_examples=8)
def test_pytorch_stays_within_the_bounds_of_its_own_rule(kind: str, data: st.DataObject, seed: int) -> None:
    """In float32 and in float64; a rule written down wrongly would be far off in float64."""
    recording = recorded(kind, data.draw(OPTIONS[kind]), seed)
    runs = ((recording.observed, Format.of("float32")), (recording.arbiter_locked, Format.of("float64")))
    for run, form in runs:
        twice = 2.0 if form.unit < 1e-10 else 1.0  # the value beside the bound is itself worked out in float64
        for step, moved, reach, state, off in followed(recording, form):
            for name, values in run.weights.items():
                assert (np.abs(values[step] - np.asarray(moved[name])) <= twice * np.asarray(reach[name])).all()
            for key, tensors in run.state.items():
                for name, values in tensors.items():
                    gap = np.abs(values[step] - np.asarray(state[key][name]))
                    assert (gap <= twice * np.asarray(off[key][name])).all(), (kind, key)


@pytest.mark.thorough
def test_decay_beside_the_step_is_bounded_though_optax_rounds_once_less() -> None:
    """AdamW multiplies the weights and then moves them; the port's own program has one rounding there."""

    def program() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(400, 50)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
        x = torch.randn(16, 400)
        for _ in range(3):
            loss = torch.nn.functional.mse_loss(model(x), x[:, :50])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def port(recording: parity.Recording) -> parity.Port:
        return parity.Port(
            dict(recording.initial),
            lambda params, x: x @ params["weight"].T + params["bias"][None],
            lambda predictions, targets: ((predictions - targets) ** 2).mean(),
            optax.adamw(3e-4, weight_decay=0.1),
        )

    with jax.numpy_dtype_promotion("standard"):
        verdict = parity.check(program, port)
    assert verdict.ok, str(verdict)
    exact = verdict.recording.arbiter_locked.weights["weight"]
    error = np.abs(verdict.recording.observed.weights["weight"].astype(np.float64) - exact)
    assert (error > 1.5 * 2.0**-24 * np.abs(exact)).any()  # more than the one rounding of a number of this size


def test_an_optimizer_that_is_not_known_has_no_rule() -> None:
    assert torch_optimizers.of(recorded("NAdam", {"lr": 0.01}, 0)) is None


@pytest.mark.thorough
@pytest.mark.parametrize("rate", [0.01, 0.0101])
def test_an_optimizer_that_has_no_rule_is_bounded_all_the_same(rate: float) -> None:
    """Step for step: how many steps were made is counted exactly, so nothing that hangs on it is open."""

    def port(recording: parity.Recording) -> parity.Port:
        return parity.Port(
            dict(recording.initial),
            lambda params, x: x @ params["weight"].T + params["bias"][None],
            lambda predictions, targets: ((predictions - targets) ** 2).mean(),
            optax.adamax(rate),
        )

    with jax.numpy_dtype_promotion("standard"):
        verdict = parity.check(Gradients("Adamax", {"lr": 0.01}, 0), port)
    updates = [finding for finding in verdict.findings if finding.stage == "update"]
    assert {finding.tensor for finding in updates} >= {"weight", "bias"}
    assert all(finding.unbounded == 0 for finding in updates)
    assert verdict.ok == (rate == 0.01), str(verdict)
    first = verdict.first_divergence
    assert first is None or (first.stage, first.step) == ("update", 0)
