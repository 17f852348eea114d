"""fit: the trajectory, what it keeps, what it compiles, and what it refuses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings

import jaxreg
from tests.helpers.strategies import Training, trainings


@pytest.fixture
def line() -> tuple[nnx.Module, jax.Array, jax.Array]:
    x = jnp.linspace(-1, 1, 20).reshape(-1, 1)
    return jaxreg.Linear(1, 1, rngs=nnx.Rngs(0)), x, 2 * x + 1


@given(trainings())
@settings(max_examples=25)
def test_trajectory_is_the_plain_loops(training: Training) -> None:
    """Against gradient descent written out in NumPy with the gradient by hand, step by step from fit's own weights."""
    x, y = (array.astype(np.float64) for array in training.data())
    rate = training.learning_rate()
    with jax.enable_x64(True):
        model = jaxreg.Linear(
            training.inputs, training.outputs, use_bias=training.bias, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        start = nnx.to_pure_dict(nnx.state(model))
        result = jaxreg.fit(
            model,
            x,
            y,
            optimizer=jaxreg.sgd(rate),
            epochs=training.steps,
            record=("gradients", "weights"),
            plan="stepwise",
        )
    kept = {name: np.concatenate([start[name][None], values]) for name, values in result.trace.weights.items()}
    for step in range(training.steps):
        kernel, bias = kept["kernel"][step], kept["bias"][step] if training.bias else np.zeros(training.outputs)
        residual = x @ kernel + bias - y
        gradient = 2 / y.size * x.T @ residual
        # Sums of n and of d terms on both sides (Higham, ch. 3), of the size of what is summed.
        roundings = 2 * (training.rows + training.inputs + 8) * 2.0**-53
        slack = roundings * 2 / y.size * (abs(x).T @ (abs(x) @ abs(kernel) + abs(bias) + abs(y)))
        assert (abs(np.asarray(result.trace.gradients["kernel"][step]) - gradient) <= slack).all()
        moved = kernel - rate * gradient
        assert (abs(kept["kernel"][step + 1] - moved) <= rate * slack + 2.0**-51 * (abs(moved) + abs(kernel))).all()
        assert float(result.losses[step]) == pytest.approx((residual**2).mean(), rel=8 * roundings * 1e3)


def test_model_passed_in_is_not_changed(line: Any) -> None:
    model, x, y = line
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=5)
    after = nnx.to_pure_dict(nnx.state(model))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == np.asarray(b)).all()), before, after))
    assert float(result.model.kernel[0, 0]) != float(model.kernel[0, 0])


@pytest.mark.parametrize("plan", ["stepwise", "compressed", "spectral"])
def test_what_is_kept(line: Any, plan: str) -> None:
    model, x, y = line
    fit = functools.partial(jaxreg.fit, model, x, y, optimizer=jaxreg.sgd(0.1), epochs=7, plan=plan)
    plain = fit()
    assert plain.losses.shape == (7,)
    assert plain.trace == jaxreg.Trace(None, None)
    kept = fit(record=("gradients", "weights"))
    assert kept.trace.gradients["kernel"].shape == (7, 1, 1)
    assert kept.trace.weights["bias"].shape == (7, 1)
    assert kept.trace.weights["kernel"][-1, 0, 0] == kept.model.kernel[0, 0]
    assert (plain.losses == kept.losses).all()
    some = fit(record=("gradients", "weights"), at=[6, 2])
    assert (some.losses == kept.losses[np.array([6, 2])]).all()
    assert (some.trace.gradients["kernel"] == kept.trace.gradients["kernel"][np.array([6, 2])]).all()
    assert some.at is not None
    assert some.at.tolist() == [6, 2]


@pytest.mark.parametrize("plan", ["stepwise", "compressed", "spectral"])
def test_second_call_compiles_nothing(line: Any, compilations: list[str], plan: str) -> None:
    _, x, y = line

    def train(seed: int) -> None:
        model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(seed))
        jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.125, momentum=0.5), epochs=11, plan=plan)

    train(0)
    assert compilations
    compilations.clear()
    train(1)
    assert compilations == []


@pytest.mark.parametrize("plan", ["stepwise", "compressed", "spectral"])
def test_no_steps_at_all(line: Any, plan: str) -> None:
    model, x, y = line
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=0, plan=plan)
    assert result.losses.shape == (0,)
    assert result.model.kernel[0, 0] == model.kernel[0, 0]
    assert repr(result) == f"FitResult(0 steps, plan {plan!r})"


