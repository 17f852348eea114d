"""PyTorch's linear model, loss and optimizer in JAX, trained as one compiled program for CPU, GPU and TPU."""

from jaxreg import lr_scheduler, state_dict, torch_random
from jaxreg._errors import ArgumentError, JaxregError
from jaxreg._nn.linear import Linear
from jaxreg._nn.losses import huber_loss, l1_loss, mse_loss, smooth_l1_loss
from jaxreg._optim.sgd import MomentumState, sgd
from jaxreg._optim.sgd_groups import sgd_groups
from jaxreg._statistics.sufficient import SufficientStatistics
from jaxreg._sweeps.groups import fit_groups
from jaxreg._sweeps.groups_result import GroupsResult
from jaxreg._sweeps.sweep import sweep
from jaxreg._sweeps.sweep_result import SweepResult
from jaxreg._training.fit import fit
from jaxreg._training.result import FitResult, Trace

__all__ = [
    "ArgumentError",
    "FitResult",
    "GroupsResult",
    "JaxregError",
    "Linear",
    "MomentumState",
    "SufficientStatistics",
    "SweepResult",
    "Trace",
    "fit",
    "fit_groups",
    "huber_loss",
    "l1_loss",
    "lr_scheduler",
    "mse_loss",
    "sgd",
    "sgd_groups",
    "smooth_l1_loss",
    "state_dict",
    "sweep",
    "torch_random",
]
