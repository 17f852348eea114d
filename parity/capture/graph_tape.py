"""The tape of a whole step: every torch function of tensors that derive from a leaf, seen by a function mode."""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from parity.capture import drawn_dropout, random_operations, source_places
from parity.capture.graph_values import Call, Gradient, Leaf, Lost, Made, Outside, State
from parity.capture.operation_tape import name_of, tensors_in, version_of
from parity.capture.torch_tensors import tensors_of

# Modules whose functions are written in Python over others: those are seen in their place.
_OPENED = (torch.nn.functional, torch.functional, torch._tensor)
_OPENED_NAMES = {module.__name__ for module in _OPENED}
_ASKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
# What says something about a tensor, and computes nothing.
_SAYING = {"size", "dim", "numel", "stride", "is_floating_point", "is_complex", "element_size", "storage_offset",
           "get_device", "is_contiguous", "register_hook", "retain_grad", "__len__", "__repr__", "__format__", "item",
           "tolist", "__float__", "__int__", "__bool__", "__index__", "numpy", "__array__", "__hash__", "__deepcopy__",
           "__dir__", "_is_view", "is_set_to", "is_same_size", "data_ptr", "untyped_storage", "equal", "allclose",
           "is_nonzero", "__contains__", "__reduce_ex__", "storage", "_version", "is_inference",
           "_set_grad_enabled"}  # fmt: skip
# Where normalisations take their running mean and variance.
_STATISTICS = (3, 4)
_SETTING = {"__setitem__", "__set__"}