def test_divergence_is_shown_as_pytorch_shows_it(line: Any) -> None:
    model, x, y = line
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(1e6), epochs=100)
    assert not np.isfinite(np.asarray(result.losses[-1]))
    assert "not finite from step" in repr(result)


@jax.numpy_dtype_promotion("standard")  # Optax's Adam counts its steps in integers
def test_any_optimizer_loss_and_module(line: Any) -> None:
    _, x, y = line
    model = nnx.Sequential(nnx.Linear(1, 8, rngs=nnx.Rngs(0)), jax.nn.relu, nnx.Linear(8, 1, rngs=nnx.Rngs(1)))
    result = jaxreg.fit(model, x, y, optimizer=optax.adam(0.01), loss=lambda p, t: jnp.abs(p - t).mean(), epochs=50)
    assert result.losses[-1] < result.losses[0]


def test_state_that_is_not_a_parameter_is_carried(line: Any) -> None:
    class Counting(nnx.Module):
        def __init__(self) -> None:
            self.layer = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
            self.calls = nnx.BatchStat(jnp.array(0))

        def __call__(self, inputs: jax.Array) -> jax.Array:
            self.calls[...] += 1
            return self.layer(inputs)

    _, x, y = line
    assert int(jaxreg.fit(Counting(), x, y, optimizer=jaxreg.sgd(0.1), epochs=6).model.calls[...]) == 6


def test_flax_layers_run_in_full_precision_unless_told_otherwise(line: Any) -> None:
    _, x, y = line
    seen: list[str] = []

    def dot_general(*args: Any, **kwargs: Any) -> jax.Array:
        seen.append(str(jax.config.jax_default_matmul_precision))  # type: ignore[attr-defined]
        return jax.lax.dot_general(*args, **kwargs)

    model = nnx.Linear(1, 1, dot_general=dot_general, rngs=nnx.Rngs(0))
    jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=3)
    jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=3, precision="bfloat16")
    with jax.default_matmul_precision("tensorfloat32"):
        jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=3)
    assert set(seen[:1]) == {"highest"}
    assert {"bfloat16", "tensorfloat32"} <= set(seen)


def test_data_is_converted_to_the_models_dtype(line: Any) -> None:
    model, _, _ = line
    result = jaxreg.fit(model, np.array([[850], [900]]), np.array([[1.5], [2.5]]), optimizer=jaxreg.sgd(0.0), epochs=1)
    assert result.losses.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": "fastest"}, "plan must be one of 'auto', 'stepwise', 'compressed', 'spectral', got 'fastest'"),
        ({"record": "weights"}, "record must be a collection of any of ('gradients', 'weights')"),
        ({"record": ("wieghts",)}, "got ('wieghts',)"),
        ({"epochs": -1}, "epochs must be an integer of at least 0, got -1"),
        ({"epochs": 2.5}, "epochs must be an integer of at least 0, got 2.5"),
        ({"optimizer": "sgd"}, "optimizer must be an Optax transformation such as jaxreg.sgd(0.01), got str"),
        ({"model": 3}, "model must be a flax.nnx.Module such as jaxreg.Linear, got int"),
        ({"inputs": np.ones((3, 1))}, "inputs and targets must have the same number of rows, got 3 and 20"),
        ({"inputs": 1.0}, "inputs must have a leading axis of rows, got a scalar"),
        ({"inputs": np.ones((0, 1)), "targets": np.ones((0, 1))}, "inputs and targets have no rows"),
        ({"targets": np.ones(20)}, "got (20, 1) and (20,). PyTorch would broadcast them to (20, 20)"),
        ({"inputs": np.ones((20, 2))}, "inputs must have shape (..., in_features) = (..., 1), got (20, 2)"),
    ],
)
def test_bad_arguments(line: Any, change: dict[str, Any], message: str) -> None:
    model, x, y = line
    good = {"model": model, "inputs": x, "targets": y, "optimizer": jaxreg.sgd(0.1), "epochs": 3}
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.fit(**(good | change))
    assert message in str(error.value)


def test_result_draws_itself(line: Any) -> None:
    model, x, y = line
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=30)
    assert repr(result).startswith("FitResult(30 steps, plan 'spectral', loss ")
    html = result._repr_html_()
    assert "<svg" in html
    assert "30 steps" in html
