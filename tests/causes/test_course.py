"""The reference of PyTorch's optimizers is theirs, and its error bound covers what rounding does to both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from parity.causes.optimizer.course import Fed, course
from parity.optimizers.rule import OptimizerRule

STEPS, WIDTH = 7, 5


def _steps(make: Any) -> tuple[Fed, np.ndarray]:
    """A torch optimizer in float64 on drawn gradients, each step from drawn weights."""
    random = np.random.default_rng(0)
    gradients, weights = random.normal(size=(2, STEPS, WIDTH))
    parameter = torch.nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
    optimizer = make([parameter])
    after = []
    for gradient, before in zip(gradients, weights, strict=True):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(before))
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
        after.append(parameter.detach().numpy().copy())
    return Fed(gradients, weights, np.linalg.norm(gradients, axis=1), WIDTH), np.stack(after)


RATES = np.full((STEPS, WIDTH), 0.1)
CASES: list[tuple[str, Any, dict[str, Any]]] = [
    ("SGD", lambda p: torch.optim.SGD(p, 0.1), {}),
    ("SGD", lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.3, 0.1), {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (
        "SGD",
        lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, maximize=True),
        {"momentum": 0.9, "nesterov": "torch", "maximize": True},
    ),
    ("Adam", lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1), {"weight_decay": 0.1}),
    ("Adam", lambda p: torch.optim.Adam(p, 0.1, amsgrad=True), {"amsgrad": True}),
    (
        "Adam",
        lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.95), 1e-3),
        {"weight_decay": 0.01, "decay_form": "decoupled", "beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    ),
    ("RAdam", lambda p: torch.optim.RAdam(p, 0.1), {"eps_place": "before"}),
    (
        "RAdam",
        lambda p: torch.optim.RAdam(p, 0.1, (0.8, 0.9), 0.1, weight_decay=0.1),
        {"eps_place": "before", "beta1": 0.8, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.1},
    ),
    ("RMSprop", lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5), {"momentum": 0.5}),
    ("RMSprop", lambda p: torch.optim.RMSprop(p, 0.1, 0.9, centered=True), {"alpha": 0.9, "centered": True}),
    (
        "Adagrad",
        lambda p: torch.optim.Adagrad(p, 0.1, 0.01, initial_accumulator_value=0.2),
        {"lr_decay": 0.01, "initial_accumulator": 0.2, "eps": 1e-10},
    ),
]


@pytest.mark.parametrize(("kind", "make", "settings"), CASES)
def test_the_reference_is_pytorchs(kind: str, make: Any, settings: dict[str, Any]) -> None:
    fed, torch_weights = _steps(make)
    made = course(OptimizerRule(kind, RATES, **settings), fed).weights
    assert (np.abs(made.value - torch_weights) <= made.slack).all()
    # RAdam's length is a difference of numbers some hundred times as large.
    assert made.slack.max() < (3e-12 if kind == "RAdam" else 3e-13)


@pytest.mark.parametrize(("kind", "make", "settings"), CASES)
def test_the_bound_is_tighter_than_a_fault(kind: str, make: Any, settings: dict[str, Any]) -> None:
    fed, torch_weights = _steps(make)
    made = course(OptimizerRule(kind, RATES * (1 + 1e-11), **settings), fed).weights
    assert not (np.abs(made.value - torch_weights) <= made.slack).all()
