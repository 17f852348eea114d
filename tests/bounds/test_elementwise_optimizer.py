"""Optimizers on one vector: the same numbers where every element is treated alike, and never elsewhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from parity.bounds import elementwise_optimizer

PARAMS = {"a": {"w": np.ones((4, 5)), "b": np.ones(5)}, "c": np.ones((5, 2)), "d": np.ones(())}
RATE = optax.exponential_decay(0.1, 2, 0.5)


@pytest.fixture(autouse=True)
def in_float64() -> Any:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    "optimizer",
    [
        jaxreg.sgd(0.1, momentum=0.9, dampening=0.3, weight_decay=0.1),
        optax.sgd(RATE, momentum=0.9, nesterov=True),
        optax.adam(0.1),
        optax.adamw(RATE, weight_decay=0.1),
        optax.amsgrad(0.1),
        optax.nadam(0.1),
        optax.rmsprop(0.1, centered=True, momentum=0.9),
        optax.adagrad(0.1),
        optax.chain(optax.clip(0.5), optax.add_decayed_weights(0.1), optax.adam(0.1)),
        optax.inject_hyperparams(optax.adam)(RATE),
    ],
)
def test_a_vector_gives_what_the_tree_gives(optimizer: Any) -> None:
    flat = elementwise_optimizer.of(optimizer, PARAMS)
    assert flat is not None
    rng = np.random.default_rng(1)
    draw = lambda: jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), PARAMS)  # noqa: E731
    params = draw()
    ours = theirs = (params, optimizer.init(params))
    for _ in range(5):
        gradients = draw()
        updates, state = optimizer.update(gradients, ours[1], ours[0])
        ours = (optax.apply_updates(ours[0], updates), state)
        theirs = flat.update(gradients, theirs[1], theirs[0])
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14), ours, theirs)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(0.1, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)),
        optax.multi_transform(
            {"w": optax.adam(0.1), "b": optax.adam(0.2)},
            {"a": {"w": "w", "b": "b"}, "c": "w", "d": "b"},
        ),
        optax.chain(optax.clip_by_global_norm(1e9), optax.adam(0.1)),
        optax.chain(optax.adaptive_grad_clip(1e9), optax.sgd(0.1)),
        optax.lamb(0.1),
        optax.adafactor(0.1, min_dim_size_to_factor=2),
        optax.chain(optax.centralize(), optax.sgd(0.1)),
        optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1)),
        optax.GradientTransformation(
            lambda params: optax.EmptyState(),
            lambda g, s, p=None: ({**g, "c": 2 * g["c"]}, s),
        ),
    ],
)
def test_what_treats_elements_or_parameters_unlike_stays_a_tree(optimizer: Any) -> None:
    assert elementwise_optimizer.of(optimizer, PARAMS) is None


def test_the_log_tells_why_an_optimizer_stays_a_tree(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "parity"):
        assert elementwise_optimizer.of(optax.lamb(0.1), PARAMS) is None
        broken = optax.GradientTransformation(lambda params: 1 / 0, lambda g, s, p=None: (g, s))
        assert elementwise_optimizer.of(broken, PARAMS) is None
    assert [record.name for record in caplog.records] == ["parity.bounds.elementwise_optimizer"] * 2
    assert "not elementwise" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_one_parameter_is_a_vector_already() -> None:
    assert elementwise_optimizer.of(optax.adam(0.1), {"w": np.ones(3)}) is None
