"""mse_loss against PyTorch's: values, gradients, and the shapes that PyTorch would broadcast."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jaxreg


@given(
    rows=st.integers(1, 50),
    outputs=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_value_and_gradient_are_pytorchs(rows: int, outputs: int, seed: int, reduction: Any) -> None:
    random = np.random.default_rng(seed)
    p, t = random.normal(size=(2, rows, outputs))
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(lambda p: jaxreg.mse_loss(p, jnp.asarray(t), reduction=reduction))(
            jnp.asarray(p)
        )
    other = torch.from_numpy(p).requires_grad_()
    expected = torch.nn.MSELoss(reduction=reduction)(other, torch.from_numpy(t))
    expected.backward()
    unit = 2.0**-53
    # A sum of squares of n terms, n + 3 roundings on each side; the gradient three.
    assert abs(float(value) - expected.item()) <= 2 * (p.size + 3) * unit * expected.item() * 1.001
    assert other.grad is not None
    assert (abs(np.asarray(gradient) - other.grad.numpy()) <= 6 * unit * abs(other.grad.numpy()) * 1.001).all()


def test_none_keeps_the_shape() -> None:
    assert jaxreg.mse_loss(jnp.array([1.0, 3.0]), jnp.zeros(2), reduction="none").tolist() == [1.0, 9.0]


def test_scalars() -> None:
    assert float(jaxreg.mse_loss(jnp.array(3.0), jnp.array(1.0))) == 4.0


def test_broadcasting_is_an_error_that_says_the_fix() -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.mse_loss(jnp.zeros((5, 1)), jnp.zeros(5))
    assert str(error.value) == (
        "predictions and targets must have the same shape, got (5, 1) and (5,). PyTorch would broadcast them to (5, 5) "
        "and train the wrong thing without an error; write targets.reshape((5, 1))"
    )


def test_shapes_that_fit_in_no_way() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"same shape, got \(2,\) and \(3,\)$"):
        jaxreg.mse_loss(jnp.zeros(2), jnp.zeros(3))


def test_unknown_reduction() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r'"mean", "sum" or "none", got \'median\''):
        jaxreg.mse_loss(jnp.zeros(2), jnp.zeros(2), reduction="median")  # type: ignore[arg-type]
