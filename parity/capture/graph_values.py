"""What a tape knows of a tensor: where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from parity.capture.operation_tape import version_of
from parity.recording.trees import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor that training changes, or that a module owns."""

    tensor: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Outside:
    """A tensor that came from elsewhere: a batch, a constant, a draw. ``kept``: a copy, where it is about to change."""

    tensor: torch.Tensor
    version: int
    kept: torch.Tensor | None = None

    @property
    def changed(self) -> bool:
        return self.kept is None and version_of(self.tensor) != self.version

    @property
    def values(self) -> torch.Tensor:
        return self.tensor if self.kept is None else self.kept


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A buffer of a module that an operation reads and changes, such as BatchNorm's running mean."""

    tensor: torch.Tensor
    first: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Gradient:
    """A leaf's gradient, as a program reads it, and a copy of its values."""

    leaf: torch.Tensor
    values: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One torch function that was called; tensors among its arguments are values of this module."""

    number: int
    function: Callable[..., Any]
    name: str
    args: Any
    kwargs: Any
    in_place: bool
    stops: bool
    place: str


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A tensor that a call gave, at ``path`` in what it returned."""

    call: Call
    path: Path


@dataclasses.dataclass(frozen=True, eq=False)
class Lost:
    """A tensor whose past is not known."""

    reason: str


Value = Leaf | Outside | State | Gradient | Made | Lost
