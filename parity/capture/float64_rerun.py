"""PyTorch's half of the arbiter: the recorded training once more in float64, locked and free."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from parity._errors import ParityError, UnsupportedError
from parity.capture import clipping_hooks, random_operations, source_places
from parity.capture.observed_run import Seen, gradients, joined, optimizer_state
from parity.capture.step_retention import After, trace
from parity.capture.torch_tensors import tensors_of, to_array, to_tree
from parity.recording import trees
from parity.recording.recording import Array, Starts, Trace, Tree
from parity.recording.thresholds import SOFTPLUS

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class _Double(TorchFunctionMode):
    """Makes a float64 program of one that names float32 or a device here and there.

    Its constants stay those of the recorded dtype: an epsilon that is the dtype's own would be another in float64, and
    the training another than the one that was recorded.
    """

    def __init__(self, *, dropout: bool, recorded: torch.dtype) -> None:
        super().__init__()
        self._dropout, self._epsilon = dropout, torch.finfo(recorded).eps
        self._narrow = recorded != torch.float64

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("float", "half", "bfloat16") and args and not kwargs:
            return args[0].double()
        if name == "cuda" and args:
            return args[0]
        chance = random_operations.draws(name, args, kwargs)
        if chance and chance.dropout and not self._dropout:
            func, args, kwargs = random_operations.without_dropout(func, name, args, kwargs)
        if name == "rms_norm" and kwargs.get("eps") is None and (len(args) < 4 or args[3] is None):
            args, kwargs = args[:3], {**kwargs, "eps": self._epsilon}
        if name == "softplus" and self._narrow:
            args, kwargs = _with_threshold(args, kwargs)
        if name in _SIXTHS and len(args) == 1 and not kwargs.get("inplace"):
            return _SIXTHS[name](args[0])
        return func(*(_wide(value) for value in args), **{key: _wide(value) for key, value in kwargs.items()})


# PyTorch multiplies by a sixth that is rounded to float32, in float64 too.
_SIXTHS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "hardsigmoid": lambda x: torch.nn.functional.relu6(x + 3) / 6,
    "hardswish": lambda x: x * torch.nn.functional.relu6(x + 3) / 6,
}


def _with_threshold(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of a softplus that is the identity where the recorded dtype cannot tell it from that."""
    given = dict(zip(("input", "beta", "threshold"), args, strict=False)) | kwargs
    return (), {**given, "threshold": min(given.get("threshold", SOFTPLUS), SOFTPLUS)}


@contextlib.contextmanager
def _finfo_of(recorded: torch.dtype) -> Iterator[None]:
    """``torch.finfo`` answers for the recorded dtype where it is asked for float64, which the program never was in."""
    honest: Any = torch.finfo

    def finfo(dtype: torch.dtype | None = None) -> Any:
        return honest(recorded if dtype in (None, torch.float64) else dtype)

    torch.finfo = finfo  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.finfo = honest  # type: ignore[misc]


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype) and value in _NARROW:
        return torch.float64
    if isinstance(value, torch.device) and value.type not in ("cpu", "meta"):
        return torch.device("cpu")
    if isinstance(value, str) and value.partition(":")[0] in ("cuda", "mps", "xpu"):
        return "cpu"
    return value


def rerun(seen: Seen, observed: Trace, starts: Starts | None) -> tuple[Trace, Trace]:
    """The training in float64: locked to the recorded state at every kept step, and free from the initial weights.

    Raises:
        UnsupportedError: the model or the loss cannot be run in float64.
    """
    run = _Rerun(seen, observed, starts)
    with _in_double(seen):
        return run.locked(), run.free()


@contextlib.contextmanager
def _in_double(seen: Seen) -> Iterator[None]:
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    # The program may have left one of its layers in a mode of torch's own; what is run here is its mathematics.
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    try:
        recorded = _dtype(seen)
        with _finfo_of(recorded), _Double(dropout=seen.dropout, recorded=recorded):
            yield
    except ParityError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"{type(seen.live[0]).__name__} trained, but fails when it is run again in float64: "
            f"{type(error).__name__}: {first}. {_advice(error)}{source_places.told_of(error)}"
        ) from error
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


def _advice(error: Exception) -> str:
    if isinstance(error, RuntimeError | TypeError):
        return "Make its tensors in the dtype of its inputs or weights"
    return "Parity calls the model again on each batch: nothing may be used up by a call"


def _dtype(seen: Seen) -> torch.dtype:
    """The dtype that was trained in."""
    found = (p.dtype for p in seen.live[0].parameters() if p.is_floating_point())
    return next(found, torch.get_default_dtype())


def _double(array: Array) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.double() if tensor.is_floating_point() else tensor


