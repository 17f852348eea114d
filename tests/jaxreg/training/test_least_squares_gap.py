"""A training that stopped far from the least squares says so when it is shown, and only then."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg
from jaxreg._training import least_squares_gap

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3)).astype(np.float32)
Y = (X @ np.array([[1.0, 0.0], [2.0, 1.0], [-1.0, 3.0]]) + 0.5 + 0.3 * RANDOM.normal(size=(40, 2))).astype(np.float32)
W = RANDOM.uniform(0.5, 2, size=40).astype(np.float32)


def fit(epochs: int = 5, x: Any = X, y: Any = Y, rate: float = 0.01, **options: Any) -> Any:
    model = jaxreg.Linear(3, 2, use_bias=options.pop("use_bias", True), rngs=nnx.Rngs(0))
    optimizer = options.pop("optimizer", None) or jaxreg.sgd(rate)
    return jaxreg.fit(model, x, y, optimizer=optimizer, epochs=epochs, **options)


def r_squared(model: Any, weights: Any, centred: bool) -> tuple[Any, Any]:
    """Of the model and of the least squares, of each output, by scikit-learn's definition."""
    w = np.sqrt(np.ones(40) if weights is None else weights.astype(np.float64))[:, None]
    x = X.astype(np.float64)
    design = np.concatenate([x, np.ones((40, 1))], 1) if centred else x
    bias = np.asarray(model.bias[...], np.float64)[None] if centred else np.zeros((1, 2))
    mine = np.concatenate([np.asarray(model.kernel[...], np.float64), bias])[: design.shape[1]]
    best = np.linalg.lstsq(w * design, w * Y, rcond=None)[0]
    mean = (w**2 * Y).sum(0) / (w**2).sum() if centred else 0.0
    total = (w**2 * (Y - mean) ** 2).sum(0)
    return tuple(1 - (w**2 * (design @ one - Y) ** 2).sum(0) / total for one in (mine, best))


@pytest.mark.parametrize(
    ("plan", "weights", "use_bias"),
    [("stepwise", W, True), ("compressed", None, True), ("spectral", W, False), ("spectral", None, True)],
)
def test_the_numbers_are_those_of_the_data(plan: str, weights: Any, use_bias: bool) -> None:
    result = fit(plan=plan, weights=weights, use_bias=use_bias)
    mine, best = r_squared(result.model, weights, use_bias)
    worst = int((best - mine).argmax())
    assert result.shortfall.startswith(f"far from the least squares: R² of output {worst} is ")
    said = result.shortfall.split(" is ")[1].split(";")[0].split(", theirs ")
    assert [float(number) for number in said] == pytest.approx([mine[worst], best[worst]], rel=1e-3)
    assert result.shortfall in repr(result)
    assert result.shortfall in result._repr_html_()


def test_what_is_near_says_nothing() -> None:
    result = fit(epochs=500, rate=0.1)
    mine, best = r_squared(result.model, None, True)
    assert (best - mine).max() < 0.01
    assert result.shortfall == ""
    assert "least squares" not in repr(result)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": jaxreg.sgd(0.01, weight_decay=0.1)},
        {"optimizer": jaxreg.sgd(1e-4, maximize=True)},
        {"loss": jaxreg.l1_loss},
        {"y": np.where(np.arange(40)[:, None] == 3, np.nan, Y)},
        {"y": np.ones_like(Y)},
    ],
    ids=["weight decay", "uphill", "another loss", "NaN", "targets without variance"],
)
def test_where_least_squares_are_not_what_it_makes_for(options: dict[str, Any]) -> None:
    assert fit(**options).shortfall == ""


def test_of_another_optimizer_the_fact_alone() -> None:
    assert fit(optimizer=optax.sgd(1e-3)).shortfall.split("theirs ")[1].replace(".", "").isdigit()


def test_from_statistics_and_in_batches() -> None:
    expected = fit().shortfall.split(";")[0]
    assert fit(x=jaxreg.SufficientStatistics.of(X, Y), y=None).shortfall.split(";")[0] == expected
    assert "far from the least squares" in fit(x=jnp.asarray(X), y=jnp.asarray(Y), batch_size=20).shortfall


def test_data_that_were_written_to_say_nothing() -> None:
    x = X.copy()
    result = fit(x=x)
    x *= 3
    assert result.shortfall == ""


def test_large_data_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares_gap, "_KEPT_BYTES", 8)
    x = X.copy()
    there, gone = fit(x=x), fit(x=X.copy())
    assert "far from" in there.shortfall
    assert gone.shortfall == ""


def test_it_goes_with_a_copy_and_the_data_do_not() -> None:
    result = fit()
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert other.watch is None
        assert other.shortfall == result.shortfall != ""
        assert repr(other) == repr(result)


def test_nothing_is_worked_out_before_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares_gap, "sentence", lambda *_: pytest.fail("worked out"))
    result = fit()
    assert result.losses.shape == (5,)
    assert result.model.kernel.shape == (3, 2)
