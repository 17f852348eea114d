"""Numbers that leave torch while a program runs: from which tensor, which element and which step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

from parity.capture.loss_recognition import RESHAPING, scaling
from parity.capture.operation_tape import Item, Output, Tape
from parity.recording import trees
from parity.recording.program_output import Source

# Operations that hand on the values of one tensor, some of them, in another shape or order.
_MOVING = RESHAPING | {"__getitem__", "detach", "clone", "cpu", "data", "T", "mT", "transpose", "permute", "select"}
_LARGEST = 1000  # elements of a tensor that are followed; PyTorch prints larger ones in parts
_KEPT = 100_000  # numbers that are remembered
_WAITING = 1000  # texts that may be printed yet, and tensors that may be the model's
_OPEN = 16  # numbers of which backward() will tell whether they are the loss


@dataclasses.dataclass(eq=False)
class Read:
    """What a number was read from; settled when the step or the run is over. ``kind`` is empty while not known."""

    kind: str = ""
    name: str = ""
    first: int = 0
    last: int = 0
    index: int = 0
    factor: float = 1.0
    weighted: bool = False
    outputs: Sequence[tuple[Any, int, int]] = ()


class Shown(NamedTuple):
    """A number: what it was read from, and what the program multiplied it with and divided it by."""

    read: Read
    factor: float = 1.0
    divisor: float = 1.0

    def source(self, evaluations: Mapping[int, int]) -> Source | None:
        """As a recording keeps it; ``evaluations`` are the places of calls that are kept as such, by identity."""
        read, factor = self.read, self.factor * self.read.factor
        for call, leaf, index in read.outputs:
            if id(call) in evaluations:
                return Source("evaluation", "", evaluations[id(call)], 0, leaf, index, False, factor, self.divisor)
            if call.used is not None:
                return Source("predictions", "", call.used, 0, leaf, index, False, factor, self.divisor)
        if not read.kind:
            return None
        return Source(read.kind, read.name, read.first, read.last, 0, read.index, read.weighted, factor, self.divisor)


def _quietly(method: Callable[..., None]) -> Callable[..., None]:
    """A method that follows what the program does and must not raise there: at worst, a number is not known."""

    @functools.wraps(method)
    def quiet(self: Reads, *args: Any) -> None:
        with contextlib.suppress(Exception):
            method(self, *args)

    return quiet


class Reads:
    """Follows what leaves torch as a Python number, a list, a NumPy array or text.

    Args:
        tape: what is known of tensors that derive from the model's output.
        done: how many steps were made.
    """

    def __init__(self, tape: Tape, done: Callable[[], int]) -> None:
        self._tape, self.done = tape, done
        self.sites: dict[tuple[Any, int], tuple[Any, list[Shown | None]]] = {}
        self.texts: deque[tuple[str, list[Shown | None], str]] = deque(maxlen=_WAITING)
        self._floats: dict[int, tuple[float, Shown]] = {}
        self._arrays: dict[int, tuple[Any, list[Shown | None]]] = {}
        self._losses: Any = WeakIdKeyDictionary()
        # Each of these keeps tensors alive.
        self._pending: deque[tuple[Any, Read]] = deque(maxlen=_OPEN)
        self._unplaced: deque[tuple[torch.Tensor, list[Read]]] = deque(maxlen=_WAITING)
        self._module: torch.nn.Module | None = None
        self._of_step: list[Read] = []
        self._backwards = 0
        self.read_losses: deque[tuple[Read, float]] = deque(maxlen=_KEPT)
        self.rows: dict[int, int] = {}

    # -- what the tape sees

    @_quietly
    def on_read(self, args: Sequence[Any], out: Any, frame: FrameType) -> None:
        """A tensor was turned into Python's numbers, an array or text."""
        tensor = args[0]
        if tensor.numel() > _LARGEST:
            return
        found: list[Shown | None] = [None if read is None else Shown(read) for read in self._of(tensor)]
        if isinstance(out, str):
            alone = len(args) > 1 and tensor.dim() == 0
            self.texts.append((out, found, (args[1] or "repr") if alone else ""))
            return
        self.sites[frame.f_code, frame.f_lasti] = out, found
        if isinstance(out, np.ndarray):
            self._arrays[id(out)] = weakref.ref(out), found
            if len(self._arrays) > _WAITING:
                self._arrays.pop(next(iter(self._arrays)))
            return
        for value, shown in zip(_flat(out), found, strict=False):
            if isinstance(value, float) and shown is not None:
                self._floats[id(value)] = value, shown
                if len(self._floats) > _KEPT:
                    self._floats.pop(next(iter(self._floats)))
        if isinstance(out, float) and found and found[0] is not None and found[0].read.kind in ("", "loss"):
            self.read_losses.append((found[0].read, out))

    def number(self, value: Any) -> Shown | None:
        """What this very number was read from."""
        known = self._floats.get(id(value))
        return known[1] if known is not None and known[0] is value else None

    def array(self, value: Any) -> list[Shown | None] | None:
        """What the elements of this very array were read from."""
        known = self._arrays.get(id(value))
        return known[1] if known is not None and known[0]() is value else None

    # -- what happens in the training

    @_quietly
    def backward(self, value: Any, root: torch.Tensor, seed: float) -> None:
        """The loss of the step to come is known; of several that are added up, none is the step's alone."""
        step = self.done()
        self._backwards += 1
        if self._backwards > 1:
            for read in self._of_step:
                read.kind = ""
            return
        chain = list(_chain(value))
        for tensor, known in self._tape.known():
            for part, factor in chain:
                if _same(known, part):
                    self._losses[tensor] = Read("loss", "", step, step, 0, factor / seed)
        self._losses[root] = Read("loss", "", step, step, 0, 1.0 / seed)
        self._of_step = [read for read in self._losses.values() if read.first == step]
        for known, read in self._pending:
            for part, factor in chain:
                if _same(known, part):
                    read.kind, read.first, read.last, read.factor = "loss", step, step, factor / seed
                    self._of_step.append(read)

    @_quietly
    def begin(self, module: torch.nn.Module) -> None:
        """The model is known: what was read before may have been its weights."""
        self._module = module
        for tensor, reads in self._unplaced:
            for read, known in zip(reads, self._placed(tensor, 0) or (), strict=False):
                read.kind, read.name, read.index = known.kind, known.name, known.index
        self._unplaced.clear()

    @_quietly
    def stepped(self, calls: Sequence[Any], rows: int) -> None:
        """A step is made, of these calls of the model; the only one's predictions are the step's."""
        if len(calls) == 1:
            calls[0].used = self.done()
        self.rows[self.done()] = rows
        self._pending.clear()
        self._of_step, self._backwards = [], 0

    # -- what a tensor is

    def _of(self, tensor: torch.Tensor) -> Sequence[Read | None]:
        size = tensor.numel()
        if not 0 < size <= _LARGEST or tensor.layout is not torch.strided or not tensor.is_floating_point():
            return [None] * min(size, _LARGEST)
        if size == 1 and (loss := self._losses.get(tensor)) is not None:
            return [loss]
        value = self._tape.value(tensor)
        if made := _outputs(value, size):
            return [Read(outputs=each) for each in made]
        if size == 1 and isinstance(value, Item):
            read = Read(first=self.done())
            self._pending.append((value, read))
            return [read]
        if self._module is None:
            reads = [Read() for _ in range(size)]
            self._unplaced.append((tensor.detach(), reads))
            return reads
        return self._placed(tensor, self.done()) or [None] * size

    def _placed(self, tensor: torch.Tensor, step: int) -> list[Read] | None:
        """The elements of the model's tensor whose memory this is."""
        assert self._module is not None
        memory = tensor.untyped_storage().data_ptr()
        for kind, name, owner in self._owned():
            if owner.untyped_storage().data_ptr() == memory and owner.is_contiguous():
                places = _places(tensor) - owner.storage_offset()
                if places.min() >= 0 and places.max() < owner.numel():
                    at = step - (kind == "gradients" and not self._backwards)
                    return [Read(kind, name, at, at, int(place)) for place in places]
        return None

    def _owned(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        assert self._module is not None
        for name, parameter in self._module.named_parameters():
            yield "weights", name, parameter
            if parameter.grad is not None and parameter.grad.layout is torch.strided:
                yield "gradients", name, parameter.grad
        for name, buffer in self._module.named_buffers():
            yield "buffers", name, buffer


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _places(tensor: torch.Tensor) -> Any:
    """Where in its memory each element is, row by row."""
    places = np.full(tuple(tensor.shape), tensor.storage_offset(), np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        places = places + (np.arange(size) * stride).reshape((-1,) + (1,) * (tensor.dim() - 1 - axis))
    return places.reshape(-1)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, Item) and isinstance(b, Item) and a.operation is b.operation and a.path == b.path


def _chain(value: Any) -> Iterator[tuple[Any, float]]:
    """What a loss was before it was scaled, step by step, with what it is times the loss."""
    factor = 1.0
    while isinstance(value, Item):
        yield value, factor
        operation = value.operation
        inner = [each for each in operation.args if isinstance(each, Item)]
        if len(inner) != 1 or operation.kwargs or operation.name not in _MOVING - {"__getitem__"}:
            times = scaling(operation.name, operation.function, operation.args, inner[0]) if len(inner) == 1 else None
            if times is None or operation.kwargs:
                return
            factor /= times
        value = inner[0]


def _outputs(value: Any, size: int) -> list[list[tuple[Any, int, int]]]:
    """Of each element, the calls of the model that gave it, and where in what they gave."""
    found = [_moved(value, inside) for inside in (False, True)]
    known = [(call, leaf, places) for call, leaf, places in filter(None, found) if places.size == size]
    return [[(call, leaf, int(places[place])) for call, leaf, places in known] for place in range(size if known else 0)]


def _moved(value: Any, inside: bool) -> tuple[Any, int, Any] | None:
    """The call of the model whose output this is, a part of it or in another shape: which array, which elements."""
    steps = []
    while True:
        if isinstance(value, Output) and not (inside and isinstance(value.inner, Item | Output)):
            break
        if isinstance(value, Output):
            value = value.inner
            continue
        if not isinstance(value, Item) or value.operation.name not in _MOVING or not value.operation.args:
            return None
        steps.append(value)
        value = value.operation.args[0]
    leaves = list(trees.paths(value.call.outputs))
    leaf = next((place for place, (path, _) in enumerate(leaves) if path == value.path), None)
    if leaf is None:
        return None
    places: Any = torch.arange(leaves[leaf][1].size).reshape(leaves[leaf][1].shape)
    for item in reversed(steps):
        operation = item.operation
        if any(isinstance(each, Item | Output) for each in operation.args[1:]):
            return None
        places = trees.found(operation.function(places, *operation.args[1:], **operation.kwargs), item.path)
    return value.call, leaf, places.reshape(-1).numpy()
