"""The same net in Flax Linen, whose modules are named by their order."""

import numpy as np
import optax
from flax import linen as nn

import jaxreg
from parity import Port


class CNN(nn.Module):
    """Three convolutions that halve the image, and the mean over what is left of it."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(-1, 28, 28, 1)
        for features in (16, 16, 10):
            x = nn.relu(nn.Conv(features, (3, 3), strides=2, padding=1)(x))
        return nn.avg_pool(x, (4, 4), strides=(4, 4)).reshape(-1, 10)


def loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def build(recording):
    def layer(number):
        weight, bias = (recording.initial[f"conv{number}.{kind}"] for kind in ("weight", "bias"))
        return {"kernel": np.transpose(weight, (2, 3, 1, 0)), "bias": bias}

    variables = {"params": {f"Conv_{number - 1}": layer(number) for number in (1, 2, 3)}}
    names = {
        f"conv{number}.{kind}": f"params.Conv_{number - 1}.{place}"
        for number in (1, 2, 3)
        for kind, place in (("weight", "kernel.T"), ("bias", "bias"))
    }
    return Port(variables, CNN().apply, loss, jaxreg.sgd(0.1, momentum=0.9), names)
