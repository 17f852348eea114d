"""The blitz's net in Flax NNX. Images stay as PyTorch has them outside; inside, channels are last."""

import jax
import optax
from flax import nnx

import jaxreg
from parity import Port


class Net(nnx.Module):
    """Two convolutions, three linear layers."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 6, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(16 * 5 * 5, 120, rngs=rngs)
        self.fc2 = nnx.Linear(120, 84, rngs=rngs)
        self.fc3 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, images):
        x = images.transpose(0, 2, 3, 1)
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # PyTorch flattens channels first
        return self.fc3(nnx.relu(self.fc2(nnx.relu(self.fc1(x)))))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def build(recording):
    net = Net(nnx.Rngs(0))
    for name, values in recording.initial.items():
        layer, _, kind = name.partition(".")
        place = getattr(net, layer)
        if kind == "bias":
            place.bias[...] = values
        else:
            place.kernel[...] = values.T if values.ndim == 2 else jax.numpy.transpose(values, (2, 3, 1, 0))
    return Port.from_nnx(net, cross_entropy, jaxreg.sgd(0.001, momentum=0.9))
