"""The tagger in plain JAX: PyTorch's LSTM, with its two biases and its order of gates, as a scan over the words."""

import jax
import jax.numpy as jnp
import optax

from parity import Port


def cell(params, carry, x):
    hidden, memory = carry
    gates = params["weight_ih_l0"] @ x + params["bias_ih_l0"] + params["weight_hh_l0"] @ hidden + params["bias_hh_l0"]
    take, keep, new, give = jnp.split(gates, 4)
    memory = jax.nn.sigmoid(keep) * memory + jax.nn.sigmoid(take) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(give) * jnp.tanh(memory)
    return (hidden, memory), hidden


def apply(params, sentence):
    words = params["word_embeddings"]["weight"][sentence]
    lstm = params["lstm"]
    start = jnp.zeros(lstm["weight_hh_l0"].shape[1], words.dtype)
    _, hidden = jax.lax.scan(lambda carry, x: cell(lstm, carry, x), (start, start), words)
    tags = hidden @ params["hidden2tag"]["weight"].T + params["hidden2tag"]["bias"]
    return jax.nn.log_softmax(tags, axis=1)


def negative_log_likelihood(scores, tags):
    return -jnp.take_along_axis(scores, tags[:, None], axis=1).mean()


def build(recording):
    params = {}
    for name, values in recording.initial.items():
        layer, _, kind = name.partition(".")
        params.setdefault(layer, {})[kind] = values
    return Port(params, apply, negative_log_likelihood, optax.sgd(0.1), {name: name for name in recording.initial})
