"""The language model in plain JAX, with PyTorch's layout and its layers' numbers: post-norm, ReLU, places first."""

import functools
import math

import jax
import jax.numpy as jnp
import optax

import jaxreg
from parity import Port

WIDTH, HEADS, LAYERS = 16, 2, 2
STEPS_PER_EPOCH = 7


def dense(params, x):
    return x @ params["weight"].T + params["bias"]


def layer_norm(params, x):
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * params["weight"] + params["bias"]


def self_attention(params, x):
    length, batch, _ = x.shape
    together = x @ params["in_proj_weight"].T + params["in_proj_bias"]
    q, k, v = together.reshape(length, batch, 3, HEADS, WIDTH // HEADS).transpose(2, 1, 3, 0, 4)
    scores = q @ k.swapaxes(-2, -1) / math.sqrt(WIDTH // HEADS)
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    mixed = (jax.nn.softmax(scores, axis=-1) @ v).transpose(2, 0, 1, 3).reshape(length, batch, WIDTH)
    return dense(params["out_proj"], mixed)


def apply(positions, params, words):
    x = params["embedding"]["weight"][words] * math.sqrt(WIDTH) + positions[: len(words)]
    for number in range(LAYERS):
        layer = params["transformer_encoder"]["layers"][number]
        x = layer_norm(layer["norm1"], x + self_attention(layer["self_attn"], x))
        hidden = jax.nn.relu(dense(layer["linear1"], x))
        x = layer_norm(layer["norm2"], x + dense(layer["linear2"], hidden))
    return dense(params["linear"], x)


def loss(logits, targets):
    flat = logits.reshape(-1, logits.shape[-1])
    return optax.softmax_cross_entropy_with_integer_labels(flat, targets).mean()


def build(recording):
    weights = recording.initial

    def layer(at):
        def pair(name):
            return {kind: weights[f"{at}.{name}.{kind}"] for kind in ("weight", "bias")}

        attention = {kind: weights[f"{at}.self_attn.{kind}"] for kind in ("in_proj_weight", "in_proj_bias")}
        attention["out_proj"] = pair("self_attn.out_proj")
        return {"self_attn": attention} | {name: pair(name) for name in ("linear1", "linear2", "norm1", "norm2")}

    params = {
        "embedding": {"weight": weights["embedding.weight"]},
        "linear": {"weight": weights["linear.weight"], "bias": weights["linear.bias"]},
        "transformer_encoder": {"layers": [layer(f"transformer_encoder.layers.{n}") for n in range(LAYERS)]},
    }
    rate = jaxreg.lr_scheduler.step_lr(0.5, 1, 0.95, steps_per_epoch=STEPS_PER_EPOCH)
    # PyTorch keeps the places' waves in float32; worked out anew in float64 they would be another model's.
    waves = recording.initial_buffers["pos_encoder.pe"]
    return Port(params, functools.partial(apply, waves), loss, jaxreg.sgd(rate), {name: name for name in weights})
