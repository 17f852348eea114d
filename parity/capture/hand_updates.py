"""Weights that a program moves by hand: by which rate, where it is the weight less a rate times its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity.capture.graph_encoding import values
from parity.capture.graph_values import Call, Gradient, Leaf, Made, Outside
from parity.capture.torch_tensors import to_array
from parity.recording.recording import Array

BY_HAND = "The program moves its weights by hand, by a rate times their gradient: that is judged as torch.optim.SGD."
# What a program that moves its weights by hand leaves out of SGD.
PLAIN_SGD = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}

_SAME = {"data", "detach", "clone", "contiguous", "to", "float", "view_as", "requires_grad_", "detach_"}
_ADDING = {"add": -1.0, "add_": -1.0, "__iadd__": -1.0, "sub": 1.0, "sub_": 1.0, "__isub__": 1.0, "subtract": 1.0}


def leaf_of(value: Any) -> torch.Tensor | None:
    """The leaf whose values these are, under another name such as ``w.data``."""
    while isinstance(value, Made) and value.call.name in ("data", "detach", "alias") and not value.path:
        value = value.call.args[0]
    return value.tensor if isinstance(value, Leaf) else None


def rate_of(value: Any, leaf: torch.Tensor) -> float | None:
    """The rate of a step of gradient descent that gives ``value``; ``None`` where it is no such step."""
    while isinstance(value, Made) and value.call.name in (*_SAME, "copy_"):
        value = value.call.args[1 if value.call.name == "copy_" else 0]
    if not isinstance(value, Made) or value.call.name not in _ADDING or len(value.call.args) < 2:
        return None
    call = value.call
    first, second = call.args[0], call.args[1]
    if leaf_of(first) is not leaf and call.name == "add" and leaf_of(second) is leaf:
        first, second = second, first
    if leaf_of(first) is not leaf:
        return None
    share, alpha = _share_of(second, leaf), _number(call.kwargs.get("alpha", 1.0))
    return None if share is None or alpha is None else _ADDING[call.name] * alpha * share


def _share_of(value: Any, leaf: torch.Tensor) -> float | None:
    """What the leaf's gradient was multiplied with to give ``value``."""
    if isinstance(value, Gradient):
        return 1.0 if value.leaf is leaf else None
    if not isinstance(value, Made) or value.path:
        return None
    call = value.call
    if call.name in _SAME:
        return _share_of(call.args[0], leaf)
    return _scaled_share(call, leaf)


def _scaled_share(call: Call, leaf: torch.Tensor) -> float | None:
    name = call.name.strip("_").removeprefix("r")
    if name == "neg":
        share = _share_of(call.args[0], leaf)
        return None if share is None else -share
    if name not in ("mul", "div", "multiply", "true_divide", "truediv") or len(call.args) < 2 or call.kwargs:
        return None
    if name in ("mul", "multiply"):
        for one, other in (call.args[:2], call.args[1::-1]):
            share, number = _share_of(one, leaf), _number(other)
            if share is not None and number is not None:
                return share * number
        return None
    share, number = _share_of(call.args[0], leaf), _number(call.args[1])
    return share / number if share is not None and number else None


def _number(value: Any) -> float | None:
    """A number, or a tensor that holds one."""
    if isinstance(value, Outside) and value.values.numel() == 1:
        with torch._C.DisableTorchFunction():
            return float(value.values.detach())
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _gradient_in(value: Any) -> Gradient:
    """The gradient that a step was made from."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Gradient):
            return found
        if isinstance(found, Made):
            waiting.extend(values((found.call.args, found.call.kwargs)))
    raise AssertionError("a step that has a rate has a gradient")


class HandSteps:
    """What a program does to its weights between one forward pass and the next.

    Attributes:
        changes: leaves with what they become.
        leaves, copies: each leaf, and a copy of it as it was before the first step, by its identity.
        before: the values of each leaf before the step, by its identity.
    """

    def __init__(self) -> None:
        self.changes: dict[int, tuple[torch.Tensor, Any]] = {}
        self.leaves: dict[int, torch.Tensor] = {}
        self.copies: dict[int, torch.Tensor] = {}
        self.before: dict[int, Array] = {}

    def start(self, leaves: Iterable[torch.Tensor], *, first: bool) -> None:
        """Take up the weights that a loss is differentiated at."""
        leaves = list(leaves)
        self.before = {id(leaf): to_array(leaf) for leaf in leaves}
        if first:
            self.leaves = {id(leaf): leaf for leaf in leaves}
            with torch._C.DisableTorchFunction():
                self.copies = {id(leaf): leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in leaves}

    def copied(self) -> tuple[dict[int, tuple[torch.Tensor, torch.Tensor]], torch.optim.Optimizer]:
        """The leaves and their copies, and an optimizer that moves the copies as the program moves the leaves."""
        pairs = {key: (self.leaves[key], own) for key, own in self.copies.items()}
        trained = [own for own in self.copies.values() if own.requires_grad]
        return pairs, torch.optim.SGD(trained, lr=0.0)

    def change(self, leaf: torch.Tensor, value: Any) -> None:
        """Take up a change; one that is told twice, of ``w.data`` and of ``w``, counts once."""
        known = self.changes.get(id(leaf))
        if known is not None and getattr(known[1], "call", None) is not getattr(value, "call", value):
            value = None
        self.changes[id(leaf)] = (leaf, value)

    def steps(self) -> dict[int, tuple[torch.Tensor, float, Array]]:
        """The leaves that moved, each with its rate and its gradient, by its identity.

        Raises:
            UnsupportedError: one was moved by something else.
        """
        found = {}
        for key, (leaf, value) in self.changes.items():
            rate = rate_of(value, leaf)
            if rate is None:
                raise UnsupportedError(
                    "weights are moved by hand, by something else than a rate times their gradient. Parity follows "
                    "that and torch's optimizers"
                )
            found[key] = (leaf, rate, to_array(_gradient_in(value).values))
        return found
