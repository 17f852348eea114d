"""Weights that a program moves by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import parity

STEPS = 3


def _by_hand(step: Callable[[torch.Tensor], None], momentum: bool = False) -> Callable[[], None]:
    def program() -> None:
        torch.manual_seed(0)
        weight, rows = torch.randn(3, 1, requires_grad=True), torch.randn(6, 3)
        velocity = torch.zeros(3, 1)
        for _ in range(STEPS):
            ((rows @ weight - 1) ** 2).sum().backward()
            assert weight.grad is not None
            velocity = 0.9 * velocity + weight.grad
            with torch.no_grad():
                weight.sub_(0.1 * velocity) if momentum else step(weight)
            weight.grad.zero_()

    return program


def _minus(weight: torch.Tensor) -> None:
    assert weight.grad is not None
    weight -= 0.06 * weight.grad / 6


def _data(weight: torch.Tensor) -> None:
    assert weight.grad is not None
    weight.data = weight.data - 0.01 * weight.grad.data


def _data_in_place(weight: torch.Tensor) -> None:
    assert weight.grad is not None
    weight.data.add_(weight.grad, alpha=-0.01)


def _copied(weight: torch.Tensor) -> None:
    assert weight.grad is not None
    weight.copy_(weight - torch.tensor(0.01) * weight.grad)


@pytest.mark.parametrize("step", [_minus, _data, _data_in_place, _copied])
def test_weights_moved_by_hand_are_sgd(step: Callable[[torch.Tensor], None]) -> None:
    recording = parity.record(_by_hand(step))
    assert recording.optimizer.type == "torch.optim.sgd.SGD"
    np.testing.assert_allclose(recording.learning_rates["weight"], 0.01, 1e-7)
    assert any("moves its weights by hand" in note for note in recording.notes)


@pytest.mark.thorough
def test_a_training_by_hand_holds() -> None:
    verdict = parity.check(_by_hand(_minus))
    assert verdict.ok, str(verdict)


def test_another_rule_by_hand_is_refused() -> None:
    with pytest.raises(
        parity.UnsupportedError, match="moved by hand, by something else than a rate times their gradient"
    ):
        parity.record(_by_hand(_minus, momentum=True))
