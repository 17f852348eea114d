"""The loss as a function of what the model gave: the operations between the two, to be read and to be run again."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity._inputs import to_array
from parity._recording import MSE, Part, Tree
from parity._tape import Item, Lost, Operation, Output, Outside
from parity._trees import Path, found

OWN = "a loss of its own"
# Functions that change a tensor's shape and none of its values.
_RESHAPING = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "contiguous", "view_as", "reshape_as", "ravel"}
_SCALING = {"mul", "div", "true_divide", "neg", "multiply", "divide", "negative", "__rmul__"}


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
            args, kwargs = _replaced(line.args, value), _replaced(line.kwargs, value)
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
        lines = tuple((line.name, tuple(_refs((line.args, line.kwargs)))) for line in self.lines)
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
    targets: dict[torch.Tensor, int] = {}

    def ref(value: Any) -> Any:
        value = _inner(value, layers)
        if isinstance(value, Output):
            calls[value.call] = None
            return Ref("predictions", 0, value.path)
        if isinstance(value, Item):
            return Ref("made", places[value.operation], value.path)
        if isinstance(value, Outside):
            _check_outside(value)
            return Ref("target", targets.setdefault(value.tensor, len(targets)))
        if isinstance(value, Lost):
            raise UnsupportedError(f"the loss cannot be followed: {value.reason}. Make new tensors instead")
        return value

    lines = tuple(
        Line(one.name, one.function, _replaced(one.args, ref), _replaced(one.kwargs, ref), one.in_place, one.module)
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


def _check_outside(value: Outside) -> None:
    shape = tuple(value.tensor.shape)
    if value.tensor.requires_grad:
        kind = "a parameter" if isinstance(value.tensor, torch.nn.Parameter) else "a tensor"
        raise UnsupportedError(
            f"the loss takes {kind} of shape {shape} that has a gradient of its own beside the model's output, such as "
            "a penalty on weights. Use weight_decay, or compute it inside the model and return it"
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


def _refs(nested: Any) -> Iterator[Ref]:
    return (value for value in _values(nested) if isinstance(value, Ref))


def _replaced(nested: Any, function: Any) -> Any:
    if isinstance(nested, dict):
        return {key: _replaced(item, function) for key, item in nested.items()}
    if isinstance(nested, list | tuple) and type(nested) in (list, tuple):
        items = [_replaced(item, function) for item in nested]
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


def _readable(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(_readable, value)) + ")"
    return str(value) if isinstance(value, Ref | float | int | bool) or value is None else repr(value)


# -- known losses


def squared_error(loss: Loss) -> tuple[str, float, Ref, Ref] | None:
    """Whether it is a mean or sum of squared differences: the reduction, the factor, and the two operands."""
    place, factor = _without_factor(loss)
    if place is None:
        return None
    line = loss.lines[place]
    if line.name == "mse_loss":
        operands = _mse_operands(*line.args, **line.kwargs)
        return (operands[2], factor, operands[0], operands[1]) if operands else None
    if line.name not in ("mean", "sum") or len(line.args) != 1 or line.kwargs:
        return None
    difference = _square_root(loss, line.args[0])
    if difference is None or difference.name != "sub" or len(difference.args) != 2 or difference.kwargs:
        return None
    first, second = difference.args
    return (line.name, factor, first, second) if isinstance(first, Ref) and isinstance(second, Ref) else None


def _without_factor(loss: Loss) -> tuple[int | None, float]:
    """The operation that only a constant factor was put to, and that factor in double precision."""
    ref, scaling = loss.root, []
    while ref.kind == "made" and loss.lines[ref.number].name in _SCALING:
        line = loss.lines[ref.number]
        inside = list(_refs((line.args, line.kwargs)))
        if len(inside) != 1 or not line.args or (line.name.startswith("div") and line.args[0] is not inside[0]):
            return None, 1.0
        if line.kwargs.get("rounding_mode"):
            return None, 1.0
        scaling.append((line, inside[0]))
        ref = inside[0]
    factor = torch.tensor(1.0, dtype=torch.float64)
    for line, inner in reversed(scaling):
        args = _replaced(line.args, lambda value, inner=inner, now=factor: now if value is inner else value)
        factor = line.function(*args)
    whole = ref.kind == "made" and not ref.path
    return (ref.number if whole else None), loss.seed * float(factor)


def _mse_operands(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> tuple[Any, Any, str] | None:
    """The arguments of ``torch.nn.functional.mse_loss``, by its own names."""
    if size_average is not None or reduce is not None or weight is not None or reduction not in ("mean", "sum"):
        return None
    return (input, target, reduction)


def _square_root(loss: Loss, ref: Any) -> Line | None:
    """The operation whose result was squared to give ``ref``, if it was."""
    line = _line(loss, ref)
    if line is None or line.kwargs:
        return None
    args = line.args
    squared = line.name == "square" or (line.name == "pow" and len(args) == 2 and args[1] in (2, 2.0))
    squared = squared or (line.name == "mul" and len(args) == 2 and args[0] == args[1])
    return _line(loss, args[0]) if squared else None


def _line(loss: Loss, ref: Any) -> Line | None:
    return loss.lines[ref.number] if isinstance(ref, Ref) and ref.kind == "made" and not ref.path else None


def unreshaped(loss: Loss, ref: Ref) -> Ref:
    """What ``ref`` was before it was only reshaped."""
    while (line := _line(loss, ref)) is not None and line.name in _RESHAPING and isinstance(line.args[0], Ref):
        ref = line.args[0]
    return ref


def described(loss: Loss) -> Part:
    """A loss other than a squared error as a recording names it."""
    place, factor = _without_factor(loss)
    scale = {} if factor == 1.0 else {"scale": factor}
    line = loss.lines[place] if place is not None else None
    direct = line is not None and len({ref.kind for ref in _refs((line.args, line.kwargs))} & {"made"}) == 0
    if line is not None and direct and getattr(line.function, "__module__", "") == "torch.nn.functional":
        module = line.module
        if module is not None and type(module).__module__ == "torch.nn.modules.loss":
            names = getattr(module, "__constants__", [])
            settings = {name: getattr(module, name, None) for name in names}
            return Part(f"torch.nn.modules.loss.{type(module).__name__}", {**settings, **scale})
        settings = _settings(line)
        return Part(f"torch.nn.functional.{line.name}", {**settings, **scale})
    return Part(OWN, {"operations": tuple(str(line) for line in loss.lines) or (str(loss.root),)})


def _settings(line: Line) -> dict[str, Any]:
    """The constants a loss was given and its defaults, but for those that PyTorch gave up."""
    bound = inspect.signature(line.function).bind(*line.args, **line.kwargs)
    bound.apply_defaults()
    gone = ("size_average", "reduce", "input", "target")
    kinds = bool | int | float | str
    return {key: value for key, value in bound.arguments.items() if key not in gone and isinstance(value, kinds)}


def scaled(elements: int, factor: float, reduction: str) -> Part:
    """A squared error with its factor: a sum divided by its number of elements is a mean, whatever the batch's size."""
    settings: dict[str, Any] = {"reduction": reduction}
    if factor == 1.0:
        return Part(MSE, settings)
    if reduction == "sum" and abs(factor * elements - 1.0) <= 4 * float(torch.finfo(torch.float64).eps):
        return Part(MSE, {"reduction": "mean"})
    return Part(MSE, {**settings, "scale": factor})
