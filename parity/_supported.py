"""What can be recorded of a step and what cannot: each refusal one message that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity._errors import UnsupportedError
from parity._recording import Array
from parity._seen import Call, Loss, scaled


def the_losses(
    differentiated: Sequence[Loss], optimizer: torch.optim.Optimizer, arguments: Sequence[Any]
) -> list[tuple[Loss, Call]]:
    """The losses whose gradients a step uses, and the calls of the model they were taken of."""
    if any(argument is not None for argument in arguments):
        raise UnsupportedError("optimizer.step() is given a closure; call backward() before step() instead")
    if not differentiated:
        raise UnsupportedError(
            "backward() was not called on a loss that parity knows. Use a torch loss module such as "
            "torch.nn.MSELoss(), torch.nn.functional.mse_loss, or a mean or sum of squared differences"
        )
    # What was differentiated before the gradients were last cleared is gone.
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    cleared = [index for index, loss in enumerate(differentiated) if not loss.uncleared & moved]
    if not cleared:
        raise UnsupportedError(
            "gradients of earlier steps are added up. Call optimizer.zero_grad() once between two steps"
        )
    used = [(loss, loss.call) for loss in differentiated[cleared[-1] :]]
    first = used[0][0]
    for loss, call in used:
        if call is None or call.inputs is None or loss.predictions is None:
            raise UnsupportedError(
                f"{loss.part} was not given what one module returned from one tensor: something is done between model "
                "and loss that parity cannot see. Do it inside the model"
            )
        if scaled(loss) != scaled(first):
            raise UnsupportedError("different losses are added up in one step. Add them up as one loss of one kind")
        if len(used) > 1 and (call.inputs.ndim < 2 or len(call.inputs) != len(loss.predictions)):
            raise UnsupportedError("gradients are added up over passes that are not rows of one table. Use rows")
    return [(loss, call) for loss, call in used if call is not None]


def check_optimizer(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    """The optimizer must train the model, nothing else, and from the start."""
    owned = {id(parameter) for parameter in model.parameters()}
    used = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    name = type(model).__name__
    if used - owned:
        raise UnsupportedError(
            f"the optimizer holds {len(used - owned)} parameters that no recorded module owns: the loss was taken of "
            f"{name}, which has {len(owned)} of its own. Give the optimizer that model's parameters() alone"
        )
    if any(optimizer.state.values()):
        raise UnsupportedError("the optimizer starts with a state of its own. Record a training from its start")


def trained(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> Mapping[str, Mapping[str, Any]]:
    """The parameter group of each parameter that has a gradient and is in the optimizer; the others are frozen."""
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: groups[id(p)] for name, p in parameters.items() if id(p) in groups and p.grad is not None}
    if not found:
        raise UnsupportedError("no gradient reached any parameter of the optimizer. Call backward() before step()")
    return found


def check_settings(now: Mapping[str, Mapping[str, Any]], at_start: Mapping[str, Mapping[str, Any]]) -> None:
    """The same parameters train, and only the learning rate may change on the way."""
    if now.keys() != at_start.keys():
        changed = ", ".join(sorted(now.keys() ^ at_start.keys()))
        raise UnsupportedError(f"{changed} is frozen or freed on the way. Record the stretches one by one")
    for name, settings in at_start.items():
        for key, value in settings.items():
            if now[name][key] != value:
                raise UnsupportedError(
                    f"the optimizer's {key} changes from {value!r} to {now[name][key]!r}. "
                    "Keep it constant; the learning rate may change"
                )


def check_untouched(after_last_step: Mapping[str, Array], now: Mapping[str, Array]) -> None:
    """Weights are the optimizer's to change."""
    for name, values in now.items():
        if not np.array_equal(after_last_step[name], values, equal_nan=True):
            raise UnsupportedError(
                f"{name} was changed since the last step, outside the optimizer. Parity follows what optimizers do"
            )
