"""The loss as a function of what the model gave: the operations between the two, to be read and to be run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity.capture.operation_tape import Item, Lost, Operation, Output, Outside
from parity.capture.torch_tensors import to_array
from parity.recording.recording import Tree
from parity.recording.trees import Path, found


@dataclasses.dataclass(frozen=True)
class Ref:
    """Where an operation's tensor comes from: the model's output, a target by number, or an earlier operation."""

    kind: str
    number: int = 0
    path: Path = ()

    def __str__(self) -> str:
        inside = "".join(f"[{key!r}]" for key in self.path)
        return f"{self.kind}{self.number if self.kind != 'predictions' else ''}{inside}"


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One operation of a :class:`Loss`, its tensors replaced by :class:`Ref`."""

    name: str
    function: Callable[..., Any]
    args: Any
    kwargs: Any
    in_place: bool
    module: torch.nn.Module | None

    def __str__(self) -> str:
        if self.name == "__getitem__" and len(self.args) == 2:
            return f"{_readable(self.args[0])}[{_index(self.args[1])}]"
        given = [_readable(value) for value in self.args]
        given += [f"{key}={_readable(value)}" for key, value in self.kwargs.items() if value is not None]
        return f"{self.name}({', '.join(given)})"


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """A loss, from the output of one call of the model and the tensors that came in beside it.

    Attributes:
        lines: its operations in the order in which they were made.
        root: which of them it is.
        call: the call of the model it was taken of.
        targets: the tensors from outside, in the order in which they enter.
        seed: what ``backward`` was given; 1 where it was given nothing.
        value: the loss itself.
    """

    lines: tuple[Line, ...]
    root: Ref
    call: Any
    targets: tuple[torch.Tensor, ...]
    seed: float
    value: torch.Tensor

    def of(self, predictions: Tree, targets: Sequence[torch.Tensor], ref: Ref | None = None) -> torch.Tensor:
        """The loss of other predictions and targets; ``predictions`` a tree of tensors as the model returns it.

        With ``ref``, what stands there instead of the loss.
        """
        made: list[Any] = []

        def value(ref: Any) -> Any:
            if not isinstance(ref, Ref):
                return ref
            if ref.kind == "predictions":
                return found(predictions, ref.path)
            return targets[ref.number] if ref.kind == "target" else found(made[ref.number], ref.path)

        wanted = self.root if ref is None else ref
        for line in self.lines[: wanted.number + 1 if wanted.kind == "made" else 0]:
            args, kwargs = replaced(line.args, value), replaced(line.kwargs, value)
            if line.in_place:
                args = (args[0].clone(), *args[1:])
            out = line.function(*args, **kwargs)
            made.append(args[0] if line.name == "__setitem__" else out)
        result: torch.Tensor = value(wanted)
        return result if ref is not None or self.seed == 1.0 else self.seed * result

    def arrays(self) -> Tree:
        """The targets as a recording keeps them: one array, a tuple of several, or an empty one."""
        arrays = tuple(to_array(target) for target in self.targets)
        return arrays[0] if len(arrays) == 1 else arrays

    @property
    def wiring(self) -> tuple[Any, ...]:
        """What is called on what, without the constants."""
        lines = tuple((line.name, tuple(refs((line.args, line.kwargs)))) for line in self.lines)
        return (lines, self.root)

    @property
    def constants(self) -> tuple[Any, ...]:
        """The constants of each operation, in a form that can be compared."""
        return (*((line.name, _plain((line.args, line.kwargs))) for line in self.lines), ("backward", self.seed))


