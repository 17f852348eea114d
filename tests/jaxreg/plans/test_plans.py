"""The plans that look at the data once, against the loop written out in float64, and what they refuse."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg import SufficientStatistics, _memory
from tests.helpers.strategies import Training, trainings

REDUCED = ("compressed", "spectral")
OPTIONS = st.sampled_from(
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.01},
        {"weight_decay": 0.1},
        {"maximize": True},
    ]
)


def loop(x: Any, y: Any, start: Any, rate: float, steps: int, options: dict[str, Any]) -> tuple[Any, Any]:
    """PyTorch's SGD on the mean squared error of all rows, so many steps: losses, and the weights at the end."""
    losses, after = follow([(x, y, 1.0, 1 / y.size)] * steps, start, rate, options)
    return losses, after[-1] if after else start


def follow(
    batches: Iterable[Any], start: Any, rate: float, options: dict[str, Any], number: Any = np.float32
) -> tuple[Any, list[Any]]:
    """PyTorch's SGD in float64, its numbers rounded to the dtype ``number`` of the weights as PyTorch's are.

    Each batch has inputs, targets, the weights of its rows and what the sum of squared errors is multiplied with.
    Returns the loss before each step and the weights after it.
    """
    rate, momentum, decay = (
        float(number(v)) for v in (rate, options.get("momentum", 0), options.get("weight_decay", 0))
    )
    kept, w, buffer, losses, after = float(number(1 - options.get("dampening", 0))), start, None, [], []
    for x, y, weights, scale in batches:
        residual = x @ w - y
        losses.append(scale * (weights * residual**2).sum())
        gradient = 2 * scale * x.T @ (weights * residual) * (-1 if options.get("maximize") else 1) + decay * w
        if momentum:
            buffer = gradient if buffer is None else momentum * buffer + kept * gradient
            gradient = gradient + momentum * buffer if options.get("nesterov") else buffer
        w = w - rate * gradient
        after.append(w)
    return np.array(losses), after


def coefficients(model: Any) -> Any:
    kernel = np.asarray(model.kernel[...], np.float64)
    return kernel if model.bias is None else np.concatenate([kernel, np.asarray(model.bias[...], np.float64)[None]])


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", REDUCED)
@given(training=trainings(), options=OPTIONS)
@example(training=Training(1, 2, 1, 1.0, 1.0, 0, 1, 0.01, False), options={})
@settings(max_examples=25)
def test_the_result_is_the_float64_loops_rounded_once(plan: str, training: Training, options: dict[str, Any]) -> None:
    x, y = training.data()
    rate = training.learning_rate() * 0.3
    model = jaxreg.Linear(training.inputs, training.outputs, use_bias=training.bias, rngs=nnx.Rngs(training.seed))
    design = np.concatenate([x, np.ones((len(x), 1))], 1) if training.bias else x
    losses, w = loop(
        design.astype(np.float64), y.astype(np.float64), coefficients(model), rate, training.steps, options
    )
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(rate, **options), epochs=training.steps, plan=plan)
    assert result.plan == plan
    # One rounding to float32, and float64's of as many sums and steps as there are, on both sides.
    slack = 2.0**-24 + 64 * (training.rows + training.inputs) * training.steps * 2.0**-53
    size = max(abs(w).max(), abs(coefficients(model)).max())
    assert abs(coefficients(result.model) - w).max() <= slack * size
    assert abs(np.asarray(result.losses) - losses).max() <= 2 * slack * max(losses.max(), (y.astype(float) ** 2).mean())


@pytest.mark.cases(2)
@pytest.mark.parametrize("plan", REDUCED)
@pytest.mark.parametrize("columns", ["twice", "constant", "zero", "three times"])
@given(first=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6), share=st.floats(-2, 2, width=32))
@settings(max_examples=15)
def test_columns_that_explain_each_other_are_counted_once(
    plan: str, columns: str, first: list[float], share: float
) -> None:
    x = np.array(first, np.float32)[:, None]
    x = {
        "twice": np.concatenate([x, x], 1),
        "constant": np.full((len(x), 1), share, np.float32),
        "zero": 0 * x,
        "three times": np.concatenate([x, 2 * x, -x / 2], 1),
    }[columns]
    y = np.cos(np.arange(len(x), dtype=np.float32))[:, None]
    bias = columns in ("constant", "zero")
    model = jaxreg.Linear(x.shape[1], 1, use_bias=bias, rngs=nnx.Rngs(0))
    design = (np.concatenate([x, np.ones_like(x)], 1) if bias else x).astype(np.float64)
    rate, steps = 0.1 / max(1.0, float((design**2).sum(1).mean())), 50
    losses, w = loop(design, y.astype(np.float64), coefficients(model), rate, steps, {})
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(rate), epochs=steps, plan=plan)
    slack = 2.0**-24 + 64 * (len(x) + x.shape[1]) * steps * 2.0**-53
    assert abs(coefficients(result.model) - w).max() <= slack * max(abs(w).max(), abs(coefficients(model)).max())
    assert abs(np.asarray(result.losses) - losses).max() <= 2 * slack * max(losses.max(), 1.0)


