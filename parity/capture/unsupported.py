"""What can be recorded of a step and what cannot: each refusal one message that says what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity._errors import UnsupportedError
from parity.capture.clipping_hooks import Watch
from parity.capture.observed_run import Call, Pass
from parity.capture.torch_tensors import constants
from parity.recording import trees as _trees
from parity.recording.clipping import told
from parity.recording.recording import MSE, Array

_CYCLED = dict.fromkeys(("momentum", "betas"), ": OneCycleLR and CyclicLR leave it with cycle_momentum=False")


def the_passes(differentiated: Sequence[Pass], optimizer: torch.optim.Optimizer) -> Sequence[Pass]:
    """The backward passes whose gradients a step uses."""
    # What was differentiated before the gradients were last cleared is gone.
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    cleared = [index for index, one in enumerate(differentiated) if not one.uncleared & moved]
    if not cleared:
        raise UnsupportedError(
            "gradients of earlier steps are added up. Call optimizer.zero_grad() once between two steps"
        )
    used = differentiated[cleared[-1] :]
    for one in used:
        check_alike(used[0], one, "different losses are added up in one step. Add them up as one loss of one kind")
        if one.call.lazy:
            raise UnsupportedError(
                "the model's weights are made in its first call, which is part of the training: there are none to "
                "start from. Call the model once on an input before the training"
            )
        if one.call.chance:
            raise UnsupportedError(
                f"{one.call.chance} draws random numbers in the training, which no two frameworks draw alike. "
                "Record with dropout=False (--no-dropout) where it is dropout; draw them outside the model otherwise"
            )
    if len(used) > 1:
        _check_rows(used)
    return used


def _check_rows(passes: Sequence[Pass]) -> None:
    """Passes are put together as rows of one table, so every tensor needs to have a row for each."""
    trees = [(one.call.inputs, one.targets, one.predictions) for one in passes]
    rows = [{leaf.shape[0] if leaf.ndim else None for leaf in _trees.leaves(tree)} for tree in trees]
    rank = min(leaf.ndim for tree in trees for leaf in _trees.leaves(tree[0]))
    rest = {repr(_trees.form(_trees.mapped(lambda leaf: leaf[:0], tree))) for tree in trees if None not in rows[0]}
    if any(len(one) != 1 or None in one for one in rows) or len(rest) != 1 or rank < 2:
        raise UnsupportedError(
            "gradients are added up over passes that are not rows of one table. Use rows: every tensor that goes into "
            "the model and the loss with the same leading axis"
        )


def check_alike(first: Pass, now: Pass, message: str) -> None:
    """A later pass must take the same loss of the same arguments; constants may change with the shapes only."""
    what = _difference(first, now)
    if what:
        raise UnsupportedError(f"{message}: {what}")


def _difference(first: Pass, now: Pass) -> str:
    if first.part.type == MSE or now.part.type == MSE:
        return "" if first.part == now.part else f"{now.part}, and {first.part} at first"
    if first.loss.wiring != now.loss.wiring:
        return f"the loss is {_lines(now)}, and {_lines(first)} at first"
    if _forms(first) == _forms(now):
        for (name, then), (_, later) in zip(first.loss.constants, now.loss.constants, strict=True):
            if then != later:
                return f"{name} is given {later}, and {then} at first. Only tensors may change"
        if not _equal(_constants(first), _constants(now)):
            return "the model is called with other arguments beside the tensors than at first"
    return ""


def _constants(one: Pass) -> Any:
    return constants((one.call.arguments.args, one.call.arguments.kwargs))


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a is b or a == b)
    except Exception:  # an object of the program that cannot be compared is trusted to be the same
        return True


def _forms(one: Pass) -> Any:
    return _trees.form((one.call.inputs, one.targets, one.predictions))


def _lines(one: Pass) -> str:
    return ", ".join(line.name for line in one.loss.lines) or "what the model returned"


def trained(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> Mapping[str, Mapping[str, Any]]:
    """The parameter group of each parameter that has a gradient and is in the optimizer; the others are frozen."""
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: groups[id(p)] for name, p in parameters.items() if id(p) in groups and p.grad is not None}
    if not found:
        raise UnsupportedError("no gradient reached any parameter of the optimizer. Call backward() before step()")
    return found


def trainable(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> set[str]:
    """The names of the parameters that the optimizer holds and that are not frozen."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name for name, parameter in parameters.items() if parameter.requires_grad and id(parameter) in held}


