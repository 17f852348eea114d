"""PyTorch's own databases of test inputs. They need the package ``expecttest`` and take seconds to import."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of PyTorch's test code about itself
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db
    from torch.testing._internal.common_optimizers import optim_db

SGD = next(info for info in optim_db if info.optim_cls is torch.optim.SGD)
MODULES = {info.module_cls.__name__: info for info in module_db if info.module_cls.__module__.startswith("torch.nn")}
OPERATORS = {info.name: info for info in op_db}
LOSSES = {"MSELoss": "mse_loss", "L1Loss": "l1_loss", "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss"}


@dataclasses.dataclass(frozen=True)
class LossInput:
    """One input of a loss: where it is from, predictions, targets, and the settings."""

    source: str
    predictions: torch.Tensor
    targets: torch.Tensor
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LinearInput:
    """One input of a linear layer, with its parameters."""

    source: str
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None


def loss_inputs(module: str, dtype: torch.dtype) -> Iterator[LossInput]:
    """All inputs of a loss in both databases."""
    info = MODULES[module]
    for number, item in enumerate(info.module_inputs_func(info, "cpu", dtype, requires_grad=False, training=True)):
        predictions, targets = (item.forward_input.args + tuple(item.forward_input.kwargs.values()))[:2]
        assert not item.constructor_input.args
        yield LossInput(f"{module}-{number}", predictions, targets, item.constructor_input.kwargs)
    for number, item in enumerate(OPERATORS[f"nn.functional.{LOSSES[module]}"].sample_inputs("cpu", dtype)):
        yield LossInput(f"{LOSSES[module]}-{number}", item.input, item.args[0], item.kwargs)


def linear_inputs(dtype: torch.dtype) -> Iterator[LinearInput]:
    """All inputs of a linear layer in both databases."""
    info = MODULES["Linear"]
    torch.manual_seed(0)
    for number, item in enumerate(info.module_inputs_func(info, "cpu", dtype, requires_grad=False, training=True)):
        layer = torch.nn.Linear(*item.constructor_input.args, **item.constructor_input.kwargs).to(dtype)
        given: dict[str, Any] = item.forward_input.kwargs
        inputs: torch.Tensor = given["input"] if given else item.forward_input.args[0]
        bias = None if layer.bias is None else layer.bias.detach()
        yield LinearInput(f"Linear-{number}", inputs, layer.weight.detach(), bias)
    for number, item in enumerate(OPERATORS["nn.functional.linear"].sample_inputs("cpu", dtype)):
        weight, bias = (*item.args, None)[:2]
        yield LinearInput(f"linear-{number}", item.input, weight, bias)
