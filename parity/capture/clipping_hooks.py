"""Clipping of gradients noticed while the program runs, and taken up again in the float64 run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.nn.utils import clip_grad

from parity._errors import UnsupportedError
from parity.capture.torch_tensors import to_array
from parity.recording.clipping import Clipping
from parity.recording.recording import Array

_NAMES = ("clip_grad_norm_", "clip_grad_value_")


class Watch:
    """Holds PyTorch's clipping functions for the length of one run, and keeps the gradients as they were before.

    Attributes:
        raw: by a parameter's identity, its gradient before it was clipped, since the last step.
        clipping: how, as a recording keeps it; empty where nothing was clipped.
        problem: what of it cannot be recorded.

    Args:
        namespace: names that the program's code finds from its own file, where the functions may have been imported.
    """

    def __init__(self, namespace: dict[str, Any] | None = None) -> None:
        self.clear()
        self._places: list[Any] = [vars(torch.nn.utils), vars(clip_grad), *([namespace] if namespace else [])]
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Watch:
        held = {getattr(clip_grad, name): self._held(getattr(clip_grad, name)) for name in _NAMES}
        for place in self._places:
            for name, value in list(place.items()):
                if callable(value) and any(value is original for original in held):
                    self._undo.append((place, name, value))
                    place[name] = held[value]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        for place, name, value in reversed(self._undo):
            place[name] = value
        self._undo = []

    def clear(self) -> None:
        """The step is over."""
        self.raw: dict[int, Array] = {}
        self.clipping: Clipping = {}
        self.problem = ""

    def _held(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
            try:
                self._note(original.__name__, listed, args, kwargs)
            except UnsupportedError as error:
                self.problem = str(error)
            return original(listed, *args, **kwargs)

        return clip

    def _note(self, name: str, parameters: list[Any], args: Any, kwargs: Any) -> None:
        if self.clipping:
            self.problem = "gradients are clipped twice before a step"
        given = dict(zip(("max_norm", "norm_type") if "norm" in name else ("clip_value",), args, strict=False)) | kwargs
        if not {"max_norm", "clip_value"} & given.keys():
            return  # PyTorch will say so
        if "norm" in name:
            self.clipping = {"max_norm": float(given["max_norm"]), "norm_type": float(given.get("norm_type", 2.0))}
        else:
            self.clipping = {"clip_value": float(given["clip_value"])}
        self.raw = {id(p): to_array(p.grad) for p in parameters if getattr(p, "grad", None) is not None}


def apply(clipping: Clipping, parameters: list[torch.nn.Parameter]) -> None:
    """PyTorch's own function, on the gradients of these parameters."""
    if "clip_value" in clipping:
        torch.nn.utils.clip_grad_value_(parameters, clipping["clip_value"])
    elif clipping:
        torch.nn.utils.clip_grad_norm_(parameters, clipping["max_norm"], clipping["norm_type"])