@pytest.mark.parametrize("plan", REDUCED)
@pytest.mark.parametrize("steps", [3, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.1])
def test_weights_that_overshoot_change_their_sign_at_every_step(plan: str, steps: int, momentum: float) -> None:
    x, y = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    model = jaxreg.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
    options: dict[str, Any] = {"momentum": momentum}
    _, w = loop(x.astype(np.float64), y.astype(np.float64), coefficients(model), 0.875, steps, options)
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.875, **options), epochs=steps, plan=plan)
    assert np.sign(w[0, 0]) == np.sign(coefficients(model)[0, 0]) * (-1) ** steps
    np.testing.assert_allclose(coefficients(result.model), w, rtol=2.0**-23)


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", REDUCED)
def test_a_training_that_diverges_does_as_the_loop_does(plan: str) -> None:
    x = np.linspace(-1, 1, 100, dtype=np.float32).reshape(-1, 1)
    model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
    train = functools.partial(jaxreg.fit, model, x, 2 * x + 1, optimizer=jaxreg.sgd(3.5, 0.5), epochs=400)
    expected, result = train(plan="stepwise"), train(plan=plan)
    assert not np.isfinite(expected.losses[-1])
    np.testing.assert_array_equal(np.isnan(result.losses), np.isnan(expected.losses))
    np.testing.assert_array_equal(np.isinf(result.losses), np.isinf(expected.losses))
    np.testing.assert_array_equal(np.isnan(result.model.kernel[...]), np.isnan(expected.model.kernel[...]))


def test_as_many_steps_as_one_likes_and_the_losses_of_those_asked_for() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 3)).astype(np.float32)
    y = (x @ random.normal(size=(3, 2)) + 1).astype(np.float32)
    model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    at = [0, 999, 10**12 - 1]
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(1e-3), epochs=10**12, at=at)
    short = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(1e-3), epochs=1000, plan="stepwise")
    assert (result.plan, result.steps, result.losses.shape) == ("spectral", 10**12, (3,))
    np.testing.assert_allclose(result.losses[:2], short.losses[np.array([0, 999])], rtol=1e-5)
    solution = np.linalg.lstsq(np.c_[x, np.ones(50)].astype(np.float64), y.astype(np.float64))[0]
    np.testing.assert_allclose(coefficients(result.model), solution, rtol=2.0**-22, atol=2.0**-24)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.05), optax.sgd(0.05, momentum=0.9), optax.sgd(optax.cosine_decay_schedule(0.1, 60))]
)
@jax.numpy_dtype_promotion("standard")  # Optax's own
def test_any_optimizer_takes_the_steps_of_a_float64_loop(optimizer: Any) -> None:
    x = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    model = jaxreg.Linear(4, 1, rngs=nnx.Rngs(2))
    train = functools.partial(jaxreg.fit, optimizer=optimizer, epochs=60, record=("weights", "gradients"))
    result = train(model, x, x[:, :1], plan="compressed")
    with jax.enable_x64(True):
        wide = jaxreg.Linear(4, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        nnx.update(wide, jax.tree.map(lambda leaf: leaf.astype(np.float64), nnx.state(model)))
        expected = train(wide, x.astype(np.float64), x[:, :1].astype(np.float64), plan="stepwise")
    # One rounding to float32, and float64's of the sums over the rows in each step on both sides.
    slack = 2.0**-24 + 64 * 200 * 60 * 2.0**-53
    for kept in ("weights", "gradients"):
        seen, right = ((getattr(r.trace, kept)["kernel"], getattr(r.trace, kept)["bias"]) for r in (result, expected))
        for a, b in zip(seen, right, strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b)
            assert abs(a - b).max() <= slack * abs(b).max()


def test_statistics_of_parts_train_as_the_whole_does() -> None:
    random = np.random.default_rng(3)
    x, w = random.normal(size=(300, 5)).astype(np.float32), random.random(300).astype(np.float32)
    y = (x @ random.normal(size=(5, 2))).astype(np.float32)
    parts = [
        SufficientStatistics.of(x[rows], y[rows], w[rows]) for rows in (slice(0, 7), slice(7, 200), slice(200, 300))
    ]
    model = jaxreg.Linear(5, 2, rngs=nnx.Rngs(0))
    train = functools.partial(jaxreg.fit, model, optimizer=jaxreg.sgd(0.1), epochs=50)
    whole, summed = train(inputs=x, targets=y, weights=w), train(inputs=parts[0] + parts[1] + parts[2])
    np.testing.assert_allclose(coefficients(summed.model), coefficients(whole.model), rtol=1e-6)
    with pytest.raises(jaxreg.ArgumentError, match="both or neither have weights"):
        parts[0] + SufficientStatistics.of(x, y)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 4}, "whole batch"),
        ({"loss": jaxreg.l1_loss}, "mse_loss"),
        ({"optimizer": optax.adam(0.1)}, "must be jaxreg.sgd"),
        ({"precision": "bfloat16"}, "another precision"),
        ({"at": [30]}, "from 0 to 9"),
        ({"epochs": 10**12}, "say which with at="),
    ],
)
def test_what_a_plan_cannot_serve_is_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    x = jnp.ones((8, 2))
    given_ = {"optimizer": jaxreg.sgd(0.1), "epochs": 10, "plan": "spectral", **changes}
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.fit(jaxreg.Linear(2, 1, rngs=nnx.Rngs(0)), x, jnp.ones((8, 1)), **given_)


