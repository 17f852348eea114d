"""The observer: torch's public hooks, held for the length of one run, and what they saw put in order."""

from __future__ import annotations

import copy
import dataclasses
import functools
import weakref
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parity import _supported
from parity._errors import UnsupportedError
from parity._recording import MSE, Array, Evaluation, Part, PrintedLine
from parity._seen import (
    Call,
    Loss,
    Seen,
    function_of,
    gradients,
    module_part,
    optimizer_state,
    part,
    plain,
    scaled,
    to_array,
)
from parity._tape import SquaredError, Tape


class Observer:
    """Watches one training program while it runs; a context manager that takes its hooks off again.

    A hook never raises: the program could swallow the error. The first thing that cannot be recorded is kept, and
    :meth:`finish` raises it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._depth = 0
        self._calls: list[Call] = []
        self._recent: list[Call] = []
        self._differentiated: list[Loss] = []
        self._problem: str | None = None
        self._seen: Seen | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._module: torch.nn.Module | None = None
        self._steps_begun = 0
        self._tape = Tape(self._on_squared_error)
        self._noted: weakref.ref[torch.Tensor] | None = None

    def __enter__(self) -> Observer:
        self._handles = [
            module_hooks.register_module_forward_pre_hook(self._before_forward),
            module_hooks.register_module_forward_hook(self._after_forward, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self._tape.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tape.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    @property
    def _done(self) -> int:
        return len(self._seen.steps.weights) if self._seen else 0

    # -- where the program is, for its printed lines

    def at(self, text: str) -> PrintedLine:
        """``text`` with the present place in the training; evaluations are counted as calls until :meth:`settle`."""
        return PrintedLine(text, self._done, self._done + bool(self._differentiated), len(self._calls))

    def settle(self, line: PrintedLine) -> PrintedLine:
        """``line`` with its evaluations counted, now that it is known which calls were training steps."""
        done = sum(self._is_evaluation(call) for call in self._calls[: line.evaluations])
        return dataclasses.replace(line, evaluations=done)

    # -- the hooks

    def _before_forward(self, module: torch.nn.Module, args: Any) -> None:
        self._depth += 1

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._depth -= 1
        inside = self._depth > 0
        if not isinstance(output, torch.Tensor) or (inside and not isinstance(module, torch.nn.Linear)):
            return
        operands = [*args, *kwargs.values()]
        try:
            if any(True for _ in module.parameters()):
                self._on_model(module, operands, output)
            elif output.ndim == 0 and output.requires_grad and len(operands) == 2 and output is not self._last_loss():
                self._on_loss(output, module_part(module), module, *operands)
        except TypeError as error:
            self._not_in_numpy(type(module).__name__, error)

    def _last_loss(self) -> Any:
        return self._noted() if self._noted else None

    def _not_in_numpy(self, what: str, error: TypeError) -> None:
        self._problem = self._problem or f"{what} computes in a dtype that NumPy lacks ({error})"

    def _on_model(self, module: torch.nn.Module, operands: list[Any], output: torch.Tensor) -> None:
        single = len(operands) == 1 and isinstance(operands[0], torch.Tensor)
        call = Call(module, to_array(operands[0]) if single else None, output, to_array(output), self._done)
        self._calls.append(call)
        self._recent.append(call)

    def _on_squared_error(self, output: torch.Tensor, error: SquaredError) -> None:
        part = Part(MSE, {"reduction": error.reduction})
        function = functools.partial(torch.nn.functional.mse_loss, reduction=error.reduction)
        self._noted = weakref.ref(output)
        try:
            self._on_loss(output, part, function, error.first, error.second)
        except TypeError as problem:
            self._not_in_numpy("the loss", problem)

    def _on_loss(self, output: torch.Tensor, part: Part, function: Any, first: Any, second: Any) -> None:
        loss = Loss(part, function, None, None, None, to_array(output)[()])
        for prediction, target in ((first, second), (second, first)):
            if loss.call is None and isinstance(prediction, torch.Tensor) and isinstance(target, torch.Tensor):
                loss.call = self._call_behind(prediction)
                if loss.call:
                    loss.predictions, loss.targets = to_array(prediction), to_array(target)
        output.register_hook(lambda gradient: self._on_backward(loss, gradient))  # type: ignore[no-untyped-call]

    def _call_behind(self, prediction: torch.Tensor) -> Call | None:
        """The call whose output this is, reshaped or not: a linear layer's where the whole model comes to one."""
        found = [
            call
            for origin in self._tape.origins(prediction)
            for call in reversed(self._recent)
            if call.output is origin
        ]
        layer = next((call for call in found if isinstance(call.module, torch.nn.Linear)), None)
        if layer is None:
            return found[0] if found else None
        own = set(map(id, layer.module.parameters()))
        beyond = [call for call in found if not own.issuperset(map(id, call.module.parameters()))]
        return beyond[0] if beyond else layer

    def _on_backward(self, loss: Loss, gradient: torch.Tensor) -> None:
        loss.backward_seed = float(gradient)
        if loss.call:
            left = [p for p in loss.call.module.parameters() if p.grad is not None and bool(p.grad.any())]
            loss.uncleared = frozenset(map(id, left))
        self._differentiated.append(loss)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._steps_begun += 1
        if self._problem is None:
            try:
                self._take_step(optimizer, [*args[1:], *kwargs.values()])
            except UnsupportedError as error:
                self._problem = f"at step {self._done}, {error}"

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._problem is None and self._seen:
            self._seen.steps.weights.append(self._weights())
            self._seen.steps.state.append(optimizer_state(optimizer, self._parameters()))

    # -- one step

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        assert self._module is not None
        return dict(self._module.named_parameters())

    def _weights(self) -> dict[str, Array]:
        return {name: to_array(parameter) for name, parameter in self._parameters().items()}

    def _take_step(self, optimizer: torch.optim.Optimizer, arguments: list[Any]) -> None:
        passes = _supported.the_losses(self._differentiated, optimizer, arguments)
        loss, call = passes[0]
        seen = self._seen or self._begin(optimizer, loss, call)
        same = all(other.module is self._module for _, other in passes) and scaled(loss) == seen.loss
        if optimizer is not self._optimizer or not same:
            raise UnsupportedError(
                "another model, optimizer or loss is used than at step 0. Record one training at a time"
            )
        parameters = self._parameters()
        groups = _supported.trained(optimizer, parameters)
        _supported.check_settings({name: plain(group) for name, group in groups.items()}, seen.rules)
        if self._done:
            _supported.check_untouched(seen.steps.weights[-1], self._weights())
        seen.add_passes(passes)
        seen.steps.gradients.append(gradients(parameters, seen.rules))
        for name, group in groups.items():
            seen.learning_rates[name].append(float(group["lr"]))
        for old in self._recent:
            old.output = None  # no later loss is taken of it, and its graph can go
        self._recent, self._differentiated = [], []

    def _begin(self, optimizer: torch.optim.Optimizer, loss: Loss, call: Call) -> Seen:
        _supported.check_optimizer(optimizer, call.module)
        self._optimizer, self._module = optimizer, call.module
        rules = {name: plain(group) for name, group in _supported.trained(optimizer, self._parameters()).items()}
        shared = {
            key: value
            for key, value in next(iter(rules.values())).items()
            if all(r[key] == value for r in rules.values())
        }
        try:
            live = copy.deepcopy((call.module, optimizer))
        except Exception as error:
            raise UnsupportedError(
                f"{type(call.module).__name__} and its optimizer cannot be copied for the float64 run: {error}"
            ) from None
        self._seen = Seen(
            model=module_part(call.module),
            loss=scaled(loss),
            optimizer=part(optimizer, shared),
            live=live,
            loss_function=function_of(loss),
            initial=self._weights(),
            device=str(next(call.module.parameters()).device),
            rules=rules,
            learning_rates={name: [] for name in rules},
        )
        return self._seen

    # -- the end

    def finish(self) -> Seen:
        """What was seen, once the program has ended.

        Raises:
            UnsupportedError: it never stepped an optimizer, or did something that cannot be recorded.
        """
        if self._problem is not None:
            raise UnsupportedError(f"{self._name}: {self._problem}")
        if self._seen is None:
            raise UnsupportedError(
                f"{self._name} ran to its end and never stepped an optimizer. A training calls optimizer.step()"
            )
        if self._steps_begun != self._done:
            raise UnsupportedError(f"{self._name}: a step of the optimizer raised, and the program went on")
        self._seen.evaluations = [
            Evaluation(call.step, call.inputs, call.values)  # type: ignore[arg-type]
            for call in self._calls
            if self._is_evaluation(call)
        ]
        return self._seen

    def _is_evaluation(self, call: Call) -> bool:
        return call.module is self._module and not call.trained_on and call.inputs is not None
