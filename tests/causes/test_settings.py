"""Settings that a port leaves to its library, or turns round: named, and fixed in the library's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
from parity import _pairs
from parity.causes import _initial

F = torch.nn.functional


def program(optimizer: Callable[[Any], Any], clip: float = 0.0) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        made = optimizer(model)
        x = torch.randn(8, 3)
        for _ in range(3):
            loss = F.mse_loss(model(x), x[:, :2])
            made.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            made.step()

    return run


def undecayed_bias(model: Any) -> Any:
    groups: list[dict[str, Any]] = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    return torch.optim.SGD(groups, lr=0.1)


CASES: dict[str, tuple[Callable[[], None], Any, str, str]] = {
    "rmsprop as it is": (
        program(lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01)),
        optax.rmsprop(0.01),
        "alpha, epsilon inside the root",
        "decay=0.99, eps_in_sqrt=False",
    ),
    "adagrad as it is": (
        program(lambda model: torch.optim.Adagrad(model.parameters(), lr=0.1)),
        optax.adagrad(0.1),
        "initial accumulator, epsilon inside the root",
        "initial_accumulator_value=0, eps=1e-10, eps_in_sqrt=False",
    ),
    "a beta": (
        program(lambda model: torch.optim.Adam(model.parameters(), lr=0.01)),
        optax.adam(0.01, b2=0.99),
        "beta2",
        "set b2 to 0.999 (PyTorch's beta2)",
    ),
    "no decay in an optimizer that has none": (
        program(lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.05)),
        optax.adam(0.01),
        "decay",
        "put optax.add_decayed_weights(0.05) first in the chain",
    ),
    "a mask turned round": (
        program(undecayed_bias),
        optax.chain(optax.add_decayed_weights(0.1, {"weight": False, "bias": True}), optax.sgd(0.1)),
        "decay mask inverted",
        "turn the mask of the decay round: True where PyTorch decays",
    ),
    "clipped by value": (
        program(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), clip=0.3),
        optax.chain(optax.clip(0.3), optax.sgd(0.1)),
        "gradient clipping",
        "use optax.clip_by_global_norm(0.3)",
    ),
}


@pytest.mark.parametrize("case", CASES)
@jax.numpy_rank_promotion("allow")  # ports are written as people write them
@jax.numpy_dtype_promotion("standard")
def test_the_setting_is_named_and_fixed_in_optaxs_words(case: str) -> None:
    run, optimizer, name, fix = CASES[case]

    def port(recording: parity.Recording) -> parity.Port:
        def apply(params: Any, x: Any) -> Any:
            return x @ params["weight"].T + params["bias"]

        return parity.Port(dict(recording.initial), apply, lambda a, b: jnp.mean((a - b) ** 2), optimizer)

    verdict = parity.check(parity.record(run), port)
    assert any(cause.name == name and fix in cause.fix for cause in verdict.causes), verdict.explanation


def test_axes_in_another_order_are_told_for_any_number_of_them() -> None:
    kernel = np.arange(24.0).reshape(2, 3, 2, 2)
    assert _initial._turn(kernel.transpose(0, 1, 3, 2), kernel) == (0, 1, 3, 2)
    assert _initial._turn(kernel + 1, kernel) is None
    assert _initial._turn(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 3.0], [2.0, 4.0]])) == (1, 0)


def test_data_that_differ_are_told_by_how() -> None:
    data = np.linspace(0.1, 1, 12, dtype=np.float32).reshape(4, 3)
    assert "in another order" in _pairs._how_apart(data, data[::-1])
    assert "rounded at another place" in _pairs._how_apart(data, np.nextafter(data, np.float32(2)))
    assert _pairs._how_apart(data, 2 * data) == "Compare how they are loaded and scaled"
    assert _pairs._how_apart(data, data[:2]) == "Their shapes differ"
