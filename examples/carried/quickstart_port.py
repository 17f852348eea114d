"""The quickstart's perceptron as dataclasses that are trees of arrays, in the manner of Equinox; PyTorch's layout."""

import dataclasses

import jax
import optax

from parity import Port


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """One layer, called on a batch."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.weight.T + self.bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Perceptron:
    """Layers with a ReLU between each two."""

    layers: list[Linear]

    def __call__(self, images):
        x = images.reshape(len(images), -1)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def build(recording):
    stack = [f"linear_relu_stack.{number}" for number in (0, 2, 4)]
    model = Perceptron([Linear(recording.initial[f"{at}.weight"], recording.initial[f"{at}.bias"]) for at in stack])
    names = {
        f"{at}.{kind}": f"layers.{number}.{kind}" for number, at in enumerate(stack) for kind in ("weight", "bias")
    }
    return Port(model, lambda model, images: model(images), loss, optax.sgd(1e-3), names)
