"""The layer against PyTorch's: its initialisation's law, its layout, its precision, its errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 7), (100, 50)])
def test_initial_values_follow_pytorchs_law(inputs: int, outputs: int) -> None:
    """Uniform within 1/sqrt(in_features), bias too: mean, variance and extremes over many draws of both."""
    bound = 1 / np.sqrt(inputs)
    draws = max(1, 20_000 // (inputs * outputs))
    layers = [jaxreg.Linear(inputs, outputs, rngs=nnx.Rngs(seed)) for seed in range(min(draws, 60))]
    torch.manual_seed(0)
    others = [torch.nn.Linear(inputs, outputs) for _ in layers]
    ours = np.concatenate([np.asarray(layer.kernel[...]).ravel() for layer in layers])
    theirs = np.concatenate([layer.weight.detach().numpy().ravel() for layer in others])
    bias = np.concatenate([np.asarray(layer.bias[...]) for layer in layers])
    assert max(abs(ours).max(), abs(bias).max(), abs(theirs).max()) <= bound
    # The standard error of a uniform variable's mean and of its variance; five of them are 1 in 1.7 million.
    for sample in (ours, theirs, bias):
        assert abs(sample.mean()) < 5 * bound / np.sqrt(3 * sample.size)
        assert abs(sample.var() - bound**2 / 3) < 5 * bound**2 * np.sqrt(4 / 45 / sample.size)


def test_forward_is_pytorchs_with_the_weight_transposed() -> None:
    other = torch.nn.Linear(3, 2)
    layer = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(other.weight.detach().numpy().T)
    layer.bias[...] = jnp.asarray(other.bias.detach().numpy())
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    expected = other(torch.from_numpy(x)).detach().numpy()
    # Four roundings of a sum of four terms, on each side (Higham, ch. 3).
    size = abs(x) @ abs(np.asarray(layer.kernel[...])) + abs(np.asarray(layer.bias[...]))
    assert (abs(np.asarray(layer(jnp.asarray(x))) - expected) <= 8 * 2.0**-24 * size * 1.001).all()


def _product_precision(make: Any) -> object:
    jaxpr = jax.make_jaxpr(make)(jnp.ones((2, 3)))
    return next(equation.params["precision"] for equation in jaxpr.eqns if equation.primitive.name == "dot_general")


def test_products_run_in_full_precision_unless_told_otherwise() -> None:
    layer = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    assert "HIGHEST" in str(_product_precision(layer))
    with jax.default_matmul_precision("bfloat16"):
        assert "HIGHEST" not in str(_product_precision(layer))
    assert "HIGHEST" not in str(_product_precision(jaxreg.Linear(3, 2, precision="default", rngs=nnx.Rngs(0))))


def test_without_bias() -> None:
    layer = jaxreg.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
    assert layer.bias is None
    assert layer(jnp.zeros((1, 3))).tolist() == [[0.0, 0.0]]


def test_no_inputs_at_all() -> None:
    """PyTorch leaves the bias of Linear(0, n) at zero."""
    assert jaxreg.Linear(0, 2, rngs=nnx.Rngs(0)).bias[...].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [-1, 1.5, True, "3"])
def test_sizes_must_be_counts(size: object) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"in_features must be an integer of at least 0, got"):
        jaxreg.Linear(size, 1, rngs=nnx.Rngs(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "outputs"), [(2**53, 1), (1, 2**53), (2**31, 2**20)])
def test_a_layer_that_no_memory_has_room_for(inputs: int, outputs: int) -> None:
    """XLA ends the process over it, where it is not refused before; its shape alone takes no room."""
    with pytest.raises(
        jaxreg.ArgumentError, match=r"a layer of [\d,]+ inputs and [\d,]+ outputs takes [\d,.]+ GiB, which"
    ):
        jaxreg.Linear(inputs, outputs, rngs=nnx.Rngs(0))
    abstract = nnx.eval_shape(lambda: jaxreg.Linear(2**20, 2**20, rngs=nnx.Rngs(0)))
    assert abstract.kernel.shape == (2**20, 2**20)


def test_float64_is_not_cut_in_silence() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"param_dtype is float64, which JAX would cut to float32"):
        jaxreg.Linear(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    with jax.enable_x64(True):
        assert jaxreg.Linear(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0)).kernel.dtype == jnp.float64


def test_a_flat_column_is_named() -> None:
    with pytest.raises(
        jaxreg.ArgumentError, match=r"\(\.\.\., 1\), got \(100,\); for one feature, write inputs.reshape"
    ):
        jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))(jnp.ones(100))


@pytest.mark.cases(12)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("leading", [(), (0,), (1,), (5,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 2), (3, 0), (0, 2)])
def test_any_leading_axes_and_dtypes(leading: tuple[int, ...], dtype: str, inputs: int, outputs: int) -> None:
    random = np.random.default_rng(0)
    kind = getattr(torch, dtype)
    x, w, b = (random.normal(size=shape) for shape in ((*leading, inputs), (outputs, inputs), (outputs,)))
    theirs = [torch.from_numpy(array).to(kind) for array in (x, w, b)]
    expected = torch.nn.functional.linear(*theirs)
    exact = [array.double().numpy() for array in theirs]
    with jax.enable_x64(True):
        layer = jaxreg.Linear(inputs, outputs, param_dtype=dtype, rngs=nnx.Rngs(0))
        layer = jaxreg.state_dict.load(layer, {"weight": theirs[1], "bias": theirs[2]})
        ours = layer(jnp.asarray(x, dtype))
    assert ours.dtype == dtype
    assert ours.shape == expected.shape
    # A product of length d and the bias: d + 1 roundings, 16 bits rounded to twice at the most, on each side.
    unit = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    size = abs(exact[0]) @ abs(exact[1]).T + abs(exact[2])
    difference = abs(np.asarray(ours, np.float64) - expected.double().numpy())
    assert (difference <= 2 * (inputs + 1) * unit * size * 1.05).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_initial_values_of_16_bits(dtype: str) -> None:
    """As many different values as the format has, and none outside the range rounded to the format."""
    layer = jaxreg.Linear(16, 4000, param_dtype=dtype, rngs=nnx.Rngs(0))
    values = np.asarray(layer.kernel[...], np.float32)
    assert layer.kernel.dtype == dtype
    assert abs(values).max() <= 0.25
    assert np.unique(values).size > 1000  # drawn in 16 bits, bfloat16 would have no more than 256 of them
    assert abs(values.mean()) < 5 * 0.25 / np.sqrt(3 * values.size)


def test_integers_are_refused_as_pytorch_does() -> None:
    layer = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    with pytest.raises(
        jaxreg.ArgumentError, match=r"inputs must be floating, got int32; write inputs.astype\(jnp.float32"
    ):
        layer(jnp.ones((3, 2), jnp.int32))


def test_sizes_may_be_numpys() -> None:
    sizes: Any = map(np.int64, (2, 3))
    layer = jaxreg.Linear(*sizes, rngs=nnx.Rngs(0))
    assert layer.kernel.shape == (2, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@given(inputs=st.integers(1, 40), outputs=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_from_a_generator_it_starts_as_pytorchs_does(
    dtype: str, bias: bool, inputs: int, outputs: int, seed: int
) -> None:
    generator = jaxreg.torch_random.Generator(seed)
    with torch.random.fork_rng(devices=[]), jax.enable_x64(True):
        torch.manual_seed(seed)
        theirs = torch.nn.Linear(inputs, outputs, bias=bias, dtype=getattr(torch, dtype))
        ours = jaxreg.Linear(inputs, outputs, use_bias=bias, param_dtype=dtype, rngs=generator)
        assert ours.kernel[...].dtype == dtype
        assert np.array_equal(ours.kernel[...].T, theirs.weight.detach())
        assert (ours.bias is None) is (theirs.bias is None)
        if ours.bias is not None:
            assert np.array_equal(ours.bias[...], theirs.bias.detach())
        assert np.array_equal(generator.rand(3), torch.rand(3))  # the next thing that is drawn
