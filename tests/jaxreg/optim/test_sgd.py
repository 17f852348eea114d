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
        def step(carry: Any, gradient: jax.Array) -> Any:
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
@settings(max_examples=20)  # each one is compiled; test_sgd_options traces the numbers and has the breadth
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


def test_learning_rate_may_be_a_schedule_or_an_array() -> None:
    weights, gradient = jnp.array(1.0), jnp.array(1.0)
    scheduled = jaxreg.sgd(optax.piecewise_constant_schedule(0.5, {1: 0.125}))
    state = scheduled.init(weights)
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules count in integers
        first, state = scheduled.update(gradient, state, weights)
        second, _ = scheduled.update(gradient, state, weights)
    assert (float(first), float(second)) == (-0.5, -0.0625)
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
        ({"learning_rate": np.array([0.1, 0.1])}, "learning_rate must be one number, got an array of shape (2,)"),
        ({"learning_rate": jnp.array(-0.1)}, "learning_rate must be at least 0 and finite, got Array(-0.1"),
        ({"learning_rate": 0.1, "momentum": True}, "momentum must be a number, got True"),
        (
            {"learning_rate": 0.1, "momentum": lambda step: 0.9},
            "write optax.inject_hyperparams(jaxreg.sgd)(..., momentum",
        ),
        ({"learning_rate": 0.1, "dampening": float("inf")}, "dampening must be finite, got inf"),
        ({"learning_rate": 0.1, "nesterov": True}, "nesterov needs a momentum above 0 and no dampening"),
        (
            {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True},
            "nesterov needs a momentum above 0 and no dampening, got momentum=0.9 and dampening=0.1",
        ),
    ],
)
def test_what_pytorch_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.sgd(**options)
    assert message in str(error.value)


def test_injected_hyperparameters_are_the_given_ones() -> None:
    random = np.random.default_rng(0)
    gradients, start = random.normal(size=(STEPS, 3)), random.normal(size=3)
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
    with jax.enable_x64(True):
        injected = optax.inject_hyperparams(jaxreg.sgd)(0.1, **settings)
        assert (
            _jax_run(gradients, start, injected).tolist()
            == _jax_run(gradients, start, jaxreg.sgd(0.1, **settings)).tolist()
        )


def test_injected_hyperparameters_may_change_between_steps() -> None:
    """PyTorch's param_groups changed by hand: a momentum that comes late takes its first gradient undamped."""
    random = np.random.default_rng(1)
    gradients, start = random.normal(size=(6, 3)), random.normal(size=3)
    momenta = [0.0, 0.0, 0.9, 0.9, 0.0, 0.9]
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.SGD([parameter], lr=0.1, dampening=0.5)
    with jax.enable_x64(True):
        weights = jnp.asarray(start)
        ours = optax.inject_hyperparams(jaxreg.sgd)(0.1, dampening=0.5)
        state, update = ours.init(weights), jax.jit(ours.update)
        for gradient, momentum in zip(gradients, momenta, strict=True):
            theirs.param_groups[0]["momentum"] = momentum
            parameter.grad = torch.from_numpy(gradient.copy())
            theirs.step()
            state.hyperparams["momentum"] = jnp.asarray(momentum)
            updates, state = update(jnp.asarray(gradient), state, weights)
            weights = optax.apply_updates(weights, updates)
            # Six steps of ten roundings, of numbers below 10; a gradient damped by mistake is off by 0.5 of it.
            assert abs(np.asarray(weights) - parameter.detach().numpy()).max() <= 2 * 60 * 2.0**-53 * 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_rate_of_16_bit_parameters_is_not_rounded_to_16_bits(dtype: str) -> None:
    """0.1 in bfloat16 is off by 1e-3, and with it every step the same way; PyTorch multiplies in float32."""
    gradient = jnp.array(jnp.linspace(1, 2, 50), dtype)
    for rate in (0.1, jnp.float32(0.1), lambda step: 0.1):
        optimizer = jaxreg.sgd(rate)
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        assert updates.dtype == dtype
        expected = (-np.float32(0.1) * np.asarray(gradient, np.float32)).astype(gradient.dtype)
        assert np.asarray(updates).tolist() == expected.tolist()


def test_a_wide_rate_does_not_widen_the_weights() -> None:
    with jax.enable_x64(True):
        optimizer = jaxreg.sgd(jnp.float64(0.1), jnp.float64(0.9), weight_decay=np.float64(0.1))
        weights = jnp.ones(2, jnp.float32)
        updates, state = optimizer.update(weights, optimizer.init(weights), weights)
        assert updates.dtype == state[1].momentum_buffer.dtype == jnp.float32


def test_decay_needs_the_parameters() -> None:
    optimizer = jaxreg.sgd(0.1, weight_decay=0.1)
    with pytest.raises(jaxreg.ArgumentError, match=r"call optimizer.update\(gradients, state, params\)"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
