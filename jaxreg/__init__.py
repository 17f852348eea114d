"""PyTorch's linear model, loss and optimizer in JAX, trained as one compiled program for CPU, GPU and TPU."""

from jaxreg import torch_random
from jaxreg._errors import ArgumentError, JaxregError
from jaxreg._fit import fit
from jaxreg._linear import Linear
from jaxreg._losses import mse_loss
from jaxreg._result import FitResult, Trace
from jaxreg._sgd import MomentumState, sgd

__all__ = [
    "ArgumentError",
    "FitResult",
    "JaxregError",
    "Linear",
    "MomentumState",
    "Trace",
    "fit",
    "mse_loss",
    "sgd",
    "torch_random",
]