class GraphTape(TorchFunctionMode):
    """Notes every torch function of tensors that derive from a leaf, until :meth:`forget`.

    Args:
        on_backward: a context manager, held around ``backward``; it is given roots, their values and gradients.
        on_change: called with a leaf that the program itself changes, and what it becomes.
        on_forward: called before an operation of leaves that has a gradient.
        is_own_gradient: whether a leaf's gradient is what ``backward`` made of it, or clipped.
    """

    def __init__(
        self,
        on_backward: Callable[..., contextlib.AbstractContextManager[None]],
        on_change: Callable[[torch.Tensor, Any], None] = lambda *_: None,
        on_forward: Callable[[], None] = lambda: None,
        is_own_gradient: Callable[[torch.Tensor, torch.Tensor], bool] = lambda *_: True,
    ) -> None:
        super().__init__()
        self._on_backward, self._on_change, self._on_forward = on_backward, on_change, on_forward
        self._is_own_gradient = is_own_gradient
        self._values: Any = WeakIdKeyDictionary()
        self._leaves: Any = WeakIdKeyDictionary()
        self._numbers = itertools.count()
        self._opening: list[Any] = []
        self.off = False
        self._before_forward = True
        self.in_step = False  # inside an optimizer's step, where only a closure's operations count
        self.places = True  # whether the program's lines are noted

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.off or (self.in_step and not torch.is_grad_enabled()):
            return func(*args, **kwargs)
        name = name_of(func)
        if name == "backward" or func is torch.Tensor.backward:
            return self._backward(func, args, kwargs)
        if func is torch.autograd.grad:
            return self._grad(func, args, kwargs)
        if name in _SAYING or func in (torch.autograd.backward, torch.is_grad_enabled):
            return func(*args, **kwargs)
        if not self._derives(args, kwargs):
            return func(*args, **kwargs)
        if name == "__get__" and _attribute(func) == "grad":
            return self._gradient(func, args)
        if torch.is_grad_enabled() and name != "__set__":
            self._on_forward()
            if self._before_forward:
                # What was made without a gradient before a step's forward pass is data to it.
                self._values, self._before_forward = WeakIdKeyDictionary(), False
        is_python = isinstance(func, types.FunctionType) and func.__module__ in _OPENED_NAMES
        # What a method in Python does in C comes by here under the method's own name.
        if is_python and func not in self._opening:
            return self._open(func, args, kwargs)
        return self._noted(func, name, args, kwargs)

    def _open(self, func: Any, args: Any, kwargs: Any) -> Any:
        """See what a function that is written in Python calls."""
        self._opening.append(func)
        try:
            with self, _opened():
                return func(*args, **kwargs)
        finally:
            self._opening.pop()

    def _noted(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        chance = random_operations.draws(name, args, kwargs)
        if chance and chance.dropout and name.strip("_") in drawn_dropout.PRODUCTS:
            return self._dropped(func, args, kwargs)
        if chance and name == drawn_dropout.ATTENTION:
            return self._attended(func, args, kwargs)
        changes = name in _SETTING or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
        noted = self._valued(args, kept=changes), self._valued(kwargs)
        tracks = _tracks_statistics(name, args)
        if tracks:
            noted = self._with_states(noted, args)
        out = func(*args, **kwargs)
        if name == "__get__" and not isinstance(out, torch.Tensor):
            return out
        if chance:
            for _, tensor in tensors_of(out):
                if isinstance(self.value(tensor), Leaf):
                    continue
                self.put(tensor, Lost(f"{chance.name} draws random numbers") if tensor.requires_grad else None)
            return out
        self._note(out, func, name, noted, args, tracks)
        return out

    def _gradient(self, func: Any, args: Any) -> Any:
        out = func(*args)
        if isinstance(out, torch.Tensor) and isinstance(self.value(args[0]), Leaf):
            known = self._values.get(out)
            if known is None or known[1] != version_of(out):
                is_own = self._is_own_gradient(args[0], out)
                self.put(out, _copied(args[0], out) if is_own else Lost("a gradient is changed by hand"))
        return out

    def _dropped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Dropout as a product with what it draws."""
        first = args[0]
        value = self.value(first)
        draw = drawn_dropout.draw_of(func, first, args[1:], kwargs)
        out = func(*args, **kwargs)
        call = self.call(torch.mul, "mul", (value, Outside(draw, version_of(draw))), {}, in_place=False)
        self.put(first if out is first else out, Made(call, ()))
        return out

    def _attended(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Attention whose weights are multiplied with what dropout draws."""
        given = drawn_dropout.attention_arguments(args, kwargs)
        draw = drawn_dropout.attention_draw(given)
        noted = {key: self._valued(value) for key, value in given.items() if key != "dropout_p"}
        out = func(*args, **kwargs)
        if not drawn_dropout.is_followed(out, given, draw):
            self.put(out, Lost("scaled_dot_product_attention draws random numbers"))
            return out
        noted["draw"] = Outside(draw, version_of(draw))
        self.put(out, Made(self.call(drawn_dropout.attention, "attention", (), noted, in_place=False), ()))
        return out

    def _with_states(self, noted: Any, args: Any) -> Any:
        """Take running statistics that a call changes for states: its results after the first are their next values."""
        places = list(noted[0])
        for place in _STATISTICS:
            if not isinstance(places[place], Made):
                with torch._C.DisableTorchFunction():
                    places[place] = State(args[place], args[place].detach().clone())
        return tuple(places), noted[1]

    def value(self, tensor: torch.Tensor) -> Any:
        """What is known of a tensor."""
        if tensor.is_leaf and (tensor.requires_grad or isinstance(tensor, torch.nn.Parameter)):
            if tensor not in self._leaves:
                self._leaves[tensor] = Leaf(tensor)
            return self._leaves[tensor]
        entry = self._values.get(tensor)
        if entry is not None:
            value, version = entry
            if version_of(tensor) == version:
                return value
            if not isinstance(value, Outside):
                return Lost("a tensor was changed in place through a view of it")
        if tensor.requires_grad:
            made = tensor.grad_fn.name() if tensor.grad_fn is not None else "another thread"
            return Lost(f"a tensor was made where torch's functions are not seen, by {made}")
        outside = Outside(tensor, version_of(tensor))
        self.put(tensor, outside)
        return outside

    def leaves(self) -> list[torch.Tensor]:
        """All leaves that were seen."""
        return [leaf.tensor for leaf in self._leaves.values()]

    def forget(self) -> None:
        """Let go of all that was noted."""
        self._values, self._before_forward = WeakIdKeyDictionary(), True

    def put(self, tensor: torch.Tensor, value: Any) -> None:
        if value is None:
            value = Outside(tensor, version_of(tensor))
        self._values[tensor] = (value, version_of(tensor))

    def _derives(self, args: Any, kwargs: Any) -> bool:
        for tensor in tensors_in((args, kwargs)):
            if tensor.requires_grad:
                return True
            entry = self._values.get(tensor)
            if entry is not None and not isinstance(entry[0], Outside):
                return True
        return False

    def _valued(self, value: Any, *, kept: bool = False) -> Any:
        """Arguments with what is known of the tensors among them; ``kept``: the first of them is about to change."""
        if isinstance(value, torch.Tensor):
            known = self.value(value)
            if kept and isinstance(known, Outside):
                with torch._C.DisableTorchFunction():
                    return Outside(value, known.version, value.detach().clone())
            return known
        if isinstance(value, dict):
            return {key: self._valued(item) for key, item in value.items() if key != "out"}
        if isinstance(value, list | tuple):
            items = [self._valued(item, kept=kept and not place) for place, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, slice):
            return slice(*(self._valued(item) for item in (value.start, value.stop, value.step)))
        return value

    def call(self, func: Any, name: str, args: Any, kwargs: Any, *, in_place: bool) -> Call:
        place = source_places.told().removeprefix(". In ") if self.places else ""
        stops = not torch.is_grad_enabled()
        return Call(next(self._numbers), func, name, args, kwargs, in_place, stops, place)

    def _note(self, out: Any, func: Any, name: str, noted: Any, args: Any, tracks: bool) -> None:
        first: Any = args[0] if args else None
        setting = name in _SETTING
        in_place = setting or (isinstance(first, torch.Tensor) and out is first)
        call = self.call(func, name, noted[0], noted[1], in_place=in_place)
        if setting and _attribute(func) == "data" and isinstance(noted[0][0], Leaf):
            self._on_change(first, noted[0][1])
            return
        if in_place and isinstance(noted[0][0], Leaf):
            if not setting:
                self._on_change(first, Made(call, ()))
            elif _attribute(func) == "grad" and isinstance(args[1], torch.Tensor):
                self._set_gradient(first, args[1], noted[0][1])
            return
        if setting:
            known = name == "__setitem__"
            self.put(first, Made(call, ()) if known else Lost("an attribute of a tensor was set"))
            return
        if in_place and isinstance(noted[0][0], Made) and noted[0][0].call.name in ("data", "detach"):
            owner = noted[0][0].call.args[0]
            if isinstance(owner, Leaf):
                self._on_change(owner.tensor, Made(call, ()))
        is_data = _is_data(call)
        for path, tensor in tensors_of(out):
            # What no gradient goes through may be fed as it is, wherever it came from.
            is_given = is_data and not tensor.requires_grad
            self.put(tensor, None if is_given else Made(call, (0,) if tracks else path))
        for order, place in enumerate(_STATISTICS if tracks else ()):
            self.put(args[place], Made(call, (order + 1,)))

    def _set_gradient(self, leaf: torch.Tensor, gradient: torch.Tensor, value: Any) -> None:
        if isinstance(value, Gradient) and value.leaf is leaf:
            self.put(gradient, value)
        else:
            self._on_change(leaf, Lost("a gradient is put in the place of what backward() made"))

    def _backward(self, func: Any, args: Any, kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("tensors")
        roots = [first] if isinstance(first, torch.Tensor) else list(first)
        given = args[1] if len(args) > 1 else kwargs.get("gradient", kwargs.get("grad_tensors"))
        seeds = given if isinstance(given, list | tuple) else [given] * len(roots)
        with self._on_backward([(root, self.value(root), seed) for root, seed in zip(roots, seeds, strict=True)]):
            return func(*args, **kwargs)

    def _grad(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("outputs", "inputs", "grad_outputs"), args, strict=False)) | kwargs
        roots, leaves = (_listed(given[key]) for key in ("outputs", "inputs"))
        seeds = _listed(given.get("grad_outputs")) if given.get("grad_outputs") is not None else [None] * len(roots)
        known = [self.value(leaf) for leaf in leaves]
        if given.get("create_graph") or not all(isinstance(value, Leaf) for value in known):
            out = func(*args, **kwargs)
            for tensor in tensors_in(out):
                if tensor.requires_grad:
                    self.put(tensor, Lost("a gradient of a gradient is taken"))
            return out
        values = [(root, self.value(root), seed) for root, seed in zip(roots, seeds, strict=True)]
        with self._on_backward(values, leaves):
            out = func(*args, **kwargs)
        for leaf, gradient in zip(leaves, out, strict=True):
            if gradient is not None:
                self.put(gradient, _copied(leaf, gradient))
        return out


def _is_data(call: Call) -> bool:
    """Whether what a call gives, and no gradient goes through, is data to the step.

    What is made under ``no_grad`` is, but for what weights are moved by: made of gradients, or of weights beside those.
    """
    given = [*call.args, *call.kwargs.values()]
    if any(isinstance(value, Lost) for value in given):
        return True
    if not call.stops or call.in_place or call.name in ("data", "detach"):
        return False
    return not any(isinstance(value, Gradient) or (isinstance(value, Made) and value.call.stops) for value in given)


def _attribute(func: Any) -> str:
    """The attribute that a function gets or sets."""
    return str(getattr(getattr(func, "__self__", None), "__name__", ""))


def _copied(leaf: torch.Tensor, gradient: torch.Tensor) -> Gradient:
    with torch._C.DisableTorchFunction():
        return Gradient(leaf, gradient.detach().clone())


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def _tracks_statistics(name: str, args: Any) -> bool:
    """Whether a normalisation takes its own statistics and changes the running ones that it is given."""
    return name in ("batch_norm", "instance_norm") and bool(args[5]) and args[3] is not None


@contextlib.contextmanager
def _opened() -> Iterator[None]:
    """Functions that are written in Python do not hand themselves to the mode, so that it sees what they call."""
    before = [(module, name, getattr(module, name)) for module in _OPENED for name in _ASKS if hasattr(module, name)]
    for module, name, _ in before:
        setattr(module, name, lambda *_: False)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