def check_settings(
    now: Mapping[str, Mapping[str, Any]],
    at_start: Mapping[str, Mapping[str, Any]],
    trainable: tuple[Collection[str], Collection[str]],
) -> None:
    """The same parameters train, and only the learning rate may change on the way.

    ``trainable`` are the names of those that could be trained, now and at the start.
    """
    if changed := sorted(now.keys() ^ at_start.keys()):
        names = ", ".join(changed)
        if all(name in some for name in changed for some in trainable):
            first, here = ("no gradient", "one") if changed[0] in now else ("a gradient", "none")
            raise UnsupportedError(
                f"{names} had {first} at step 0 and {here} now: the loss does not use the same parameters at every "
                "step. Let it use them all, those that are to have no say times 0"
            )
        raise UnsupportedError(f"{names} is frozen or freed on the way. Record the stretches one by one")
    for name, settings in at_start.items():
        for key, value in settings.items():
            if now[name][key] != value:
                raise UnsupportedError(
                    f"the optimizer's {key} changes from {value!r} to {now[name][key]!r}. "
                    f"Keep it constant; the learning rate may change{_CYCLED.get(key, '')}"
                )


def check_clipping(watch: Watch, at_start: Mapping[str, Any], trained: Mapping[str, torch.Tensor]) -> None:
    """Gradients are clipped in the same way before every step, all of them at once, or never."""
    if watch.problem:
        raise UnsupportedError(watch.problem)
    if watch.clipping != at_start:
        now, first = (f"clipped {told(one)}" if one else "not clipped" for one in (watch.clipping, at_start))
        raise UnsupportedError(f"gradients are {now}, and at step 0 they are {first}. Clip alike at every step")
    left_out = [name for name, parameter in trained.items() if id(parameter) not in watch.raw]
    if watch.clipping and left_out:
        raise UnsupportedError(
            f"gradients are clipped, but not that of {', '.join(left_out)}. Clip those of all trained parameters"
        )


def check_gradients(made: Mapping[int, tuple[torch.Tensor, int]], trained: Mapping[str, torch.Tensor]) -> None:
    """Gradients are what ``backward()`` made them."""
    for name, parameter in trained.items():
        if (known := made.get(id(parameter))) is None or parameter.grad is None:
            continue
        if parameter.grad is not known[0] or parameter.grad._version != known[1]:
            raise UnsupportedError(
                f"the gradient of {name} is changed between backward() and optimizer.step(), by the program or by what "
                "it calls. Parity follows what backward(), torch.nn.utils.clip_grad_norm_ and clip_grad_value_ do: put "
                "the change into the loss or the optimizer's settings"
            )


def check_modes(first: Call, now: Call) -> None:
    """A layer that does something else in training mode stays in the mode it was in."""
    for name, training in sorted(set(now.modes) - set(first.modes)):
        mode, other = ("training", "evaluation") if training else ("evaluation", "training")
        raise UnsupportedError(
            f"{name or 'the model'} is in {mode} mode and was in {other} mode at first. Call model.train() before "
            "every step, and model.eval() only around evaluations"
        )


def check_buffers(after_last_step: Mapping[str, Array], now: Mapping[str, Array]) -> None:
    """The model's own state is changed by the forward passes of the steps alone."""
    for name, values in now.items():
        if not _trees.same_array(after_last_step[name], values):
            raise UnsupportedError(
                f"{name} was changed since the last step, by a call of the model in training mode that no step follows "
                "or by the program. Call model.eval() before evaluations"
            )


def check_untouched(after_last_step: Mapping[str, Array], now: Mapping[str, Array]) -> None:
    """Weights are the optimizer's to change."""
    for name, values in now.items():
        if not np.array_equal(after_last_step[name], values, equal_nan=True):
            raise UnsupportedError(
                f"{name} was changed since the last step, outside the optimizer. Parity follows what optimizers do: "
                "load and change weights before the first step or after the last"
            )
