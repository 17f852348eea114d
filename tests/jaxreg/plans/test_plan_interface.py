"""A plan is one class and one line in the list: with a toy plan in the list, ``fit`` trains by it and names it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg._plans import registry
from jaxreg._plans.plan import Plan
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Outcome

X = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
Y = 2 * X + 1


class Toy(Plan):
    """Sets every parameter to the number of epochs, for trainings of an even number of them."""

    name = "toy"
    price = 0.0

    def why_not(self, request: Request) -> str | None:
        return "the number of epochs must be even" if request.epochs % 2 else None

    def cost(self, request: Request) -> float:
        return self.price

    def run(self, request: Request) -> Outcome:
        number = float(request.epochs)
        return Outcome(
            {"bias": jnp.full(1, number), "kernel": jnp.full((1, 1), number)}, None, jnp.zeros(2), None, None
        )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    plan = Toy()
    monkeypatch.setattr(registry, "PLANS", (*registry.PLANS, plan))
    return plan


def fitted(**options: Any) -> jaxreg.FitResult:
    model = jaxreg.Linear(1, 1, rngs=jaxreg.torch_random.Generator(0))
    given = {"optimizer": jaxreg.sgd(0.1), "epochs": 4, **options}
    return jaxreg.fit(model, X, Y, **given)


def test_fit_trains_with_a_plan_that_is_in_the_list(toy: Toy) -> None:
    result = fitted(plan="toy")
    assert (result.plan, result.steps) == ("toy", 4)
    model: Any = result.model
    assert (float(model.kernel[0, 0]), float(model.bias[0])) == (4.0, 4.0)


@pytest.mark.parametrize(("price", "plan"), [(0.0, "toy"), (1e300, "spectral")])
def test_auto_takes_the_plan_that_costs_least(toy: Toy, price: float, plan: str) -> None:
    toy.price = price
    assert fitted().plan == plan


def test_auto_takes_another_plan_where_the_cheapest_cannot_serve(toy: Toy) -> None:
    assert fitted(epochs=5).plan == "spectral"


def test_errors_name_the_plan_and_say_why_it_cannot_serve(toy: Toy) -> None:
    with pytest.raises(jaxreg.ArgumentError, match="plan='toy' cannot serve this training: the number of epochs must"):
        fitted(plan="toy", epochs=5)
    with pytest.raises(jaxreg.ArgumentError, match="one of 'auto', 'stepwise', 'compressed', 'spectral', 'toy', got"):
        fitted(plan="other")


def test_where_no_plan_can_serve_each_says_why(toy: Toy) -> None:
    """Plans with the same reason are named together."""
    words = "no plan can serve this training. stepwise: .*32 bits.*; compressed, spectral: .*mse_loss.*; toy: .* even"
    with pytest.raises(jaxreg.ArgumentError, match=words):
        fitted(epochs=2**31 + 1, loss=jaxreg.l1_loss, at=[0])


def test_a_sweep_takes_the_plans_that_make_many_trainings_at_once(toy: Toy) -> None:
    model = jaxreg.Linear(1, 1, rngs=jaxreg.torch_random.Generator(0))
    assert jaxreg.sweep(model, X, Y, settings={"learning_rate": [0.1, 0.2]}, epochs=4).plan == "spectral"
    with pytest.raises(jaxreg.ArgumentError, match="one of 'auto', 'stepwise', 'compressed', 'spectral', got 'toy'"):
        jaxreg.sweep(model, X, Y, settings={"learning_rate": [0.1]}, epochs=4, plan="toy")


def test_the_plans_of_the_list_differ_by_name_or_by_batches() -> None:
    kinds = [(plan.name, plan.for_batches) for plan in registry.PLANS]
    assert len(set(kinds)) == len(kinds)
