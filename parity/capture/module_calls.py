"""The modules that are being called, one inside the other, and which of them is the model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from parity._errors import UnsupportedError
from parity.capture import source_places
from parity.capture.loss_recognition import RESHAPING
from parity.capture.observed_run import Call
from parity.capture.operation_tape import Tape
from parity.capture.torch_tensors import taken, to_array, to_tree
from parity.recording import trees
from parity.recording.recording import Array, Tree

_BY_MODE = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
    torch.nn.RReLU,
)


# Modules that hand on the values that they are given.
_SAME_VALUES = {"Flatten", "Unflatten", "Identity"}
_UNSHAPED = (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer)


class Stack:
    """Follows modules as they are entered and left; the outermost with parameters is a model.

    Args:
        tape: told what the model returned, and switched off while it computes.
        on_call: called with each call of a model, or of the one linear layer it comes to.
        on_problem: called with a sentence where something cannot be recorded.
    """

    def __init__(self, tape: Tape, on_call: Callable[[Call], None], on_problem: Callable[[str], None]) -> None:
        self._tape, self._on_call, self._on_problem = tape, on_call, on_problem
        self._modules: list[torch.nn.Module] = []
        self._model: Call | None = None
        self._place = 0
        self._layer: torch.nn.Module | None = None
        self._shell = False  # whether the model that is called comes to one linear layer inside it
        self._inner: list[Call] = []
        self._random: Any = None
        self._before: tuple[str, ...] = ()
        self._last: dict[str, Array] = {}

    @source_places.hook
    def enter(self, module: torch.nn.Module, args: Any) -> None:
        """A module is about to be called."""
        self._modules.append(module)
        if self._model is None and any(True for _ in module.parameters()):
            self._place = len(self._modules)
            self._layer = only_layer(module)
            lazy = any(isinstance(each, _UNSHAPED) for each in _tensors(module))
            self._model = Call(module, 0, modes=_modes(module), lazy=lazy)
            self._shell = self._layer not in (None, module)
            self._tape.off = not self._shell
            try:
                self._model.buffers = {} if lazy else self.buffers(module)
            except UnsupportedError as error:
                self._on_problem(f"in {type(module).__name__}, {error}")
            self._inner, self._tape.before = [], {} if self._shell else None
            self._random = _random_states()
        elif self._model is None:
            self._tape.module = module
        elif module is self._layer:
            made = (name for name in self._tape.before or () if name not in RESHAPING | _SAME_VALUES)
            self._before, self._tape.before = tuple(made) or ("forward",), None
        elif self._tape.before is not None and not any(True for _ in module.children()):
            self._tape.before[type(module).__name__] = None
            self._tape.inside = True

    @source_places.hook
    def leave(self, module: torch.nn.Module, args: Any, kwargs: Any, *returned: Any) -> None:
        """A module has returned, or raised: then PyTorch leaves the keywords out and gives ``None`` as the output."""
        output = returned[0] if returned else None
        self._modules.pop()
        self._tape.inside = False
        call, outermost = self._model, self._model is not None and len(self._modules) < self._place
        if outermost and call is not None and self._random != _random_states():
            self.chance("Python's or NumPy's random")
        if outermost:
            self._model, self._tape.off, self._tape.before = None, False, None
        elif call is None:
            self._tape.module = self._modules[-1] if self._modules else None
        if output is None or call is None:
            return
        try:
            if outermost:
                self._take(call, args, kwargs, output, shell=self._shell)
                for inner in self._inner:
                    inner.before = inner.before if _changed(call.inputs, inner.inputs) else ()
            elif module is self._layer:
                inner = Call(module, 0, chance=call.chance, before=self._before)
                self._inner.append(inner)
                self._take(inner, args, kwargs, output, shell=False)
        except UnsupportedError as error:
            self._on_problem(f"in {type(module).__name__}, {error}")

    def _take(self, call: Call, args: Any, kwargs: Any, output: Any, *, shell: bool) -> None:
        outputs = to_tree(output)
        if outputs is None:
            return
        if type(call.module) is torch.nn.Linear and kwargs.keys() == {"input"}:
            args, kwargs = (kwargs["input"],), {}  # its one argument, by whatever way it came
        call.inputs, call.arguments = taken(call.module, args, kwargs)
        call.outputs = outputs
        self._tape.returned(call, output, shell=self._shell)
        self._on_call(call)

    def chance(self, function: str) -> None:
        """A function draws random numbers; inside the model that is noted with the module that calls it."""
        if self._model is not None and not self._model.chance and not self._model.lazy:
            names = {id(module): name for name, module in self._model.module.named_modules()}
            inner = self._modules[-1] if len(self._modules) >= self._place else self._model.module
            name = names.get(id(inner), "")
            where = f"{name} ({type(inner).__name__})" if name else type(inner).__name__
            self._model.chance = f"{where}, by {function},"

    def buffers(self, module: torch.nn.Module) -> dict[str, Array]:
        """The module's own state by name; an array is the same object for as long as its values stay."""
        kept = {}
        for name, buffer in module.named_buffers():
            key, values = f"{id(module)}.{name}", to_array(buffer)
            last = self._last.get(key)
            kept[name] = last if last is not None and trees.same_array(last, values) else values
            self._last[key] = kept[name]
        return kept


def _random_states() -> Any:
    """Where the generators are that torch does not know; they are no part of a model that is compiled."""
    if torch.compiler.is_compiling():
        return None
    kind, key, *rest = np.random.get_state()
    return random.getstate(), kind, key.tobytes(), rest  # type: ignore[attr-defined]


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _changed(outer: Tree, inner: Tree) -> bool:
    """Whether a layer was given other values than the model about it, in whatever shape."""
    flat = [leaf.reshape(-1) for leaf in trees.leaves(outer)]
    return inner is not None and not any(trees.same_array(leaf, inner.reshape(-1)) for leaf in flat)


def only_layer(module: torch.nn.Module) -> torch.nn.Module | None:
    """The linear layer that owns all parameters of ``module``, where there is one."""
    own = {id(parameter) for parameter in module.parameters()}
    for inner in module.modules():
        if isinstance(inner, torch.nn.Linear) and own == {id(parameter) for parameter in inner.parameters()}:
            return inner
    return None


def _modes(module: torch.nn.Module) -> tuple[tuple[str, bool], ...]:
    return tuple((name, inner.training) for name, inner in module.named_modules() if _minds_mode(inner))


def _minds_mode(module: torch.nn.Module) -> bool:
    # A scripted module's class raises where it is asked for its forward.
    code = getattr(vars(type(module)).get("forward", module.forward), "__code__", None)
    own = not type(module).__module__.startswith("torch.nn.") and code is not None and "training" in code.co_names
    return own or isinstance(module, _BY_MODE)
