"""The block in Flax NNX and Optax."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from parity import Port, Recording

WORDS, WIDTH, HEADS, LENGTH = 384, 256, 4, 64


class Attention(nnx.Module):
    """Every place attends to itself and those before it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-2, -1) / math.sqrt(WIDTH // HEADS)
        shares = nnx.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf), axis=-1)
        return self.out((shares @ v).swapaxes(1, 2).reshape(n, length, WIDTH))


class Block(nnx.Module):
    """Embeddings, attention, a perceptron, logits; LayerNorm with PyTorch's epsilon."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.places = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = (nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs) for _ in range(3))
        self.attention = Attention(rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, WORDS, rngs=rngs)

    def __call__(self, words: jax.Array) -> jax.Array:
        x = self.words(words) + self.places.embedding[...]
        x = x + self.attention(self.norm1(x))
        x = x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))
        return self.head(self.norm3(x)).swapaxes(1, 2)


def cross_entropy(logits: jax.Array, words: jax.Array) -> jax.Array:
    """PyTorch has the classes on the second axis."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.swapaxes(1, 2), words).mean()


def build(recording: Recording) -> Port:
    """The port, from the recorded initial weights."""
    model = Block(nnx.Rngs(0))
    for name, values in recording.initial.items():
        *path, kind = name.split(".")
        place: Any = model
        for part in path:
            place = getattr(place, part)
        if kind == "bias":
            place.bias[...] = values
        elif isinstance(place, nnx.Embed):
            place.embedding[...] = values
        elif isinstance(place, nnx.LayerNorm):
            place.scale[...] = values
        else:
            place.kernel[...] = np.transpose(values)
    return Port.from_nnx(model, cross_entropy, optax.adamw(3e-4, weight_decay=0.1))
