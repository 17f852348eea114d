"""What the program does between the model's output and ``backward``, seen through torch's function mode."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from parity.capture import random_operations
from parity.capture.torch_tensors import tensors_of
from parity.recording.trees import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """A tensor that a call of the model returned, at ``path`` in its output.

    ``inner`` is how it was made inside, where the model is one linear layer with a shell about it.
    """

    call: Any
    path: Path
    inner: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Outside:
    """A tensor that came from elsewhere: a target, a mask, a weight. ``version`` tells whether it was changed since."""

    tensor: torch.Tensor
    version: int

    @property
    def changed(self) -> bool:
        return version_of(self.tensor) != self.version


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One torch function that was called; tensors among its arguments are an Output, an Outside or an Item."""

    number: int
    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: bool
    chance: str | None
    module: torch.nn.Module | None


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """A tensor that an operation gave, at ``path`` in what it returned."""

    operation: Operation
    path: Path


@dataclasses.dataclass(frozen=True, eq=False)
class Lost:
    """A tensor whose past is not known any more."""

    reason: str


# Functions that turn a tensor into Python's numbers, a NumPy array or text.
_READING = {"item", "tolist", "__float__", "numpy", "__repr__", "__format__"}

Value = Output | Outside | Item | Lost


class Tape(TorchFunctionMode):
    """Notes every torch function of tensors that derive from the model's output, until :meth:`forget`.

    Args:
        on_backward: called before ``backward()`` runs, with the value it was called on, that tensor and the gradient it
            was given.
        on_chance: called with the name of each function that draws random numbers.
        on_gradients: called after ``backward()`` has run.
        on_read: called where a tensor is turned into numbers or text, with the arguments, the result and the frame.
        dropout: whether dropout stays on.
    """

    def __init__(
        self,
        on_backward: Callable[[Any, Any, Any], None],
        on_chance: Callable[[str], None],
        on_gradients: Callable[[], None] = lambda: None,
        on_read: Callable[[Any, Any, FrameType], None] = lambda *_: None,
        *,
        dropout: bool = True,
    ) -> None:
        super().__init__()
        self._on_backward, self._on_chance, self._dropout = on_backward, on_chance, dropout
        self._on_gradients, self._on_read = on_gradients, on_read
        self._values: Any = WeakIdKeyDictionary()
        self._numbers = itertools.count()
        self.off = False  # inside the model, where nothing is noted
        self.module: torch.nn.Module | None = None  # the innermost module outside the model, such as a loss
        self.before: dict[str, None] | None = None  # what was called in the model before its one linear layer
        self.inside = False  # in a module that stands in ``before`` itself
        self.thread = threading.get_ident()  # a function mode sees no other
        self.grad_called = False  # torch.autograd.grad, since the last step

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        # Whatever it is called: a program may put a function of its own in its place, and torch hands on that.
        if name == "backward" or func is torch.Tensor.backward:
            return self._backward(func, args, kwargs)
        if name in _READING and not self.off:
            out = func(*args, **kwargs)
            self._on_read(args, out, sys._getframe(1))
            return out
        self.grad_called |= func is torch.autograd.grad
        chance = random_operations.draws(name, args, kwargs)
        if chance and chance.dropout and not self._dropout:
            func, args, kwargs = random_operations.without_dropout(func, name, args, kwargs)
            chance = None
        if chance:
            self._on_chance(chance.name)
        if self.off or not self._values or not self._derives(args, kwargs):
            out = func(*args, **kwargs)
            if self.before is not None and not self.inside and isinstance(out, torch.Tensor):
                self.before[name.strip("_")] = None
            return out
        # Taken before the function runs: it may change its arguments.
        noted = self._noted(args), self._noted(kwargs)
        out = func(*args, **kwargs)
        if name == "__get__" and not isinstance(out, torch.Tensor):
            return out
        self._note(out, func, name, noted, args, chance.name if chance else None)
        return out

    def returned(self, call: Any, output: Any, *, shell: bool) -> None:
        """Take up what a call of the model returned; a shell's inside stays known."""
        for path, tensor in tensors_of(output):
            self._put(tensor, Output(call, path, self.value(tensor) if shell else None))

    def value(self, tensor: torch.Tensor) -> Any:
        """What is known of a tensor; ``Outside`` where that is nothing."""
        entry = self._values.get(tensor)
        if entry is None:
            return Outside(tensor, version_of(tensor))
        value, version = entry
        return value if version_of(tensor) == version else Lost("a tensor was changed in place through a view of it")

    def known(self) -> list[tuple[torch.Tensor, Any]]:
        """Every tensor of which something is known, with what that is."""
        return [(tensor, self.value(tensor)) for tensor in list(self._values)]

    def forget(self) -> None:
        """Let go of all that was noted."""
        self._values, self.grad_called = WeakIdKeyDictionary(), False

    def _put(self, tensor: torch.Tensor, value: Any) -> None:
        self._values[tensor] = (value, version_of(tensor))

    def _derives(self, args: Any, kwargs: Any) -> bool:
        return any(tensor in self._values for tensor in tensors_in((args, kwargs)))

    def _noted(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.value(value)
        if isinstance(value, dict):
            return {key: self._noted(item) for key, item in value.items() if key != "out"}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            items = [self._noted(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _note(self, out: Any, func: Any, name: str, noted: Any, args: Any, chance: str | None) -> None:
        first = args[0] if args else None
        setting = name in ("__setitem__", "__set__")
        in_place = setting or (isinstance(first, torch.Tensor) and out is first)
        operation = Operation(next(self._numbers), func, name, noted[0], noted[1], in_place, chance, self.module)
        if setting and isinstance(first, torch.Tensor):
            known = name == "__setitem__"
            self._put(first, Item(operation, ()) if known else Lost("an attribute of a tensor was set"))
            return
        for path, tensor in tensors_of(out):
            self._put(tensor, Item(operation, path))

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("tensors")
        roots = [first] if isinstance(first, torch.Tensor) else list(first)
        given = args[1] if len(args) > 1 else kwargs.get("gradient", kwargs.get("grad_tensors"))
        seeds = given if isinstance(given, list | tuple) else [given] * len(roots)
        values = [self.value(root) for root in roots]
        for root, seed, value in zip(roots, seeds, values, strict=True):
            self._on_backward(value, root, seed)
        made = func(*args, **kwargs)
        self._on_gradients()
        return made


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; those made in ``torch.inference_mode`` do not count."""
    return 0 if tensor.is_inference() else tensor._version


def name_of(func: Any) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # an attribute, such as x.T
        attribute = getattr(getattr(func, "__self__", None), "__name__", None)
        return attribute if attribute and attribute not in ("grad",) else name
    return str(name)


def tensors_in(values: Any) -> Sequence[torch.Tensor]:
    """The tensors among arguments, however deep in lists, tuples and dicts."""
    found: list[torch.Tensor] = []
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return found
