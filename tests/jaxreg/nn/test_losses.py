"""The losses against PyTorch's: values, gradients at the kinks, weights, and the shapes that PyTorch would broadcast.

More values and gradients are in ``test_pytorch_databases``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jaxreg
from jaxreg._nn.losses import Reduction


@given(
    rows=st.sampled_from([1, 2, 7, 50]),  # each shape is compiled
    outputs=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_value_and_gradient_are_pytorchs(rows: int, outputs: int, seed: int, reduction: Reduction) -> None:
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


LOSSES: dict[str, Any] = {
    name: (getattr(jaxreg, name), getattr(torch.nn.functional, name))
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
}
POINTS = [0.0, -0.0, 0.3, -0.3, 1.0, -1.0, 2.5, -2.5, float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0}),
        ("smooth_l1_loss", {"beta": 0.3}),
        ("smooth_l1_loss", {"beta": 1.0}),
        ("smooth_l1_loss", {"beta": float("inf")}),
        ("huber_loss", {"delta": 0.3}),
        ("huber_loss", {"delta": 1.0}),
        ("huber_loss", {"delta": float("inf")}),
    ],
)
def test_kinks_and_what_is_not_finite(name: str, settings: dict[str, float]) -> None:
    """Subgradients where two branches meet, where the prediction is the target, and at infinity and NaN."""
    ours, theirs = LOSSES[name]
    # An infinite error under an infinite delta is infinite here, and NaN in PyTorch's vector code.
    points = [x for x in POINTS if not (math.isinf(x) and name == "huber_loss" and math.isinf(settings["delta"]))]
    p = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = theirs(p, torch.zeros_like(p), reduction="none", **settings)
    value.sum().backward()
    assert p.grad is not None
    with jax.enable_x64(True):
        zero = jnp.zeros(len(points))
        mine = ours(jnp.array(points), zero, reduction="none", **settings)
        slope = jax.grad(lambda p: ours(p, zero, reduction="sum", **settings))(jnp.array(points))
    # Four roundings on each side; where the numbers are not finite they must be the same.
    np.testing.assert_allclose(mine, value.detach().numpy(), rtol=8 * 2.0**-53, atol=0)
    np.testing.assert_allclose(slope, p.grad.numpy(), rtol=8 * 2.0**-53, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_at_all(name: str, reduction: str) -> None:
    ours, theirs = LOSSES[name]
    expected = theirs(torch.zeros(0, 3), torch.zeros(0, 3), reduction=reduction).numpy()
    np.testing.assert_array_equal(ours(jnp.zeros((0, 3)), jnp.zeros((0, 3)), reduction=reduction), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weights_are_pytorchs(name: str, reduction: str) -> None:
    ours, theirs = LOSSES[name]
    random = np.random.default_rng(0)
    p, t = random.normal(size=(2, 5, 3))
    weights = random.uniform(0.1, 2, size=5)
    each = np.broadcast_to(weights[:, None], p.shape).copy()
    other = torch.from_numpy(p).requires_grad_()
    value = theirs(other, torch.from_numpy(t), reduction=reduction, weight=torch.from_numpy(each))
    value.sum().backward()
    assert other.grad is not None
    with jax.enable_x64(True):
        for given in (weights, weights[:, None], each):
            mine = ours(p, t, reduction=reduction, weights=given)
            slope = jax.grad(lambda p, given=given: jnp.sum(ours(p, t, reduction=reduction, weights=given)))(p)
            # A value has seven roundings, the weight's product and the quotient one, both sums one an element.
            unit = 2 * (2 * p.size + 9) * 2.0**-53
            assert (abs(mine - value.detach().numpy()) <= unit * abs(value.detach().numpy())).all()
            assert (abs(slope - other.grad.numpy()) <= unit * abs(other.grad.numpy())).all()


def test_weights_of_smooth_l1_are_those_of_l1() -> None:
    p, w = jnp.array([[3.0, 5.0], [7.0, 9.0]]), jnp.array([1.0, 3.0])
    smooth = jaxreg.smooth_l1_loss(p, jnp.zeros((2, 2)), weights=w)
    assert float(smooth) == (2.5 + 4.5 + 3 * (6.5 + 8.5)) / 8
    assert float(jaxreg.l1_loss(p, jnp.zeros((2, 2)), weights=w)) == (3 + 5 + 3 * (7 + 9)) / 8


def test_a_mask_is_a_weight() -> None:
    p = jnp.array([1.0, 100.0])
    assert float(jaxreg.mse_loss(p, jnp.zeros(2), weights=jnp.array([True, False]))) == 1.0


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"weights must have the predictions' shape \(2, 3\).*got \(3,\)"):
        jaxreg.mse_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), weights=jnp.ones(3))


@pytest.mark.parametrize("name", LOSSES)
def test_integers(name: str) -> None:
    """Targets may be integers and are promoted, as in PyTorch; a loss of integers alone has no gradient."""
    ours, theirs = LOSSES[name]
    p, t = np.array([0.5, 3.0], np.float32), np.array([1, 1])
    with jax.numpy_dtype_promotion("standard"):
        mine = ours(p, t)
    assert mine.dtype == jnp.float32
    assert float(mine) == theirs(torch.from_numpy(p), torch.from_numpy(t)).item()
    with pytest.raises(
        jaxreg.ArgumentError, match=r"one of them floating, got int32 and int32; write predictions.astype"
    ):
        ours(jnp.array([1]), jnp.array([1]))


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"predictions must hold real numbers, got complex64"):
        jaxreg.l1_loss(jnp.array([1j]), jnp.array([1.0]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", LOSSES)
def test_16_bits_stay_16_bits(name: str, dtype: str) -> None:
    """Sums are made in float32 on both sides: at most eight roundings to 16 bits in a value, and one of its sum."""
    ours, theirs = LOSSES[name]
    p, t = (np.random.default_rng(seed).normal(size=400).astype(np.float32) for seed in (0, 1))
    mine = ours(jnp.asarray(p, dtype), jnp.asarray(t, dtype))
    kind = getattr(torch, dtype)
    expected = theirs(torch.from_numpy(p).to(kind), torch.from_numpy(t).to(kind)).item()
    assert mine.dtype == dtype
    unit = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    assert abs(float(mine) - expected) <= 2 * 9 * unit * expected


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("smooth_l1_loss", {"beta": -1.0}, "beta must be a number of at least 0, got -1.0"),
        ("smooth_l1_loss", {"beta": float("nan")}, "beta must be a number of at least 0, got nan"),
        ("huber_loss", {"delta": 0.0}, "delta must be a number above 0, got 0.0"),
        ("huber_loss", {"delta": "1"}, "delta must be a number above 0, got '1'"),
    ],
)
def test_thresholds(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        LOSSES[name][0](jnp.zeros(2), jnp.zeros(2), **settings)
    assert str(error.value) == message


def test_a_row_of_targets_for_all_rows() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"if that is what you mean, broadcast both to \(5, 3\) first$"):
        jaxreg.l1_loss(jnp.zeros((5, 3)), jnp.zeros(3))
