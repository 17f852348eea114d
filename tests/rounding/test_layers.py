"""The gradient of every layer and loss, and the steps of every optimizer, have a bound that is kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from parity.rounding import bound
from tests.rounding.soundness import beyond

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((5, 8)).astype(np.float32)
IMAGES = RNG.standard_normal((2, 6, 6, 4)).astype(np.float32)
SERIES = RNG.standard_normal((1, 5, 8)).astype(np.float32)
LABELS = np.array([0, 3, 7, 1, 1])
KEPT = RNG.random((5, 8)) < 0.8
LAYERS: dict[str, Any] = {
    "attention": (lambda rngs: nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs), SERIES),
    "batch norm": (lambda rngs: nnx.BatchNorm(8, rngs=rngs), ROWS),
    "conv": (lambda rngs: nnx.Conv(4, 3, (3, 3), rngs=rngs), IMAGES),
    "conv in groups": (lambda rngs: nnx.Conv(4, 8, (3, 3), strides=2, feature_group_count=4, rngs=rngs), IMAGES),
    "conv transposed": (lambda rngs: nnx.ConvTranspose(4, 2, (3, 3), strides=(2, 2), rngs=rngs), IMAGES),
    "embedding": (lambda rngs: nnx.Embed(9, 4, rngs=rngs), LABELS),
    "group norm": (lambda rngs: nnx.GroupNorm(8, num_groups=2, rngs=rngs), ROWS),
    "layer norm": (lambda rngs: nnx.LayerNorm(8, rngs=rngs), ROWS),
    "linear": (lambda rngs: nnx.Linear(8, 3, rngs=rngs), ROWS),
    "rms norm": (lambda rngs: nnx.RMSNorm(8, rngs=rngs), ROWS),
}
ACTIVATIONS: dict[str, Any] = {
    "average pool": lambda x: nnx.avg_pool(x[None, :, :, None], (2, 2), (2, 2)),
    "dropout": lambda x: jnp.where(KEPT, x / 0.8, 0.0),
    "elu": jax.nn.elu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu by tanh": jax.nn.gelu,
    "leaky relu": jax.nn.leaky_relu,
    "log softmax": jax.nn.log_softmax,
    "max pool": lambda x: nnx.max_pool(x[None, :, :, None], (3, 3), (2, 2), "SAME"),
    "relu": jax.nn.relu,
    "remat": jax.checkpoint(lambda x: jnp.tanh(jnp.sin(x))),
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softmax masked by minus infinity": lambda x: jax.nn.softmax(jnp.where(KEPT, x, -jnp.inf)),
    "softmax masked by the smallest number": lambda x: jax.nn.softmax(jnp.where(KEPT, x, jnp.finfo(x.dtype).min)),
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
LOSSES: dict[str, Any] = {
    "cross entropy": lambda x: optax.softmax_cross_entropy_with_integer_labels(x, jnp.asarray(LABELS)).mean(),
    "huber": lambda x: optax.huber_loss(x, jnp.asarray(ROWS[::-1], x.dtype)).mean(),
    "l1": lambda x: jnp.abs(x - jnp.asarray(ROWS[::-1], x.dtype)).mean(),
    "mse": lambda x: ((x - jnp.asarray(ROWS[::-1], x.dtype)) ** 2).mean(),
    "one against the rest": lambda x: optax.sigmoid_binary_cross_entropy(x, jnp.ones_like(x)).sum(),
}
OPTIMIZERS = {
    "adagrad": optax.adagrad(0.1),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "scheduled": optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
    "sgd": optax.sgd(0.1, 0.9, nesterov=True),
}


def hold(function: Any, *inputs: Any) -> None:
    values, bounds = bound(function)(*inputs)
    finite = size = 0
    for result, value, limit in zip(*map(jax.tree.leaves, (jax.jit(function)(*inputs), values, bounds)), strict=True):
        wrong = beyond(result, value, limit)
        assert not wrong, wrong
        finite, size = finite + int(np.isfinite(limit).sum()), size + limit.size
    assert finite == size


def uneven(y: Any) -> Any:
    """A scalar in which every element counts differently."""
    return (y.reshape(-1) * jnp.cos(jnp.arange(y.size, dtype=y.dtype))).sum()


@pytest.fixture(autouse=True)
def _loose_promotion() -> Any:
    """Flax and Optax are not written for the strict settings of these tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_gradients_of_layers(name: str) -> None:
    make, inputs = LAYERS[name]
    graph, state = nnx.split(make(nnx.Rngs(0)))

    def loss(state: Any, inputs: Any) -> Any:
        return uneven(nnx.merge(graph, state)(inputs))

    hold(jax.value_and_grad(loss), state, inputs)


@pytest.mark.cases(8)
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_gradients_of_activations(name: str) -> None:
    function = ACTIVATIONS[name]
    hold(jax.value_and_grad(lambda x: uneven(function(1.7 * x))), ROWS)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_of_losses(name: str) -> None:
    hold(jax.value_and_grad(lambda x: LOSSES[name](0.7 * x)), ROWS)


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_trajectories_of_optimizers(name: str) -> None:
    optimizer = OPTIMIZERS[name]

    def train(weight: Any, inputs: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            weight, state = carry
            gradient = jax.grad(lambda w: (jnp.tanh(inputs @ w) ** 2).mean())(weight)
            updates, state = optimizer.update(gradient, state, weight)
            return (optax.apply_updates(weight, updates), state), None

        return lax.scan(step, (weight, optimizer.init(weight)), None, length=3)[0]

    hold(train, RNG.standard_normal((8, 3)).astype(np.float32), ROWS)
