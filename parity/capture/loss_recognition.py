"""Losses that are known by name: squared errors however they were written, and torch's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from parity.capture.loss_graph import Line, Loss, Ref, refs, replaced
from parity.recording.recording import MSE, OWN, Part

# Functions that change a tensor's shape and none of its values.
RESHAPING = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "contiguous", "view_as", "reshape_as", "ravel"}
_SCALING = {"mul", "div", "true_divide", "neg", "multiply", "divide", "negative", "__rmul__"}


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
        inside = list(refs((line.args, line.kwargs)))
        if len(inside) != 1 or not line.args or (line.name.startswith("div") and line.args[0] is not inside[0]):
            return None, 1.0
        if line.kwargs.get("rounding_mode"):
            return None, 1.0
        scaling.append((line, inside[0]))
        ref = inside[0]
    factor = torch.tensor(1.0, dtype=torch.float64)
    for line, inner in reversed(scaling):
        args = replaced(line.args, lambda value, inner=inner, now=factor: now if value is inner else value)
        factor = line.function(*args)
    whole = ref.kind == "made" and not ref.path
    return (ref.number if whole else None), loss.seed * float(factor)


def scaling(name: str, function: Any, args: Any, inner: Any) -> float | None:
    """What an operation multiplies ``inner``, one of its arguments, with; ``None`` where that is not all it does."""
    constant = all(value is inner or isinstance(value, int | float) for value in args)
    if name not in _SCALING or not constant or (name.startswith(("div", "true_div")) and args[0] is not inner):
        return None
    one = torch.tensor(1.0, dtype=torch.float64)
    return float(function(*(one if value is inner else value for value in args)))


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
    while (line := _line(loss, ref)) is not None and line.name in RESHAPING and isinstance(line.args[0], Ref):
        ref = line.args[0]
    return ref


def described(loss: Loss) -> Part:
    """A loss other than a squared error as a recording names it."""
    place, factor = _without_factor(loss)
    scale = {} if factor == 1.0 else {"scale": factor}
    line = loss.lines[place] if place is not None else None
    direct = line is not None and len({ref.kind for ref in refs((line.args, line.kwargs))} & {"made"}) == 0
    if line is not None and direct and getattr(line.function, "__module__", "") == "torch.nn.functional":
        module = line.module
        if module is not None and type(module).__module__ == "torch.nn.modules.loss":
            # Not all settings are among the constants: beta of SmoothL1Loss is not.
            own = (name for name, value in vars(module).items() if not name.startswith("_") and _is_setting(value))
            names = dict.fromkeys([*getattr(module, "__constants__", []), *own])
            settings = {name: getattr(module, name, None) for name in names if name != "training"}
            return Part(f"torch.nn.modules.loss.{type(module).__name__}", {**settings, **scale})
        settings = _settings(line)
        return Part(f"torch.nn.functional.{line.name}", {**settings, **scale})
    return Part(OWN, {"operations": tuple(str(line) for line in loss.lines) or (str(loss.root),)})


def _settings(line: Line) -> dict[str, Any]:
    """The constants a loss was given and its defaults, but for those that PyTorch gave up."""
    bound = inspect.signature(line.function).bind(*line.args, **line.kwargs)
    bound.apply_defaults()
    gone = ("size_average", "reduce", "input", "target")
    return {key: value for key, value in bound.arguments.items() if key not in gone and _is_setting(value)}


def _is_setting(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def scaled(elements: int, factor: float, reduction: str) -> Part:
    """A squared error with its factor: a sum divided by its number of elements is a mean, whatever the batch's size."""
    settings: dict[str, Any] = {"reduction": reduction}
    if factor == 1.0:
        return Part(MSE, settings)
    if reduction == "sum" and abs(factor * elements - 1.0) <= 4 * float(torch.finfo(torch.float64).eps):
        return Part(MSE, {"reduction": "mean"})
    return Part(MSE, {**settings, "scale": factor})
