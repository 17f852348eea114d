"""Trainings of another kind than one model, one loss and one optimizer, told by what they are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity._words import count
from parity.capture import source_places

_ALONE = (
    "Models that are trained in turn, as in a GAN, cannot be judged yet: record the training of each alone, with what "
    "the other gives as data"
)


def check_step(
    optimizer: torch.optim.Optimizer,
    usual: torch.optim.Optimizer | None,
    arguments: Sequence[Any],
    differentiated: Sequence[Any],
    grad_called: bool,
    thread: int,
) -> None:
    """A step uses gradients that ``backward()`` left before it, and the optimizer is handed nothing else.

    Args:
        optimizer: whose step it is.
        usual: the one of the steps before; ``None`` at the first step.
        arguments: what ``step`` was given.
        differentiated: the backward passes since the last step.
        grad_called: whether ``torch.autograd.grad`` was called since then.
        thread: the one in which the program is followed.
    """
    name = type(optimizer).__name__
    check_kind(optimizer)
    if any(argument is not None for argument in arguments):
        raise UnsupportedError(
            f"optimizer.step() is given a closure, and parity looks for the loss before the step. {name} needs none: "
            "call closure() first, and then optimizer.step()"
        )
    check_scaler()
    check_thread(thread)
    if differentiated:
        return
    if grad_called:
        raise UnsupportedError(
            "the gradients come from torch.autograd.grad(), and parity follows backward(). Call loss.backward(), which "
            "leaves the same gradients in .grad"
        )
    if usual is not None and optimizer is not usual:
        raise UnsupportedError(
            f"{name} steps after a backward() whose gradients {type(usual).__name__} has used already: there are "
            "several optimizers. Give all parameters to one, in groups of their own settings"
        )
    if usual is None and any(
        parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"]
    ):
        raise UnsupportedError(
            "there are gradients, and no backward() that parity saw has left them: it ran in another thread. Call "
            "loss.backward() in the one that runs the program"
        )
    raise UnsupportedError(
        "backward() was not called on a loss since the last step. Call it once before every optimizer.step()"
    )


def check_kind(optimizer: torch.optim.Optimizer) -> None:
    """The optimizer takes one gradient a step."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedError(
            f"{type(optimizer).__name__} calls its closure several times a step, at other weights each time, and "
            "parity follows optimizers that take one gradient a step. Model and loss can be judged with one of those, "
            "such as torch.optim.SGD or torch.optim.Adam"
        )


def check_thread(thread: int) -> None:
    """The step is made in the thread in which the program is followed."""
    if threading.get_ident() != thread:
        raise UnsupportedError(
            "the training runs in a thread of its own, and parity follows the one that runs the program. Train there"
        )


def check_goes_on(optimizer: torch.optim.Optimizer, first: torch.optim.Optimizer) -> None:
    """The optimizer is the first one, or one made anew for the same tensors that keeps nothing from step to step."""
    if optimizer is first:
        return
    keeps = any(group.get("momentum") for each in (optimizer, first) for group in each.param_groups)
    if type(optimizer) is type(first) is torch.optim.SGD and _held(optimizer) == _held(first) and not keeps:
        return
    raise UnsupportedError(
        f"another {type(optimizer).__name__} than at step 0 takes the step: there are several optimizers, and a "
        "training that takes turns, or begins anew with what an optimizer keeps, cannot be judged yet"
    )


def check_scaler() -> None:
    """No GradScaler that is switched on steps the optimizer."""
    if _scaled():
        raise UnsupportedError(
            "torch.amp.GradScaler steps the optimizer: it scales the loss, divides the gradients by the scale after "
            "backward() and leaves out steps, which parity does not follow. Make it with enabled=False, and train in "
            "float32, to have the training judged"
        )


def _scaled() -> bool:
    """Whether a GradScaler that is switched on is at work."""
    code = torch.amp.GradScaler.step.__code__
    return any(f.f_code is code and f.f_locals["self"].is_enabled() for f in source_places.frames())


def check_same_training(
    optimizer: torch.optim.Optimizer,
    usual: torch.optim.Optimizer | None,
    modules: Sequence[torch.nn.Module],
    model: torch.nn.Module | None,
) -> None:
    """The optimizer and the model of a step are those of the first one."""
    other = next((module for module in modules if module is not model), None)
    if optimizer is usual and other is not None:
        raise UnsupportedError(
            f"the loss is taken of a {type(other).__name__}, and at step 0 it was of a {type(model).__name__}: another "
            "module. Call one module at every step"
        )
    if optimizer is usual:
        return
    assert model is not None
    assert usual is not None
    held, before = _held(optimizer), _held(usual)
    if held == before:
        raise UnsupportedError(
            f"a new {type(optimizer).__name__} for the same parameters takes the step. Make the optimizer once, before "
            "the training; a scheduler, or optimizer.param_groups, changes its learning rate"
        )
    if other is None and held <= {id(parameter) for parameter in model.parameters()}:
        raise UnsupportedError(
            f"another {type(optimizer).__name__} than at step 0 takes the step, for other parameters of the model: "
            "there are several optimizers. Give all parameters to one, in groups of their own settings"
        )
    if held & before or other is None:
        raise UnsupportedError(f"another optimizer than at step 0 takes the step, for other parameters. {_ALONE}")
    raise UnsupportedError(
        f"another optimizer takes the step, and trains another model, a {type(other).__name__}: a second training in "
        f"one program. Record one of them at a time. {_ALONE}"
    )


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def check_optimizer(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, called: Sequence[torch.nn.Module]
) -> None:
    """The optimizer must train the model, nothing else, and from the start.

    ``called`` are the modules that were called since the last step.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedError(
            "the model is a scripted module, whose weights cannot be copied into a float64 run. Train the module that "
            "torch.jit.script() was given"
        )
    owned = {id(parameter) for parameter in model.parameters()}
    stray = _held(optimizer) - owned
    if stray:
        raise UnsupportedError(_stray(stray, model, called))
    if any(state and float(state.get("step", 1)) > 0 for state in optimizer.state.values()):
        raise UnsupportedError("the optimizer starts with a state of its own. Record a training from its start")


def _stray(stray: set[int], model: torch.nn.Module, called: Sequence[torch.nn.Module]) -> str:
    """What is to be said of parameters that the optimizer holds and the model has not."""
    name = type(model).__name__
    others = {type(each).__name__: None for each in called if stray & {id(p) for p in each.parameters()}}
    if others:
        return (
            f"the loss is taken of what a {name} gave, and the optimizer trains {' and '.join(others)}, which was "
            "called beside it: parity records one module a step. Put them into one module that calls them in turn. "
            f"{_ALONE}"
        )
    return (
        f"the optimizer holds {count(len(stray), 'parameter')} that no recorded module owns: the loss was taken of "
        f"{name}, which has {count(sum(1 for _ in model.parameters()), 'parameter')}. Give the optimizer that model's "
        "parameters() alone"
    )
