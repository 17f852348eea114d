"""fit_groups: each group's training is the one that fit makes of its rows alone, and what it refuses."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg

PLANS = ("stepwise", "compressed", "spectral")


def assert_same(one: Any, other: Any) -> None:
    """The same numbers, what is not finite included, to some roundings of float32."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_allclose(a, b, rtol=2.0**-18, atol=2.0**-20)


def rows(count: int, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 2)).astype(np.float32)
    return x, (x @ random.normal(size=(2, 1)) + random.normal(size=(count, 1))).astype(np.float32)


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", PLANS)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99), weighted=st.booleans())
@settings(max_examples=5)
def test_each_group_is_trained_as_if_alone(plan: str, sizes: list[int], seed: int, weighted: bool) -> None:
    x, y = rows(sum(sizes), seed)
    random = np.random.default_rng(seed + 1)
    labels = random.permutation(np.repeat([f"group {k}" for k in range(len(sizes))], sizes))
    weights = random.random(len(x)).astype(np.float32) + 0.1 if weighted else None
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(seed))
    options: dict[str, Any] = {"optimizer": jaxreg.sgd(0.05, momentum=0.5), "epochs": 20, "plan": plan}
    result = jaxreg.fit_groups(model, x, y, groups=labels, weights=weights, at=[0, 19], **options)
    assert result.plan == plan
    for number, label in enumerate(result.labels):
        mine = labels == label
        assert result.sizes[number] == mine.sum()
        single = jaxreg.fit(model, x[mine], y[mine], weights=None if weights is None else weights[mine], **options)
        assert_same(result.losses[number], single.losses[np.array([0, 19])])
        assert_same(result.model(label).kernel[...], single.model.kernel[...])
        assert_same(result.model(label).bias[...], single.model.bias[...])


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", PLANS)
def test_a_group_that_diverges_does_so_alone(plan: str) -> None:
    x, y = rows(30)
    x[10:20] *= 100
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    options: dict[str, Any] = {"optimizer": jaxreg.sgd(0.1), "epochs": 80, "plan": plan}
    result = jaxreg.fit_groups(model, x.reshape(3, 10, 2), y.reshape(3, 10, 1), at=range(80), **options)
    assert "1 did not stay finite" in repr(result)
    for number in range(3):
        mine = slice(10 * number, 10 * number + 10)
        single = jaxreg.fit(model, x[mine], y[mine], **options)
        assert_same(np.isfinite(result.losses[number]), np.isfinite(single.losses))
        assert_same(np.isnan(result.model(number).kernel[...]), np.isnan(single.model.kernel[...]))


def test_sizes_far_apart_are_not_laid_out_side_by_side() -> None:
    sizes = [1000, *[3] * 50]
    x, y = rows(sum(sizes))
    labels = np.repeat(np.arange(51), sizes)
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = jaxreg.sgd(0.1)
    result = jaxreg.fit_groups(model, x, y, groups=labels, optimizer=optimizer, epochs=9)
    for label in (0, 1, 50):
        single = jaxreg.fit(model, x[labels == label], y[labels == label], optimizer=optimizer, epochs=9)
        assert_same(result.losses[label, 0], single.losses[-1])


@jax.numpy_dtype_promotion("standard")  # Optax's own
def test_any_optimizer() -> None:
    x, y = rows(40)
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = optax.adam(0.1)
    result = jaxreg.fit_groups(model, x.reshape(4, 10, 2), y.reshape(4, 10, 1), optimizer=optimizer, epochs=30)
    assert result.plan == "compressed"
    single = jaxreg.fit(model, x[30:], y[30:], optimizer=optimizer, epochs=30, plan="compressed")
    assert_same(result.model(3).kernel[...], single.model.kernel[...])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": np.ones((4, 2))}, r"shape \(groups, rows, ...\)"),
        ({"groups": np.zeros(12)}, "one label a row, 4"),
        ({"targets": np.ones((4, 2, 1))}, "as many rows"),
        ({"inputs": np.ones((0, 3, 2)), "targets": np.ones((0, 3, 1))}, "no rows"),
        ({"inputs": np.ones((4, 2)), "targets": np.ones((4, 1)), "groups": np.zeros(3)}, "one label a row, 4"),
        ({"optimizer": "sgd"}, "Optax transformation"),
        ({"loss": lambda p, t: ((p - t) ** 2).mean(), "weights": np.ones((4, 3))}, "takes weights=..."),
        ({"plan": "spectral", "optimizer": optax.adam(0.1)}, "must be jaxreg.sgd"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], words: str) -> None:
    good = {"inputs": np.ones((4, 3, 2)), "targets": np.ones((4, 3, 1)), "optimizer": jaxreg.sgd(0.1), "epochs": 3}
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.fit_groups(jaxreg.Linear(2, 1, rngs=nnx.Rngs(0)), **(good | changes))
