"""What is known of a training at its first step, and copies of what it starts from for the float64 run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity.capture import leaf_names, source_places
from parity.capture.graph_steps import Begun
from parity.capture.observed_run import environment, plain
from parity.capture.step_retention import After, Keeper
from parity.capture.torch_tensors import to_array

# Tensors by their identity with copies of them, and an optimizer that holds the copies.
Live = tuple[Mapping[int, tuple[torch.Tensor, torch.Tensor]], torch.optim.Optimizer]


def copied(optimizer: torch.optim.Optimizer, leaves: Iterable[torch.Tensor]) -> Live:
    """The optimizer's tensors and all leaves that are seen so far, copied together with the optimizer.

    Raises:
        UnsupportedError: the optimizer has made steps already, or cannot be copied.
    """
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    tensors = list({id(tensor): tensor for tensor in [*held, *leaves]}.values())
    if any(state and float(state.get("step", 1)) > 0 for state in optimizer.state.values()):
        raise UnsupportedError("the optimizer starts with a state of its own. Record a training from its start")
    with torch._C.DisableTorchFunction():
        live = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors]
    # The optimizer's copy finds the tensors' copies where it looks for what it has copied already.
    memo: dict[int, Any] = {id(tensor): made for tensor, made in zip(tensors, live, strict=True)}
    try:
        own = copy.deepcopy(optimizer, memo)
    except Exception as error:
        raise UnsupportedError(
            f"the optimizer, a {type(optimizer).__name__}, cannot be copied for the float64 run: {error}"
        ) from None
    return {id(tensor): (tensor, made) for tensor, made in zip(tensors, live, strict=True)}, own


def begin(
    optimizer: torch.optim.Optimizer | None,
    groups: Mapping[int, Mapping[str, Any]],
    reached: Sequence[torch.Tensor],
    models: Iterable[torch.nn.Module],
    live: Live,
    limit: float,
) -> tuple[dict[int, str], Begun]:
    """Name the leaves of the first step.

    Args:
        optimizer: what takes the step; ``None`` where the program moves its weights by hand.
        groups: the settings of each tensor that is trained, by its identity.
        reached: the leaves that the loss comes from.
        models: the modules that were called.
        live: the copies.
        limit: bytes for all tensors that are kept.

    Raises:
        UnsupportedError: no gradient reached anything that is trained.
    """
    known, own = live
    models = list(models)
    wanted = [leaf for leaf in reached if id(leaf) in groups or isinstance(leaf, torch.nn.Parameter)]
    names = {key: name for key, name in leaf_names.of(wanted, models).items() if key in known}
    leaves = {name: known[key][0] for key, name in names.items()}
    copies = {name: known[key][1] for key, name in names.items()}
    rules = {name: plain(groups[key]) for key, name in names.items() if key in groups}
    if not rules:
        raise UnsupportedError("no gradient reached any parameter of the optimizer. Call backward() before step()")
    initial = {name: to_array(tensor) for name, tensor in copies.items()}
    device = str(next(iter(leaves.values())).device)
    return names, Begun(
        optimizer=optimizer or own,
        leaves=leaves,
        rules=rules,
        learning_rates={name: [] for name in rules},
        initial=initial,
        initial_states={},
        live=(list(copies.values()), own),
        keeper=Keeper(limit, After(initial, {}, {})),
        environment=environment(device) | {"optimizer_line": source_places.told()},
        clipping={},
        model=", ".join(type(module).__name__ for module in models),
        by_hand=optimizer is None,
    )
