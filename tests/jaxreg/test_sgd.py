"""sgd against torch.optim.SGD: every option, from the same gradients, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jaxreg

STEPS = 12


def _torch_run(gradients: np.ndarray, start: np.ndarray, **options: object) -> np.ndarray:
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = torch.optim.SGD([parameter], **options)  # type: ignore[arg-type]
    kept = []
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        kept.append(parameter.detach().numpy().copy())
    return np.array(kept)


def _jax_run(gradients: np.ndarray, start: np.ndarray, optimizer: optax.GradientTransformation) -> np.ndarray:
    @jax.jit
    def run(gradients: jax.Array, start: jax.Array) -> jax.Array:
        def step(carry: tuple, gradient: jax.Array) -> tuple:
            weights, state = carry
            updates, state = optimizer.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
            return (weights, state), weights

        return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]

    return np.asarray(run(jnp.asarray(gradients), jnp.asarray(start)))


@given(
    lr=st.floats(0, 1),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    dampening=st.sampled_from([0.0, 0.3, 1.0]),
    weight_decay=st.sampled_from([0.0, 0.01, 0.5]),
    nesterov=st.booleans(),
    maximize=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60)  # each one is compiled
def test_every_option_is_pytorchs(
    lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool, seed: int
) -> None:
    assume(not nesterov or (momentum > 0 and dampening == 0))
    options: dict[str, Any] = {
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
    }
    random = np.random.default_rng(seed)
    gradients, start = random.normal(size=(STEPS, 3)), random.normal(size=3)
    theirs = _torch_run(gradients, start, lr=lr, **options)
    with jax.enable_x64(True):
        ours = _jax_run(gradients, start, jaxreg.sgd(lr, **options))
    # At most ten roundings a step on each side, each of a quantity no larger than the largest the run goes through,
    # and passed on by factors that a sum of the steps bounds: a rounding of the first step counts in each later one.
    size = abs(theirs).max() + abs(start).max() + (1 + lr) * STEPS * (abs(gradients).max() + abs(theirs).max())
    assert abs(ours - theirs).max() <= 2 * 10 * STEPS * 2.0**-53 * size


def test_first_buffer_is_the_undamped_gradient() -> None:
    optimizer = jaxreg.sgd(1.0, momentum=0.5, dampening=0.5)
    weights = jnp.array(0.0)
    updates, state = optimizer.update(jnp.array(4.0), optimizer.init(weights), weights)
    assert float(updates) == -4.0
    updates, _ = optimizer.update(jnp.array(4.0), state, weights)
    assert float(updates) == -(0.5 * 4.0 + 0.5 * 4.0)


@jax.numpy_dtype_promotion("standard")  # Optax's schedules count in integers
def test_learning_rate_may_be_a_schedule_or_an_array() -> None:
    weights, gradient = jnp.array(1.0), jnp.array(1.0)
    scheduled = jaxreg.sgd(optax.piecewise_constant_schedule(0.5, {1: 0.1}))
    state = scheduled.init(weights)
    first, state = scheduled.update(gradient, state, weights)
    second, _ = scheduled.update(gradient, state, weights)
    assert float(first) == -0.5
    assert float(second) == pytest.approx(-0.05, rel=2**-22)
    given_array = jaxreg.sgd(jnp.array(0.25))
    assert float(given_array.update(gradient, given_array.init(weights), weights)[0]) == -0.25


def test_hyperparameters_may_be_traced() -> None:
    def loss_after(rate: jax.Array) -> jax.Array:
        optimizer = jaxreg.sgd(rate, momentum=rate)
        return optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(1.0)), jnp.array(1.0))[0]

    assert jax.vmap(loss_after)(jnp.array([0.5, 1.0])).tolist() == [-1.0, -2.0]


def test_same_numbers_same_object() -> None:
    assert jaxreg.sgd(0.1, 0.9) is jaxreg.sgd(0.1, 0.9)
    assert jaxreg.sgd(0.1, 0.9) is not jaxreg.sgd(0.1, 0.8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be at least 0 and finite, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0 and finite, got nan"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"learning_rate": 0.1, "momentum": -1}, "momentum must be at least 0 and finite, got -1"),
        ({"learning_rate": 0.1, "weight_decay": -1}, "weight_decay must be at least 0 and finite, got -1"),
        ({"learning_rate": 0.1, "nesterov": True}, "nesterov needs a momentum above 0 and no dampening"),
        (
            {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True},
            "nesterov needs a momentum above 0 and no dampening, got momentum=0.9 and dampening=0.1",
        ),
    ],
)
def test_what_pytorch_refuses(options: dict, message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.sgd(**options)
    assert message in str(error.value)