def loss_of(value: Any, root: torch.Tensor, seed: Any, *, layers: bool = False) -> Loss:
    """The loss that ``value`` of the tape is.

    Args:
        value: what the tape knows of ``root``.
        root: the tensor that ``backward`` was called on.
        seed: the gradient it was given.
        layers: whether to go on into the shell of a linear layer, to what the layer itself gave.

    Raises:
        UnsupportedError: it is not a function of one call's output and of constants.
    """
    if root.numel() != 1:
        raise UnsupportedError(
            f"backward() is called on a tensor of shape {tuple(root.shape)}. A loss is a single number: take its mean "
            "or its sum first"
        )
    operations: dict[Operation, None] = {}
    _gather(_inner(value, layers), layers, operations)
    ordered = sorted(operations, key=lambda operation: operation.number)
    places = {operation: place for place, operation in enumerate(ordered)}
    calls: dict[Any, None] = {}
    used = [value, *_values([(operation.args, operation.kwargs) for operation in operations])]
    called = any(isinstance(_inner(each, layers), Output) for each in used)
    targets: dict[torch.Tensor, int] = {}

    def ref(value: Any) -> Any:
        value = _inner(value, layers)
        if isinstance(value, Output):
            calls[value.call] = None
            return Ref("predictions", 0, value.path)
        if isinstance(value, Item):
            return Ref("made", places[value.operation], value.path)
        if isinstance(value, Outside):
            _check_outside(value, called)
            return Ref("target", targets.setdefault(value.tensor, len(targets)))
        if isinstance(value, Lost):
            raise UnsupportedError(f"the loss cannot be followed: {value.reason}. Make new tensors instead")
        return value

    lines = tuple(
        Line(one.name, one.function, replaced(one.args, ref), replaced(one.kwargs, ref), one.in_place, one.module)
        for one in ordered
    )
    own = ref(value)
    if drawing := [one.name for one in ordered if one.chance]:
        raise UnsupportedError(
            f"the loss draws random numbers ({drawing[0]}), which no two frameworks draw alike. Leave it out"
        )
    if len(calls) != 1:
        raise UnsupportedError(_not_one(list(calls)))
    factor = 1.0 if seed is None else float(seed)
    return Loss(lines, own, next(iter(calls)), tuple(targets), factor, root.detach())


def _check_outside(value: Outside, called: bool) -> None:
    shape = tuple(value.tensor.shape)
    if value.tensor.requires_grad:
        kind = "a parameter" if isinstance(value.tensor, torch.nn.Parameter) else "a tensor"
        what = f"the loss takes {kind} of shape {shape} that is trained or was made of what is trained"
        if not called:
            raise UnsupportedError(
                f"{what}, and no module's output: parity records modules that are called, as model(x), and neither "
                "model.forward(x) nor plain tensors. Call the model, or make the tensors a torch.nn.Module's parameters"
            )
        raise UnsupportedError(
            f"{what}, beside the model's output. Parity records losses of one call's output and data: compute it "
            "inside the model and return it beside the output; a penalty on squared weights can be the optimizer's "
            "weight_decay"
        )
    if value.changed:
        raise UnsupportedError(
            f"a tensor of shape {shape} that the loss was given was changed in place before backward(). Make a new one"
        )


def _not_one(calls: list[Any]) -> str:
    names = list(dict.fromkeys(type(call.module).__name__ for call in calls))
    if not calls:
        return "backward() was called on something that was not taken of the output of a module with parameters"
    if len({id(call.module) for call in calls}) > 1:
        return f"one loss is taken of several models ({', '.join(names)}). Put them into one module"
    return f"one loss is taken of {len(calls)} calls of {names[0]}. Call it once, with the rows of all"


def _inner(value: Any, layers: bool) -> Any:
    while layers and isinstance(value, Output) and isinstance(value.inner, Item | Output):
        value = value.inner
    return value


def _gather(value: Any, layers: bool, operations: dict[Operation, None]) -> None:
    waiting = [value]
    while waiting:
        value = _inner(waiting.pop(), layers)
        if isinstance(value, Item) and value.operation not in operations:
            operations[value.operation] = None
            waiting.extend(_values((value.operation.args, value.operation.kwargs)))


def _values(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    if isinstance(nested, list | tuple):
        for item in nested:
            yield from _values(item)
    else:
        yield nested


def refs(nested: Any) -> Iterator[Ref]:
    """The places that an operation's tensors come from."""
    return (value for value in _values(nested) if isinstance(value, Ref))


def replaced(nested: Any, function: Any) -> Any:
    """``function`` of everything in nested tuples, lists and dicts."""
    if isinstance(nested, dict):
        return {key: replaced(item, function) for key, item in nested.items()}
    if isinstance(nested, list | tuple) and type(nested) in (list, tuple):
        items = [replaced(item, function) for item in nested]
        return items if isinstance(nested, list) else tuple(items)
    return function(nested)


def _plain(nested: Any) -> Any:
    if isinstance(nested, dict):
        return tuple((key, _plain(item)) for key, item in nested.items())
    if isinstance(nested, list | tuple):
        return tuple(_plain(item) for item in nested)
    if isinstance(nested, slice):
        return ("slice", nested.start, nested.stop, nested.step)
    return nested if nested is None or isinstance(nested, bool | int | float | str) else str(nested)


def _index(value: Any) -> str:
    if isinstance(value, tuple) and value:
        return ", ".join(map(_index, value))
    if isinstance(value, slice):
        ends = ["" if end is None else _readable(end) for end in (value.start, value.stop)]
        return ":".join(ends if value.step is None else [*ends, _readable(value.step)])
    return "..." if value is ... else _readable(value)


def _readable(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(_readable, value)) + ")"
    return str(value) if isinstance(value, Ref | float | int | bool) or value is None else repr(value)
