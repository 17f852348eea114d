"""The observer: torch's public hooks, held for the length of one run, and what they saw put in order."""

from __future__ import annotations

import copy
import time
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parity._errors import UnsupportedError
from parity._words import count
from parity.capture import other_trainings, source_places, unsupported
from parity.capture.backward_pass import pass_of
from parity.capture.clipping_hooks import Watch
from parity.capture.module_calls import Stack
from parity.capture.number_reads import Reads
from parity.capture.observed_run import (
    Call,
    Pass,
    Seen,
    environment,
    gradients,
    joined,
    module_part,
    optimizer_state,
    part,
    plain,
)
from parity.capture.operation_tape import Tape
from parity.capture.output_origins import Written
from parity.capture.step_retention import After, Keeper
from parity.capture.torch_tensors import to_array
from parity.recording import trees
from parity.recording.recording import LINEAR, MSE, SGD, Array, Evaluation

_LEFT_OUT = "Evaluations of the model were left out where they would take more than an eighth of the memory limit."


class Observer:
    """Watches one training program while it runs; a context manager that takes its hooks off again.

    A hook never raises: the program could swallow the error. The first thing that cannot be recorded is kept, and
    :meth:`finish` raises it.

    Args:
        name: what the program is called in messages.
        dropout: whether dropout stays on.
        memory_limit: bytes for all tensors that are kept.
        namespace: the names that the program's code finds from its own file, where it is there already.
    """

    def __init__(
        self, name: str, *, dropout: bool = True, memory_limit: float = 2.0**29, namespace: Any = None
    ) -> None:
        self._name, self._limit, self._dropout = name, memory_limit, dropout
        self._calls: list[Call] = []
        self._recent: list[Call] = []
        self._differentiated: list[Pass] = []
        self._problem: str | None = None
        self._seen: Seen | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._module: torch.nn.Module | None = None
        self._made: dict[int, tuple[torch.Tensor, int]] = {}
        self._steps_begun = 0
        self._evaluated = 0
        self._ends: list[float] = []
        self._last_backward = ""
        self.stopped = False
        self._tape = Tape(
            self._on_backward,
            lambda name: self._stack.chance(name),
            self._on_gradients,
            lambda *read: self._reads.on_read(*read),
            dropout=dropout,
        )
        self._reads = Reads(self._tape, lambda: self.done)
        self.written = Written(self._reads)
        self.clips = Watch(namespace)
        self._stack = Stack(self._tape, self._on_call, self._problem_is)

    def __enter__(self) -> Observer:
        self._handles = [
            module_hooks.register_module_forward_pre_hook(self._stack.enter),
            module_hooks.register_module_forward_hook(self._stack.leave, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self.clips.__enter__()
        self._tape.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tape.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self.clips.__exit__(kind, error, trace)
        for handle in self._handles:
            handle.remove()

    @property
    def done(self) -> int:
        """How many steps were made."""
        return self._seen.keeper.done if self._seen else 0

    @property
    def is_linear(self) -> bool:
        """Whether all that was seen is a training that jaxreg's own parts make."""
        seen = self._seen
        if seen is None or self._problem is not None or seen.clipping:
            return False
        return (seen.model.type, seen.loss.type, seen.optimizer.type) == (LINEAR, MSE, SGD)

    def _problem_is(self, error: object) -> None:
        self._problem = self._problem or f"at step {self.done}, {error}{source_places.told()}"

    # -- the program's printed lines

    def evaluations(self) -> dict[int, int]:
        """The place of each call that is kept as an evaluation, by its identity."""
        return {id(call): place for place, call in enumerate(call for call in self._calls if call.evaluation)}

    # -- the hooks

    def _on_call(self, call: Call) -> None:
        call.step = self.done
        if self._seen is None:
            call.where = source_places.told()
        if not self.stopped:
            self._calls.append(call)
            self._recent.append(call)

    def _on_backward(self, value: Any, root: torch.Tensor, seed: Any) -> None:
        if self._problem is None and not self.stopped:
            try:
                made = pass_of(value, root, seed)
                self._differentiated.append(made)
                self._reads.backward(value, root, made.loss.seed)
            except UnsupportedError as error:
                self._problem_is(error)
            self._last_backward = "" if self._seen else source_places.told()

    def _on_gradients(self) -> None:
        """Note which gradients ``backward()`` left, to see at the step whether they are still what it made."""
        if self._differentiated and self._problem is None and not self.stopped:
            owned = self._differentiated[-1].call.module.parameters()
            self._made = {id(p): (p.grad, p.grad._version) for p in owned if p.grad is not None}

    @source_places.hook
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._tape.off = True
        if self._problem is None and not self.stopped:
            self._steps_begun += 1
            try:
                self._take_step(optimizer, [*args[1:], *kwargs.values()])
            except UnsupportedError as error:
                self._problem_is(error)

    @source_places.hook
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._ends = [*self._ends[:1], time.perf_counter()]
        self._tape.off = False
        self._tape.forget()
        self._made = {}
        self.clips.clear()
        if self._problem is None and self._seen and not self.stopped:
            assert self._module is not None
            try:
                state, others = optimizer_state(optimizer, self._parameters())
                after = After(self._weights(), state, self._stack.buffers(self._module), others)
                self._seen.keeper.end(after, self._seen.pool.size + self._evaluated)
            except UnsupportedError as error:
                self._problem_is(error)

    @property
    def seconds(self) -> float:
        """What the training took, from the end of its first step to that of its last, scaled to all steps."""
        return (self._ends[-1] - self._ends[0]) * self.done / (self.done - 1) if self.done > 1 else 0.0

    # -- one step

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        assert self._module is not None
        return dict(self._module.named_parameters())

    def _weights(self) -> dict[str, Array]:
        return {name: to_array(parameter) for name, parameter in self._parameters().items()}

    def _take_step(self, optimizer: torch.optim.Optimizer, arguments: list[Any]) -> None:
        tape = self._tape
        other_trainings.check_step(
            optimizer, self._optimizer, arguments, self._differentiated, tape.grad_called, tape.thread
        )
        passes = unsupported.the_passes(self._differentiated, optimizer)
        first = passes[0]
        seen = self._seen or self._begin(optimizer, first)
        other_trainings.check_same_training(
            optimizer, self._optimizer, [one.call.module for one in passes], self._module
        )
        for one in passes:
            unsupported.check_alike(seen.first, one, "another loss is taken than at step 0")
            unsupported.check_modes(seen.first.call, one.call)
            seen.note_before(one)
            seen.note_hooks(one)
        parameters = self._parameters()
        groups = unsupported.trained(optimizer, parameters)
        could = unsupported.trainable(optimizer, parameters), seen.trainable
        unsupported.check_settings({name: plain(group) for name, group in groups.items()}, seen.rules, could)
        if self.done:
            unsupported.check_untouched(seen.keeper.last.weights, self._weights())
            unsupported.check_buffers(seen.keeper.last.buffers, first.call.buffers)
        if not seen.place(passes, self._limit / 2):
            self._stop(seen)
            return
        unsupported.check_clipping(self.clips, seen.clipping, {name: parameters[name] for name in groups})
        if not self.clips.clipping:
            unsupported.check_gradients(self._made, {name: parameters[name] for name in groups})
        made = gradients(parameters, seen.rules, self.clips.raw)
        seen.keeper.begin(joined([one.predictions for one in passes]), made)
        for name, group in groups.items():
            seen.learning_rates[name].append(float(group["lr"]))
        self._reads.stepped([one.call for one in passes], sum(seen.pool.batches[seen.batch_of_step[-1]].parts))
        self._clear(passes)

    def _stop(self, seen: Seen) -> None:
        if not self.done:
            raise UnsupportedError(
                f"the first batch takes more than half the memory limit of {self._limit:,.0f} bytes. Record with a "
                "larger memory_limit, on the command line --memory-limit BYTES"
            )
        self.stopped = True
        self._clear([])
        self._calls = [call for call in self._calls if call.evaluation]
        seen.notes.append(
            f"The recording ends after {count(self.done, 'step')}: the batches seen until then take half the memory "
            f"limit of {self._limit:,.0f} bytes. What is judged is the training up to there."
        )

    def _clear(self, passes: Any) -> None:
        """Let go of what the step has used, and keep the calls that it has not as evaluations."""
        used = {id(one.call) for one in passes}
        for call in self._recent:
            call.evaluation = self._seen is not None and call.module is self._module and id(call) not in used
            if call.evaluation and not self.stopped:
                self._keep_evaluation(call)
            if self._seen is None or call is not self._seen.first.call:
                call.inputs = call.outputs = None
        self._recent, self._differentiated = [], []

    def _keep_evaluation(self, call: Call) -> None:
        assert self._seen is not None
        size = trees.size((call.inputs, call.outputs))
        if self._evaluated + size > self._limit / 8:
            call.evaluation = False
            if _LEFT_OUT not in self._seen.notes:
                self._seen.notes.append(_LEFT_OUT)
            return
        self._evaluated += size
        self._seen.evaluations.append(Evaluation(call.step, call.inputs, call.outputs))

    def _begin(self, optimizer: torch.optim.Optimizer, first: Pass) -> Seen:
        module = first.call.module
        other_trainings.check_optimizer(optimizer, module, [call.module for call in self._recent])
        self._optimizer, self._module = optimizer, module
        rules = {name: plain(group) for name, group in unsupported.trained(optimizer, self._parameters()).items()}
        shared = {
            key: value
            for key, value in next(iter(rules.values())).items()
            if all(r[key] == value for r in rules.values())
        }
        try:
            live = copy.deepcopy((module, optimizer))
        except Exception as error:
            raise UnsupportedError(
                f"{type(module).__name__} and its optimizer cannot be copied for the float64 run: {error}"
            ) from None
        initial, buffers = self._weights(), first.call.buffers
        self._reads.begin(module)
        self._seen = Seen(
            model=module_part(module),
            loss=first.part,
            optimizer=part(optimizer, shared),
            live=live,
            initial=initial,
            initial_buffers=buffers,
            environment=environment(str(next(module.parameters()).device)) | self._lines(first),
            trainable=unsupported.trainable(optimizer, self._parameters()),
            keeper=Keeper(self._limit, After(initial, {}, buffers)),
            first=first,
            dropout=self._dropout,
            rules=rules,
            learning_rates={name: [] for name in rules},
            clipping=self.clips.clipping,
        )
        return self._seen

    def _lines(self, first: Pass) -> dict[str, str]:
        """The program's lines that call the model, the loss's backward and the optimizer."""
        return {
            "model_line": first.call.where,
            "loss_line": self._last_backward,
            "optimizer_line": source_places.told(),
        }

    # -- the end

    def _advice(self) -> str:
        if not self._differentiated:
            return "A training calls optimizer.step()"
        return (
            "It calls backward(), and parity follows torch's optimizers: where it changes the weights by itself, write "
            f"that as torch.optim.SGD(model.parameters(), lr=...) and optimizer.step(){self._last_backward}"
        )

    def finish(self) -> Seen:
        """What was seen, once the program has ended.

        Raises:
            UnsupportedError: it never stepped an optimizer, or did something that cannot be recorded.
        """
        if self._problem is not None:
            raise UnsupportedError(f"{self._name}: {self._problem}")
        if self._seen is None:
            raise UnsupportedError(f"{self._name} ran to its end and never stepped an optimizer. {self._advice()}")
        if self._steps_begun != self.done + self.stopped:
            raise UnsupportedError(f"{self._name}: a step of the optimizer raised, and the program went on")
        if not self.stopped:
            self._clear([])
        return self._seen
