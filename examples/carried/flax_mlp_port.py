"""The front page's perceptron in Flax NNX, dropout in evaluation mode; GELU is Flax's own, the one by tanh."""

import optax
from flax import nnx
from flax_mnist_port import UnbiasedBatchNorm

from parity import Port


class MLP(nnx.Module):
    """A linear layer, BatchNorm, dropout, GELU, a linear layer."""

    def __init__(self, din, dmid, dout, *, rngs):
        self.linear = nnx.Linear(din, dmid, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.1, deterministic=True, rngs=rngs)
        self.bn = UnbiasedBatchNorm(dmid, momentum=0.9, rngs=rngs)
        self.linear_out = nnx.Linear(dmid, dout, rngs=rngs)

    def __call__(self, x):
        return self.linear_out(nnx.gelu(self.dropout(self.bn(self.linear(x)))))


def squared(predictions, targets):
    return ((predictions - targets) ** 2).mean()


def build(recording):
    model = MLP(2, 16, 5, rngs=nnx.Rngs(0))
    for layer in (model.linear, model.linear_out):
        name = "linear" if layer is model.linear else "linear_out"
        layer.kernel[...] = recording.initial[f"{name}.weight"].T
        layer.bias[...] = recording.initial[f"{name}.bias"]
    return Port.from_nnx(model, squared, optax.adam(1e-3))
