"""What the program does between the model's output and ``backward``, seen through torch's function mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

# Functions that change a tensor's shape and none of its values.
_RESHAPING = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "contiguous"}
_FOLLOWED = _RESHAPING | {"sub", "pow", "square", "mul", "mean", "sum"}


class SquaredError(NamedTuple):
    """A mean or a sum of squared differences of two tensors, however it was written."""

    first: torch.Tensor
    second: torch.Tensor
    reduction: str


class Tape(TorchFunctionMode):
    """Notes how tensors that carry a gradient were made, for as long as they live, and tells of squared errors.

    Args:
        on_loss: called with each scalar that is a squared error, as soon as it is made.
    """

    def __init__(self, on_loss: Callable[[torch.Tensor, SquaredError], None]) -> None:
        super().__init__()
        self._on_loss = on_loss
        self._made: Any = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.requires_grad:
            name = getattr(func, "__name__", "")
            # An operation in place gives the tensor it was given: its past is no longer its own.
            if name in _FOLLOWED and not (args and out is args[0]):
                self._made[out] = (name, args, kwargs or {})
            error = self._squared_error(name, args, kwargs or {}) if out.ndim == 0 else None
            if error:
                self._on_loss(out, error)
        return out

    def origins(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """``tensor``, and what it was reshaped from, and what that was, to the first that was not reshaped."""
        yield tensor
        while self._made_by(tensor) in _RESHAPING:
            tensor = self._made[tensor][1][0]
            yield tensor

    def _made_by(self, tensor: Any) -> str:
        entry = self._made.get(tensor) if isinstance(tensor, torch.Tensor) else None
        return entry[0] if entry else ""

    def _squared_error(self, name: str, args: Any, kwargs: Any) -> SquaredError | None:
        if name == "mse_loss":
            return _functional(*args, **kwargs)
        if name not in ("mean", "sum") or len(args) != 1 or kwargs:
            return None
        difference = self._square_root(args[0])
        if self._made_by(difference) != "sub":
            return None
        _, operands, options = self._made[difference]
        if options or len(operands) != 2 or not all(isinstance(operand, torch.Tensor) for operand in operands):
            return None
        return SquaredError(operands[0], operands[1], name)

    def _square_root(self, tensor: Any) -> Any:
        """What was squared to give ``tensor``, if it was."""
        how = self._made_by(tensor)
        if how not in ("pow", "square", "mul"):
            return None
        operands = self._made[tensor][1]
        squared = (
            how == "square" or (how == "pow" and operands[1] == 2) or (how == "mul" and operands[0] is operands[1])
        )
        return operands[0] if squared else None


def _functional(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Any = None,
) -> SquaredError | None:
    """The arguments of ``torch.nn.functional.mse_loss``, by its own names."""
    if size_average is not None or reduce is not None or weight is not None or reduction not in ("mean", "sum"):
        return None
    return SquaredError(input, target, reduction)
