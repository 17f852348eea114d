"""Settings that a port leaves to its library, or turns round: named, and fixed in the library's own words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxreg
import parity
from parity.causes import initial_weights
from parity.judging import comparisons

F = torch.nn.functional


def program(
    optimizer: Callable[[Any], Any],
    clip: float = 0.0,
    value: float = 0.0,
    schedule: Callable[[Any], Any] | None = None,
    steps: int = 3,
) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        made = optimizer(model)
        rates = schedule(made) if schedule else None
        x = torch.randn(8, 3)
        for _ in range(steps):
            loss = F.mse_loss(model(x), x[:, :2])
            made.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            if value:
                torch.nn.utils.clip_grad_value_(model.parameters(), value)
            made.step()
            if rates:
                rates.step()

    return run


def made(kind: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda model: getattr(torch.optim, kind)(model.parameters(), **settings)


def undecayed_bias(model: Any) -> Any:
    groups: list[dict[str, Any]] = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    return torch.optim.SGD(groups, lr=0.1)


def warm_up(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, total_iters=3)


def halved(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def by_pytorchs_norm(limit: float) -> optax.GradientTransformation:
    """What the fix of a clipped norm says."""

    def scaled(updates: Any, params: Any) -> Any:
        share = jnp.minimum(1, limit / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda update: share * update, updates)

    return optax.stateless(scaled)


def rmsprop_rate_last(rate: Any, decay: float) -> optax.GradientTransformation:
    squares = optax.scale_by_rms(decay, 1e-8, eps_in_sqrt=False)
    return optax.chain(squares, optax.trace(0.9), optax.scale_by_learning_rate(rate))


def adagrad_of_pytorch(rate: float) -> optax.GradientTransformation:
    """``optax.adagrad`` with epsilon where PyTorch has it."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        total = jax.tree.map(lambda s, g: s + g * g, state.sum_of_squares, updates)
        moved = jax.tree.map(lambda s, g: -rate * g / (jnp.sqrt(s) + 1e-10), total, updates)
        return moved, optax.ScaleByRssState(total)

    return optax.GradientTransformation(optax.scale_by_rss(0.0).init, update)


def radam_of_pytorch(rate: float) -> optax.GradientTransformation:
    """``optax.radam`` with epsilon where PyTorch has it."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        step = state.count + 1
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state.nu, updates)
        share, most = 1 - 0.999**step, 2 / (1 - 0.999) - 1
        length = most - 2 * step * 0.999**step / share
        root = jnp.sqrt(jnp.maximum((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length), 0))

        def moved(m: Any, v: Any) -> Any:
            first = m / (1 - 0.9**step)
            below = (jnp.sqrt(v) + 1e-8) / jnp.sqrt(share)
            return -rate * jnp.where(length > 5, root * first / below, first)

        return jax.tree.map(moved, mu, nu), optax.ScaleByAdamState(step, mu, nu)

    return optax.GradientTransformation(optax.scale_by_radam().init, update)


HALVED = jaxreg.lr_scheduler.exponential_lr(0.01, 0.5)
WARM_UP = jaxreg.lr_scheduler.linear_lr(0.1, 0.25, total_iters=3)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A fault, what it is called, words of its fix, and the port's optimizer after that fix."""

    program: Callable[[], None]
    optimizer: Any
    name: str
    fix: str
    mended: Any


