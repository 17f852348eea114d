"""The observer: torch's public hooks, held for the length of one run, and what they saw put in order."""

from __future__ import annotations

import copy
import dataclasses
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parity import _supported
from parity._errors import UnsupportedError
from parity._recording import Array, Evaluation, PrintedLine
from parity._seen import Call, Loss, Seen, module_part, optimizer_state, part, to_array

# Of a parameter group: what is recorded on its own, and what decides how torch does the work but not what it computes.
_NOT_SETTINGS = ("params", "lr", "initial_lr", "foreach", "fused", "differentiable", "capturable")


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
        self._settings: dict[str, Any] = {}
        self._steps_begun = 0

    def __enter__(self) -> Observer:
        self._handles = [
            module_hooks.register_module_forward_pre_hook(self._before_forward),
            module_hooks.register_module_forward_hook(self._after_forward, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def _done(self) -> int:
        return len(self._seen.steps.weights) if self._seen else 0

    # -- where the program is, for its printed lines

    def at(self, text: str) -> PrintedLine:
        """``text`` with the present place in the training; evaluations are counted as calls until :meth:`settle`."""
        return PrintedLine(text, self._done, self._done + len(self._differentiated), len(self._calls))

    def settle(self, line: PrintedLine) -> PrintedLine:
        """``line`` with its evaluations counted, now that it is known which calls were training steps."""
        done = sum(not call.trained_on for call in self._calls[: line.evaluations])
        return dataclasses.replace(line, evaluations=done)

    # -- the hooks

    def _before_forward(self, module: torch.nn.Module, args: Any) -> None:
        self._depth += 1

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth or not isinstance(output, torch.Tensor):
            return
        operands = [*args, *kwargs.values()]
        try:
            if any(True for _ in module.parameters()):
                self._on_model(module, operands, output)
            elif output.ndim == 0 and output.requires_grad and len(operands) == 2:
                self._on_loss(module, operands, output)
        except TypeError as error:  # NumPy does not know the dtype
            self._problem = self._problem or f"{type(module).__name__} computes in a dtype that NumPy lacks ({error})"

    def _on_model(self, module: torch.nn.Module, operands: list[Any], output: torch.Tensor) -> None:
        single = len(operands) == 1 and isinstance(operands[0], torch.Tensor)
        call = Call(module, to_array(operands[0]) if single else None, output, to_array(output), self._done)
        self._calls.append(call)
        self._recent.append(call)

    def _on_loss(self, module: torch.nn.Module, operands: list[Any], output: torch.Tensor) -> None:
        loss = Loss(module, None, None, to_array(output)[()])
        for prediction, target in (operands, operands[::-1]):
            call = next((call for call in reversed(self._recent) if call.output is prediction), None)
            if loss.call is None and call is not None and isinstance(target, torch.Tensor):
                loss.call, loss.targets = call, to_array(target)
        output.register_hook(lambda gradient: self._on_backward(loss, gradient))  # type: ignore[no-untyped-call]

    def _on_backward(self, loss: Loss, gradient: torch.Tensor) -> None:
        loss.backward_seed = float(gradient)
        if loss.call:
            gradients = [parameter.grad for parameter in loss.call.module.parameters()]
            loss.gradients_cleared = all(gradient is None or not bool(gradient.any()) for gradient in gradients)
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
        loss, call = _supported.the_loss(self._differentiated, arguments)
        seen = self._seen or self._begin(optimizer, loss, call)
        if optimizer is not self._optimizer or call.module is not self._module:
            raise UnsupportedError(
                "another model or another optimizer is used than at step 0. Record one training at a time"
            )
        parameters = self._parameters()
        _supported.check_settings(optimizer.param_groups[0], self._settings)
        _supported.check_gradients(parameters)
        if self._done:
            _supported.check_untouched(seen.steps.weights[-1], self._weights())
        assert call.inputs is not None
        assert loss.targets is not None
        seen.batch_of_step.append(seen.pool.place(call.inputs, loss.targets))
        seen.steps.predictions.append(call.values)
        seen.steps.losses.append(loss.value)
        seen.steps.gradients.append({name: to_array(p.grad) for name, p in parameters.items() if p.grad is not None})
        seen.learning_rates.append(float(optimizer.param_groups[0]["lr"]))
        call.trained_on = True
        for old in self._recent:
            old.output = None  # no later loss is taken of it, and its graph can go
        self._recent, self._differentiated = [], []

    def _begin(self, optimizer: torch.optim.Optimizer, loss: Loss, call: Call) -> Seen:
        _supported.check_optimizer(optimizer, call.module)
        self._optimizer, self._module = optimizer, call.module
        group = optimizer.param_groups[0]
        self._settings = {key: value for key, value in group.items() if key not in _NOT_SETTINGS}
        try:
            live = copy.deepcopy((call.module, optimizer, loss.module))
        except Exception as error:
            raise UnsupportedError(
                f"{type(call.module).__name__} and its optimizer cannot be copied for the float64 run: {error}"
            ) from None
        self._seen = Seen(
            model=module_part(call.module),
            loss=module_part(loss.module),
            optimizer=part(optimizer, self._settings),
            live=live,
            initial=self._weights(),
            device=str(next(call.module.parameters()).device),
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
            Evaluation(call.step, call.inputs, call.values)
            for call in self._calls
            if not call.trained_on and call.inputs is not None
        ]
        return self._seen
