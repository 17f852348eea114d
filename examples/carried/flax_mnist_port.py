"""Flax's MNIST net in Flax NNX. ``build`` keeps PyTorch's variance, ``as_documented`` Flax's biased one."""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from parity import Port


class UnbiasedBatchNorm(nnx.BatchNorm):
    """Flax's BatchNorm, whose running variance is PyTorch's: of n - 1 and not of n."""

    def __call__(self, x):
        count = x.size // x.shape[-1]
        before = self.var[...]
        out = super().__call__(x)
        biased = (self.var[...] - self.momentum * before) / (1 - self.momentum)
        self.var[...] = self.momentum * before + (1 - self.momentum) * biased * (count / (count - 1))
        return out


class CNN(nnx.Module):
    """Two convolutions with BatchNorm and average pooling, two linear layers."""

    def __init__(self, batch_norm, rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.batch_norm1 = batch_norm(8, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), rngs=rngs)
        self.batch_norm2 = batch_norm(16, momentum=0.9, rngs=rngs)
        self.linear1 = nnx.Linear(7 * 7 * 16, 32, rngs=rngs)
        self.linear2 = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, images):
        x = images.transpose(0, 2, 3, 1)
        x = nnx.avg_pool(nnx.relu(self.batch_norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.batch_norm2(self.conv2(x))), (2, 2), (2, 2))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return self.linear2(nnx.relu(self.linear1(x)))


def loss(logits, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _port(recording, batch_norm):
    model = CNN(batch_norm, nnx.Rngs(0))
    for name, values in recording.initial.items():
        layer, _, kind = name.partition(".")
        place = getattr(model, layer)
        if kind == "bias":
            place.bias[...] = values
        elif values.ndim == 1:
            place.scale[...] = values
        else:
            place.kernel[...] = values.T if values.ndim == 2 else np.transpose(values, (2, 3, 1, 0))
    return Port.from_nnx(model, loss, optax.adamw(0.005, b1=0.9))


def build(recording):
    return _port(recording, UnbiasedBatchNorm)


def as_documented(recording):
    """Flax's own BatchNorm: another running variance, and parity says why."""
    return _port(recording, nnx.BatchNorm)
