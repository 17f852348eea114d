"""The cubic in plain JAX. PyTorch adds RMSprop's epsilon to the root, Optax by itself puts it under the root."""

import dataclasses

import jax.numpy as jnp
import optax

from parity import Port


def predict(params, powers):
    return (powers @ params["slopes"] + params["level"])[:, 0]


def sum_of_squares(predictions, targets):
    return jnp.sum((predictions - targets) ** 2)


def build(recording):
    params = {"slopes": recording.initial["weight"].T, "level": recording.initial["bias"]}
    optimizer = optax.rmsprop(1e-3, decay=0.99, eps=1e-8, eps_in_sqrt=False)
    return Port(params, predict, sum_of_squares, optimizer, {"weight": "slopes.T", "bias": "level"})


def with_epsilon_inside(recording):
    """What ``optax.rmsprop`` does if nothing is said: another training, and parity says why."""
    return dataclasses.replace(build(recording), optimizer=optax.rmsprop(1e-3, decay=0.99, eps=1e-8))
