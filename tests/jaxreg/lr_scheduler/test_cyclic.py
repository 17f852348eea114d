"""CyclicLR against PyTorch's, step for step, with every option."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg import lr_scheduler

STEPS = 60
U = 2.0**-53


def theirs(arguments: dict[str, Any]) -> tuple[list[float], list[float]]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, **arguments)
    rates, momenta = [], []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    return rates, momenta


def ours(schedule: Any) -> np.ndarray[Any, Any]:
    with jax.enable_x64(True):
        return np.array([float(schedule(step)) for step in range(STEPS)])


cycles = st.fixed_dictionaries(
    {
        "step_size_up": st.integers(1, 30),
        "step_size_down": st.none() | st.integers(1, 30),
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": st.floats(0.5, 1.0),
    }
)


@given(shape=cycles, low=st.floats(1e-4, 0.1), high=st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_rates_and_momenta_are_pytorchs(shape: dict[str, Any], low: float, high: float) -> None:
    rates, momenta = theirs({"base_lr": low, "max_lr": high, **shape})
    # PyTorch takes the place in a cycle from 1 + steps / length, which rounds by two units of as many cycles.
    length = shape["step_size_up"] + (shape["step_size_down"] or shape["step_size_up"])
    steepest = length / min(shape["step_size_up"], shape["step_size_down"] or shape["step_size_up"])
    slack = (4 * (2 + STEPS / length) * steepest + 40) * U
    assert np.abs(ours(lr_scheduler.cyclic_lr(low, high, **shape)) - rates).max() <= slack * high
    assert np.abs(ours(lr_scheduler.cyclic_momentum(**shape)) - momenta).max() <= slack * 0.9


@pytest.mark.parametrize("scale_mode", ["cycle", "iterations"])
def test_a_scale_of_ones_own(scale_mode: str) -> None:
    shape: dict[str, Any] = {"step_size_up": 4, "scale_fn": lambda x: 1 / (1 + x), "scale_mode": scale_mode}
    rates, _ = theirs({"base_lr": 0.1, "max_lr": 1.0, **shape})
    assert np.abs(ours(lr_scheduler.cyclic_lr(0.1, 1.0, **shape)) - rates).max() <= 200 * U


def test_it_counts_epochs_and_trains() -> None:
    schedule = lr_scheduler.cyclic_lr(0.1, 0.5, 2, steps_per_epoch=3)
    assert [round(float(schedule(step)), 6) for step in (0, 2, 3, 6)] == [0.1, 0.1, 0.3, 0.5]
    assert lr_scheduler.cyclic_lr(0.1, 0.5, 2) == lr_scheduler.cyclic_lr(0.1, 0.5, 2)
    jaxreg.sgd(schedule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size_up": 0}, "step_size_up must be an integer of at least 1, got 0"),
        ({"step_size_down": 1.5}, "step_size_down must be an integer of at least 1, got 1.5"),
        ({"mode": "square"}, 'mode must be "triangular", "triangular2" or "exp_range", got \'square\''),
        ({"gamma": float("nan")}, "gamma must be a finite number, got nan"),
        ({"scale_fn": 2}, "scale_fn must be a function"),
        ({"scale_fn": abs, "scale_mode": "steps"}, 'scale_mode must be "cycle" or "iterations"'),
    ],
)
def test_what_cannot_be_used_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=message):
        lr_scheduler.cyclic_lr(0.1, 1.0, **arguments)
