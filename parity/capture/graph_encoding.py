"""What a tape holds of a step, as a graph of plain values and the arrays that go into it."""

from __future__ import annotations

import dataclasses
import numbers as number_types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from parity._errors import UnsupportedError
from parity.capture.graph_values import Call, Leaf, Lost, Made, Outside, State
from parity.capture.torch_tensors import to_array
from parity.recording.graph import DTYPE, ELLIPSIS, NUMBER, SLICE, Graph, Operation, Plain, Ref
from parity.recording.recording import Array

# Arguments that say where and how a tensor is kept, and not what is in it.
_NOT_KEPT = {"device", "memory_format", "non_blocking", "layout", "pin_memory", "requires_grad", "out"}


class Interned:
    """Arrays of tensors: one array a tensor for as long as it stays as it is."""

    def __init__(self) -> None:
        self._known: Any = WeakIdKeyDictionary()

    def array(self, value: Outside) -> Array:
        """The values of a tensor that came from outside.

        Raises:
            UnsupportedError: it was changed since it was used, or NumPy has no such tensors.
        """
        if value.changed:
            raise UnsupportedError(
                "a tensor that goes into the loss is changed in place before the step. Change a copy, made with clone()"
            )
        if value.kept is not None:
            return to_array(value.kept)
        version, array = self._known.get(value.tensor, (None, None))
        if version != value.version:
            array = to_array(value.tensor)
            self._known[value.tensor] = (value.version, array)
        kept: Array = array
        return kept


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """One step: its graph, the functions of its operations, and what goes in.

    Attributes:
        graph: numbers in it are places in ``numbers``.
        functions: of each operation.
        inputs: the tensors that came from elsewhere.
        numbers: the floating numbers among the arguments.
        states: by name, the buffers that operations change.
    """

    graph: Graph
    functions: tuple[Callable[..., Any], ...]
    inputs: tuple[Array, ...]
    numbers: tuple[float, ...]
    states: dict[str, State]


def encode(
    roots: Sequence[tuple[Any, float]],
    outputs: Sequence[Any],
    interned: Interned,
    leaf_name: Callable[[torch.Tensor], str | None],
    state_name: Callable[[torch.Tensor], str],
) -> Encoded:
    """Write down what leads to the roots.

    Args:
        roots: values of the tape, and what each is multiplied with.
        outputs: what models returned; those that do not lead to a root are left out.
        interned: arrays of tensors.
        leaf_name: the name of a leaf; ``None`` for one that is not trained.
        state_name: the name of a buffer.

    Raises:
        UnsupportedError: a tensor on the way is of unknown origin, or cannot be kept.
    """
    return _Encoder(interned, leaf_name, state_name).encode(roots, outputs)