def test_float64_data_keep_their_condition() -> None:
    """Wampler's first problem of NIST, a polynomial of degree 5 whose coefficients are all 1."""
    t = np.arange(21.0)
    x = np.stack([t**k for k in range(1, 6)], 1)
    y = x.sum(1, keepdims=True) + 1
    mean, spread = x.mean(0), x.std(0)
    with jax.enable_x64(True):
        model = jaxreg.Linear(5, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        result = jaxreg.fit(model, (x - mean) / spread, y, optimizer=jaxreg.sgd(0.1), epochs=10**12, at=[])
    found = np.asarray(result.model.kernel[...])[:, 0] / spread
    assert -np.log10(abs(found - 1)).min() >= 6


def test_weights_go_along_with_their_rows_into_batches() -> None:
    random = np.random.default_rng(5)
    x, w = random.normal(size=(10, 2)).astype(np.float32), random.random(10).astype(np.float32)
    y = x[:, :1] - 1
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    train = functools.partial(jaxreg.fit, optimizer=jaxreg.sgd(0.1), epochs=1)
    batched = train(model, x, y, weights=w, batch_size=4)
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        model = train(model, x[rows], y[rows], weights=w[rows], plan="stepwise").model
    np.testing.assert_allclose(coefficients(batched.model), coefficients(model), rtol=2.0**-20)


@pytest.mark.cases(6)
@pytest.mark.parametrize("plan", REDUCED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("where", ["inputs", "targets", "weights"])
@pytest.mark.parametrize(("rows", "columns"), [(20, 1), (20, 5), (4000, 3), (30_000, 40)])
def test_what_is_not_finite_spreads_as_in_the_loop(plan: str, bad: float, where: str, rows: int, columns: int) -> None:
    random = np.random.default_rng(rows)
    x, y = (random.standard_normal((rows, n)).astype(np.float32) for n in (columns, 1))
    weights = np.ones(rows, np.float32)
    {"inputs": x[:, 0], "targets": y[:, 0], "weights": weights}[where][rows // 2] = bad
    model = jaxreg.Linear(columns, 1, rngs=nnx.Rngs(0))
    given = {"optimizer": jaxreg.sgd(0.01), "epochs": 20, "weights": weights if where == "weights" else None}
    expected = jaxreg.fit(model, x, y, plan="stepwise", **given)
    found = jaxreg.fit(model, x, y, plan=plan, **given)
    for ours, theirs in ((found.losses, expected.losses), (found.model.kernel[...], expected.model.kernel[...])):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))


@pytest.mark.parametrize("plan", REDUCED)
def test_statistics_of_what_is_not_finite_train_to_nothing(plan: str) -> None:
    x = np.random.default_rng(0).standard_normal((500, 30)).astype(np.float32)
    x[3, 4] = np.inf
    statistics = SufficientStatistics.of(x, x[:, :1])
    found = jaxreg.fit(
        jaxreg.Linear(30, 1, rngs=nnx.Rngs(0)), statistics, optimizer=jaxreg.sgd(0.01), epochs=5, plan=plan
    )
    assert np.isnan(found.model.kernel[...]).all()
    assert np.isnan(found.losses).all()


def test_more_than_fits_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "host_memory", lambda: 2**30)
    model = jaxreg.Linear(64, 1, rngs=nnx.Rngs(0))
    x, y = np.ones((10, 64), np.float32), np.ones((10, 1), np.float32)
    message = r"what is kept of 90,000,000 steps would take 22\.1 GiB, and 1\.0 GiB are free; ask for fewer"
    with pytest.raises(jaxreg.ArgumentError, match=message):
        jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=90_000_000, record=["weights"])
    with pytest.raises(jaxreg.ArgumentError, match=r"of 1,000,000 steps of 1,000 trainings would take 3\.7 GiB"):
        jaxreg.sweep(
            model, x, y, settings={"learning_rate": np.geomspace(1e-4, 1, 1000)}, epochs=10**6, plan="compressed"
        )