class _Rerun:
    """The model and the optimizer as they were before the first step, taken through the recorded steps."""

    def __init__(self, seen: Seen, observed: Trace, starts: Starts | None) -> None:
        self._seen, self._observed, self._starts = seen, observed, starts
        self._place_of_row = {step: row for row, step in enumerate(seen.keeper.kept)}

    def _fresh(self) -> None:
        seen = self._seen
        self._model, self._optimizer = copy.deepcopy(seen.live)
        self._model.to("cpu", torch.float64)
        self._parameters = dict(self._model.named_parameters())
        self._buffers = dict(self._model.named_buffers())
        for state in self._optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    state[key] = value.to("cpu", torch.float64 if value.is_floating_point() else value.dtype)
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        _put(self._parameters, seen.initial)
        _put(self._buffers, seen.initial_buffers)

    def locked(self) -> Trace:
        """Every kept step from what was recorded; losses of other steps are NaN."""
        self._fresh()
        seen, observed, starts = self._seen, self._observed, self._starts
        rows, losses = [], np.full(len(seen.batch_of_step), np.nan)
        for row, step in enumerate(seen.keeper.kept):
            if starts is not None:
                _put(self._parameters, {name: values[row] for name, values in starts.weights.items()})
                _put(self._buffers, {name: values[row] for name, values in starts.buffers.items()})
                _put(self._buffers, seen.keeper.befores[row][1])
                # The first steps follow one another, and the optimizer's state is what their gradients lead to.
                if row != step:
                    self._restore(row)
            elif row:
                _put(self._parameters, {name: values[row - 1] for name, values in observed.weights.items()})
                _put(self._buffers, {name: values[row - 1] for name, values in observed.buffers.items()})
            fed = {name: observed.gradients[name][row] for name in seen.rules}
            predictions, losses[step], made = self._step(step, fed)
            rows.append((predictions, made, self._after()))
        return trace(rows, losses, list(observed.buffers))

    def free(self) -> Trace:
        """The whole training on its own, of which the kept steps' tensors are kept."""
        self._fresh()
        rows, losses = [], np.zeros(len(self._seen.batch_of_step))
        for step in range(len(losses)):
            predictions, losses[step], made = self._step(step, None)
            if step in self._place_of_row:
                rows.append((predictions, made, self._after()))
        return trace(rows, losses, list(self._observed.buffers))

    def _after(self) -> After:
        state, _ = optimizer_state(self._optimizer, self._parameters)
        weights = {name: to_array(parameter) for name, parameter in self._parameters.items()}
        buffers = {name: to_array(self._buffers[name]) for name in self._observed.buffers}
        return After(weights, {key: state[key] for key in self._observed.state}, buffers)

    def _step(self, step: int, fed: Mapping[str, Array] | None) -> tuple[Tree, float, dict[str, Array]]:
        """One step: predictions, loss and gradients; the optimizer takes ``fed`` in their place where it is given."""
        seen = self._seen
        place = seen.batch_of_step[step]
        batch = seen.pool.batches[place]
        self._model.zero_grad()
        gathered, total = [], 0.0
        for (inputs, targets), (loss, arguments, shape) in zip(batch.passes(), seen.passes[place], strict=True):
            args, kwargs = arguments.filled(trees.mapped(_double, inputs))
            output = self._model(*args, **kwargs)
            given = [_double(leaf) for leaf in (targets if isinstance(targets, tuple) else (targets,))]
            value = loss.of(_tree_of(output), given)
            value.backward()  # type: ignore[no-untyped-call]
            predictions = to_tree(output)
            gathered.append(predictions if shape is None else predictions.reshape(shape))
            total += value.item()
        made = gradients(self._parameters, seen.rules)
        if fed is not None:
            for name, values in fed.items():
                self._parameters[name].grad = _double(values)
        for group in self._optimizer.param_groups:
            for name in {self._names.get(id(parameter), "") for parameter in group["params"]} & seen.rules.keys():
                group["lr"] = seen.learning_rates[name][step]
        clipping_hooks.apply(seen.clipping, [self._parameters[name] for name in seen.rules])
        self._optimizer.step()
        return joined(gathered), total, made

    def _restore(self, row: int) -> None:
        """The optimizer's state as it was before a kept step."""
        assert self._starts is not None
        others, _ = self._seen.keeper.befores[row]
        for name, parameter in self._parameters.items():
            if name not in self._seen.rules:
                continue
            state = {key: _double(values[name][row]) for key, values in self._starts.state.items() if name in values}
            for key, value in others.get(name, {}).items():
                state[key] = _double(value) if isinstance(value, np.ndarray) else value
            self._optimizer.state[parameter] = state


def _tree_of(output: Any) -> Any:
    """What the model returned as a tree of tensors, by the paths that the loss was noted with."""
    made: dict[Any, Any] = {}
    for path, tensor in tensors_of(output):
        if not path:
            return tensor
        at = made
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = tensor
    return made


def _put(tensors: Mapping[str, torch.Tensor], values: Mapping[str, Array]) -> None:
    with torch.no_grad():
        for name, array in values.items():
            tensors[name].copy_(_double(array))