class _Encoder:
    def __init__(self, interned: Interned, leaf_name: Any, state_name: Any) -> None:
        self._interned, self._leaf_name, self._state_name = interned, leaf_name, state_name
        self._inputs: dict[Any, int] = {}
        self._arrays: list[Array] = []
        self._held: list[Any] = []
        self._numbers: list[float] = []
        self._states: dict[str, State] = {}
        self._places: dict[Call, int] = {}

    def encode(self, roots: Sequence[tuple[Any, float]], outputs: Sequence[Any]) -> Encoded:
        calls = sorted(reached([value for value, _ in roots]), key=lambda call: call.number)
        self._places = {call: place for place, call in enumerate(calls)}
        operations = tuple(self._operation(call) for call in calls)
        used = [value for value in outputs if isinstance(value, Made) and value.call in self._places]
        graph = Graph(
            operations=operations,
            roots=tuple((self._plain(value), self._plain(seed)) for value, seed in roots),
            outputs=tuple(self._plain(value) for value in dict.fromkeys(used)),
            after=self._after(calls),
        )
        functions = tuple(call.function for call in calls)
        return Encoded(graph, functions, tuple(self._arrays), tuple(self._numbers), self._states)

    def _after(self, calls: Sequence[Call]) -> dict[str, Plain]:
        """The last value of each state."""
        after, names = {}, {}
        for call in calls:
            if call.name not in ("batch_norm", "instance_norm"):
                continue
            for order, value in enumerate(call.args[3:5]):
                if isinstance(value, State):
                    names[call, order] = self._name(value)
                elif isinstance(value, Made) and (value.call, value.path[0] - 1) in names:
                    names[call, order] = names[value.call, value.path[0] - 1]
                if (call, order) in names:
                    after[names[call, order]] = Ref("made", self._places[call], (order + 1,)).plain()
        return after

    def _operation(self, call: Call) -> Operation:
        args, kwargs = call.args, call.kwargs
        name = call.name
        if name == "masked_select" and _shape(args[0]) == _shape(args[1]):
            name = "__getitem__"
        if name in ("__getitem__", "__setitem__"):
            args = (args[0], self._index(args[1]), *args[2:])
        kept = {key: value for key, value in kwargs.items() if key not in _NOT_KEPT}
        try:
            return Operation(name, self._plain(tuple(args)), self._plain(kept), call.in_place, call.stops, call.place)
        except UnsupportedError as error:
            where = f". In {call.place}" if call.place else ""
            raise UnsupportedError(f"{error}{where}") from None

    def _index(self, index: Any) -> Any:
        """An index with the places of a mask's true elements in place of the mask."""
        items = index if isinstance(index, tuple) else (index,)
        found: list[Any] = []
        for item in items:
            if isinstance(item, Outside) and item.values.dtype is torch.bool:
                with torch._C.DisableTorchFunction():
                    found.extend(Outside(place, 0, place) for place in item.values.nonzero(as_tuple=True))
            elif isinstance(item, Made) and _is_mask(item):
                raise UnsupportedError(
                    "elements are chosen by a mask that comes from the weights: how many there are is not known before"
                )
            else:
                found.append(item)
        return tuple(found) if isinstance(index, tuple) or len(found) != 1 else found[0]

    def _plain(self, value: Any) -> Plain:
        if isinstance(value, Made):
            return Ref("made", self._places[value.call], tuple(value.path)).plain()
        if isinstance(value, Leaf):
            name = self._leaf_name(value.tensor)
            if name is not None:
                return Ref("leaf", name).plain()
            value = Outside(value.tensor, value.tensor._version)
        if isinstance(value, State):
            return Ref("state", self._name(value)).plain()
        if isinstance(value, Outside):
            return self._input(value)
        if isinstance(value, Lost):
            raise UnsupportedError(value.reason)
        return self._constant(value)

    def _constant(self, value: Any) -> Plain:
        if isinstance(value, bool | str) or value is None:
            return value
        if isinstance(value, number_types.Integral):
            return int(value)
        if isinstance(value, number_types.Real):
            self._numbers.append(float(value))
            return {NUMBER: len(self._numbers) - 1}
        if isinstance(value, torch.dtype):
            return {DTYPE: str(value).removeprefix("torch.")}
        if isinstance(value, slice):
            return {SLICE: tuple(self._plain(item) for item in (value.start, value.stop, value.step))}
        if value is ...:
            return {ELLIPSIS: True}
        if isinstance(value, dict):
            return {str(key): self._plain(item) for key, item in value.items() if key not in _NOT_KEPT}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self._plain(item) for item in value)
        if isinstance(value, torch.device | torch.memory_format | torch.layout):
            return None
        if isinstance(value, torch.Generator):
            return None
        raise UnsupportedError(f"a torch function is given a {type(value).__name__}, which a recording cannot keep")

    def _name(self, value: State) -> str:
        name: str = self._state_name(value.tensor)
        self._states.setdefault(name, value)
        return name

    def _input(self, value: Outside) -> Plain:
        key = id(value.tensor), value.version, id(value.kept)
        if key not in self._inputs:
            self._held.append(value)
            self._inputs[key] = len(self._arrays)
            self._arrays.append(self._interned.array(value))
        return Ref("input", self._inputs[key]).plain()


def _shape(value: Any) -> Any:
    """The shape of a tensor from outside, or of a leaf."""
    return value.tensor.shape if isinstance(value, Leaf | Outside) else None


def _is_mask(value: Made) -> bool:
    return value.call.name in ("gt", "lt", "ge", "le", "eq", "ne", "logical_and", "logical_or", "logical_not", "isnan",
                               "isfinite", "__and__", "__or__", "__invert__", "bitwise_and", "bitwise_or",
                               "bitwise_not", "greater", "less")  # fmt: skip


def reached(roots: Sequence[Any]) -> list[Call]:
    """The calls that lead to some values."""
    found: dict[Call, None] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Made) and value.call not in found:
            found[value.call] = None
            waiting.extend(values((value.call.args, value.call.kwargs)))
    return list(found)


def values(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        for item in nested.values():
            yield from values(item)
    elif isinstance(nested, list | tuple):
        for item in nested:
            yield from values(item)
    elif isinstance(nested, slice):
        yield from (nested.start, nested.stop, nested.step)
    else:
        yield nested
