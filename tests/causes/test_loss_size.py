"""A constant that is as large as some size is no evidence of it; what is recorded of the loss is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

import parity

F = torch.nn.functional
LABELS = torch.tensor([0, 1, 1, 0, -100, -100, -100, -100])


def program(loss: Callable[[Any, Any], Any], targets: Any, passes: int = 1) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(8, 3)
        for _ in range(2):
            optimizer.zero_grad()
            for rows in torch.arange(8).reshape(passes, -1):
                loss(model(x[rows]), targets[rows]).backward()
            optimizer.step()

    return run


def port(loss: Callable[[Any, Any], Any]) -> Callable[[parity.Recording], parity.Port]:
    def apply(params: Any, x: Any) -> Any:
        return x @ params["weight"].T + params["bias"]

    return lambda recording: parity.Port(dict(recording.initial), apply, loss, optax.sgd(0.1))


def entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))


def counted(logits: Any, labels: Any) -> Any:
    return jnp.where(labels < 0, 0, entropy(logits, labels)).mean()


def weighted(logits: Any, targets: Any) -> Any:
    labels, weights = targets
    return (weights[labels] * entropy(logits, labels)).mean()


def squares(made: Any, wanted: Any) -> Any:
    return jnp.mean((made - wanted) ** 2)


def huber(made: Any, wanted: Any) -> Any:
    return optax.huber_loss(made, wanted, delta=0.5).mean()


VALUES = torch.linspace(-2, 2, 24).reshape(8, 3)
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])
CASES: dict[str, tuple[Callable[[Any, Any], Any], Any, Callable[[Any, Any], Any], str]] = {
    "half of the labels left out": (F.cross_entropy, LABELS, counted, "ignore_index"),
    "weights of classes": (
        torch.nn.CrossEntropyLoss(weight=WEIGHTS),
        torch.tensor([0, 1] * 4),
        weighted,
        "class weights",
    ),
    "beta 0.5": (torch.nn.SmoothL1Loss(beta=0.5), VALUES, huber, "huber for smooth L1"),
    "halved by the program": (lambda p, t: F.mse_loss(p, t) / 2, VALUES, squares, "scaled loss"),
    "as large as the number of terms": (lambda p, t: F.mse_loss(p, t) * 24, VALUES, squares, "scaled loss"),
    "twice a cross-entropy": (
        F.cross_entropy,
        torch.tensor([0, 1] * 4),
        lambda p, t: entropy(p, t).mean() / 2,
        "scaled loss",
    ),
    "a sum is still a sum": (F.mse_loss, VALUES, lambda p, t: jnp.sum((p - t) ** 2), "sum for mean"),
    "a half is still a half": (F.mse_loss, VALUES, lambda p, t: squares(p, t) / 2, "half loss"),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("case", CASES)
@jax.numpy_rank_promotion("allow")  # ports are written as people write them
@jax.numpy_dtype_promotion("standard")
def test_the_factor_is_explained_by_what_is_known(case: str) -> None:
    loss, targets, own, name = CASES[case]

    verdict = parity.check(program(loss, targets), port(own))
    assert not verdict.ok
    assert [cause.name for cause in verdict.causes] == [name], verdict.explanation


@pytest.mark.thorough
@pytest.mark.parametrize("passes", [2, 4])
@jax.numpy_rank_promotion("allow")
def test_gradients_of_several_passes_are_added_up(passes: int) -> None:
    own = port(lambda made, wanted: squares(made, wanted) / passes)
    verdict = parity.check(program(F.mse_loss, VALUES, passes), own)
    causes = {cause.name: cause for cause in verdict.causes}
    # Of two passes, half the loss is as good an explanation.
    assert causes.keys() == {"scaled loss"} | ({"half loss"} if passes == 2 else set())
    cause = causes["scaled loss"]
    assert bool(cause.alternatives) == (passes == 2)
    assert f"adds up the gradients of {passes} backward passes a step, and the port takes their mean" in cause.sentence
    assert cause.fix == f"multiply the loss by {passes}"