CASES: dict[str, Setting] = {
    "rmsprop as it is": Setting(
        program(made("RMSprop", lr=0.01)),
        optax.rmsprop(0.01),
        "alpha, epsilon inside the root",
        "decay=0.99, eps_in_sqrt=False",
        optax.rmsprop(0.01, decay=0.99, eps_in_sqrt=False),
    ),
    "rmsprop's velocity as it is": Setting(
        program(made("RMSprop", lr=0.01, alpha=0.9, momentum=0.9), schedule=halved),
        optax.rmsprop(HALVED, momentum=0.9),
        "epsilon inside the root, learning rate inside the velocity",
        "optax.trace(...), optax.scale_by_learning_rate(...)",
        rmsprop_rate_last(HALVED, 0.9),
    ),
    "rmsprop's velocity": Setting(
        program(made("RMSprop", lr=0.01, momentum=0.9), schedule=halved),
        optax.rmsprop(HALVED, decay=0.99, eps_in_sqrt=False, momentum=0.9),
        "learning rate inside the velocity",
        "scale by the rate last",
        rmsprop_rate_last(HALVED, 0.99),
    ),
    "a velocity with Optax's sign": Setting(
        program(made("SGD", lr=0.01, momentum=0.9), schedule=halved),
        optax.chain(optax.scale_by_learning_rate(HALVED), optax.trace(0.9)),
        "learning rate inside the velocity",
        "as jaxreg.sgd does",
        jaxreg.sgd(HALVED, momentum=0.9),
    ),
    "adagrad as it is": Setting(
        program(made("Adagrad", lr=0.1)),
        optax.adagrad(0.1),
        "initial accumulator, epsilon inside the root",
        "initial_accumulator_value=0, eps=1e-10; optax.adagrad always has eps under the root",
        adagrad_of_pytorch(0.1),
    ),
    "a beta": Setting(
        program(made("Adam", lr=0.01)),
        optax.adam(0.01, b2=0.99),
        "beta2",
        "set b2 to 0.999 (PyTorch's beta2)",
        optax.adam(0.01, b2=0.999),
    ),
    "no decay in an optimizer that has none": Setting(
        program(made("Adam", lr=0.01, weight_decay=0.05)),
        optax.adam(0.01),
        "decay",
        "put optax.add_decayed_weights(0.05) first in the chain",
        optax.chain(optax.add_decayed_weights(0.05), optax.adam(0.01)),
    ),
    "a mask turned round": Setting(
        program(undecayed_bias),
        optax.chain(optax.add_decayed_weights(0.1, {"weight": False, "bias": True}), optax.sgd(0.1)),
        "decay mask inverted",
        "turn the mask of the decay round: True where PyTorch decays",
        optax.chain(optax.add_decayed_weights(0.1, {"weight": True, "bias": False}), optax.sgd(0.1)),
    ),
    "clipped by value for by norm": Setting(
        program(made("SGD", lr=0.1), clip=0.3),
        optax.chain(optax.clip(0.3), optax.sgd(0.1)),
        "gradient clipping",
        "scale the gradients by min(1, 0.3 / (norm + 1e-6))",
        optax.chain(by_pytorchs_norm(0.3), optax.sgd(0.1)),
    ),
    "clipped by norm for by value": Setting(
        program(made("SGD", lr=0.1), value=0.1),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
        "gradient clipping",
        "use optax.clip(0.1)",
        optax.chain(optax.clip(0.1), optax.sgd(0.1)),
    ),
    "not clipped by value": Setting(
        program(made("SGD", lr=0.1), value=0.1),
        optax.sgd(0.1),
        "gradient clipping missing",
        "put optax.clip(0.1) first in the chain",
        optax.chain(optax.clip(0.1), optax.sgd(0.1)),
    ),
    "radam's epsilon": Setting(
        program(made("RAdam", lr=0.01), steps=7),
        optax.radam(0.01),
        "epsilon after the bias correction",
        "(sqrt(nu) + eps) / sqrt(1 - b2**step)",
        radam_of_pytorch(0.01),
    ),
    "no warm-up": Setting(
        program(made("SGD", lr=0.1), schedule=warm_up, steps=5),
        optax.sgd(0.1),
        "warm-up missing",
        "jaxreg.lr_scheduler.linear_lr",
        jaxreg.sgd(WARM_UP),
    ),
    "a warm-up from zero": Setting(
        program(made("SGD", lr=0.1), schedule=warm_up, steps=5),
        optax.sgd(optax.linear_schedule(0.0, 0.1, 3)),
        "warm-up from zero",
        "start the warm-up from 0.025 as PyTorch does",
        jaxreg.sgd(WARM_UP),
    ),
    "another schedule": Setting(
        program(made("SGD", lr=0.01), schedule=halved, steps=5),
        optax.sgd(optax.exponential_decay(0.01, 1, 0.6)),
        "schedule",
        "give it PyTorch's rates, 0.01, 0.005, 0.0025, 0.00125, …",
        jaxreg.sgd(HALVED),
    ),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("case", CASES)
@jax.numpy_rank_promotion("allow")  # ports are written as people write them
@jax.numpy_dtype_promotion("standard")
def test_the_setting_is_named_and_its_fix_is_parity(case: str) -> None:
    setting = CASES[case]
    recording = parity.record(setting.program)

    def apply(params: Any, x: Any) -> Any:
        return x @ params["weight"].T + params["bias"]

    def check(optimizer: Any) -> parity.Verdict:
        mse = lambda a, b: jnp.mean((a - b) ** 2)  # noqa: E731
        return parity.check(recording, parity.Port(dict(recording.initial), apply, mse, optimizer))

    verdict = check(setting.optimizer)
    told = {cause.name: cause.fix for cause in verdict.causes}
    assert setting.fix in told.get(setting.name, ""), verdict.explanation
    assert [cause.name for cause in verdict.causes] == [setting.name]
    mended = check(setting.mended)
    assert mended.ok, mended.explanation


def test_axes_in_another_order_are_told_for_any_number_of_them() -> None:
    kernel = np.arange(24.0).reshape(2, 3, 2, 2)
    assert initial_weights._turn(kernel.transpose(0, 1, 3, 2), kernel) == (0, 1, 3, 2)
    assert initial_weights._turn(kernel + 1, kernel) is None
    assert initial_weights._turn(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 3.0], [2.0, 4.0]])) == (1, 0)


def test_data_that_differ_are_told_by_how() -> None:
    data = np.linspace(0.1, 1, 12, dtype=np.float32).reshape(4, 3)
    assert "in another order" in comparisons._how_apart(data, data[::-1])
    assert "rounded at another place" in comparisons._how_apart(data, np.nextafter(data, np.float32(2)))
    assert comparisons._how_apart(data, 2 * data) == "Compare how they are loaded and scaled."
    assert comparisons._how_apart(data, data[:2]) == "Their shapes differ."
