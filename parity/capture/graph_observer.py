"""The graph observer: follows any training by its tensors, from leaves to the roots of ``backward``, step by step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parity._errors import UnsupportedError
from parity._words import count
from parity.capture import graph_encoding, other_trainings, source_places, unsupported
from parity.capture.clipping_hooks import Watch
from parity.capture.graph_begin import begin, copied
from parity.capture.graph_encoding import Interned
from parity.capture.graph_passes import Passes
from parity.capture.graph_states import States
from parity.capture.graph_steps import Begun, Steps
from parity.capture.graph_tape import GraphTape
from parity.capture.graph_values import Lost, Made
from parity.capture.hand_updates import BY_HAND, PLAIN_SGD, HandSteps
from parity.capture.observed_run import gradients, optimizer_state, plain
from parity.capture.operation_tape import version_of
from parity.capture.step_retention import After
from parity.capture.torch_tensors import tensors_of, to_array
from parity.recording.recording import Array
from parity.recording.trees import same_array

_KINDS = 64
# Steps that a training is followed for in two ways at once.
PATIENCE_STEPS = 64


class GraphObserver:
    """Watches one training program while it runs; a context manager that takes its hooks off again.

    A hook never raises. The first thing that cannot be recorded is kept, and :meth:`finish` raises it.

    Args:
        name: what the program is called in messages.
        limit: bytes for all tensors that are kept.
        clips: what clips gradients.
        unneeded: asked once, after :data:`PATIENCE_STEPS`: whether the training is recorded in a simpler way already.
    """

    def __init__(self, name: str, limit: float, clips: Watch, unneeded: Callable[[], bool] = lambda: False) -> None:
        self._name, self._limit, self._clips, self._unneeded = name, limit, clips, unneeded
        self.tape = GraphTape(self._on_backward, self._on_change, self._moved, self._is_own_gradient)
        self.steps = Steps()
        self.begun: Begun | None = None
        self.stopped = False
        self._problem: str | None = None
        self._interned = Interned()
        self._passes = Passes(self.tape)
        self._outputs: list[tuple[Any, torch.Tensor, int]] = []
        self._modules: list[torch.nn.Module] = []
        self._models: dict[torch.nn.Module, None] = {}
        self._made: dict[int, tuple[torch.Tensor, int]] = {}
        self._names: dict[int, str] = {}
        self._states = States(self._models)
        self._taken = False
        self._before: dict[str, Array] = {}
        self._by_hand = HandSteps()
        self._given: set[str] = set()
        self._thread = threading.get_ident()

    def __enter__(self) -> GraphObserver:
        self._handles = [
            module_hooks.register_module_forward_pre_hook(self._enter_module),
            module_hooks.register_module_forward_hook(self._leave_module, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self.tape.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tape.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    @property
    def done(self) -> int:
        """How many steps were made."""
        return self.begun.keeper.done if self.begun else 0

    @property
    def _active(self) -> bool:
        return self._problem is None and not self.stopped

    def _problem_is(self, error: object) -> None:
        where = "" if ". In " in str(error) else source_places.told()
        self._problem = self._problem or f"at step {self.done}, {error}{where}"
        self.tape.off = True
        self._let_go()

    # -- the hooks

    @source_places.hook
    def _enter_module(self, module: torch.nn.Module, args: Any) -> None:
        self._modules.append(module)

    @source_places.hook
    def _leave_module(self, module: torch.nn.Module, args: Any, kwargs: Any, *returned: Any) -> None:
        if self._modules:
            self._modules.pop()
        if not self._active or any(_owns(outer) for outer in self._modules) or not _owns(module):
            return
        self._models[module] = None
        for _, tensor in tensors_of(returned[0] if returned else None):
            value = self.tape.value(tensor)
            if isinstance(value, Made) and tensor.is_floating_point():
                self._outputs.append((value, tensor, version_of(tensor)))

    @contextlib.contextmanager
    def _on_backward(
        self, roots: list[tuple[torch.Tensor, Any, Any]], leaves: list[torch.Tensor] | None = None
    ) -> Iterator[None]:
        if self._active:
            self._moved()
        if self._active:
            try:
                self._passes.begin(roots, alone=leaves is not None)
                if self.begun is None or self.begun.by_hand:
                    self._by_hand.start(self._passes.leaves(), first=self.begun is None)
            except UnsupportedError as error:
                self._problem_is(error)
        self.tape.off = True
        try:
            yield
        finally:
            self.tape.off = not self._active
        if self._active:
            made = [] if leaves else [(leaf, leaf.grad) for leaf in self._passes.leaves() if leaf.requires_grad]
            self._made = {id(leaf): (grad, grad._version) for leaf, grad in made if grad is not None}

    @source_places.hook
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.tape.in_step = True
        self._taken = False
        if not self._active:
            return
        try:
            if self.begun is None and not self._names:
                self._live = copied(optimizer, self.tape.leaves())
            self._before = {name: to_array(leaf) for name, leaf in self.begun.leaves.items()} if self.begun else {}
            if self._passes.listed:
                self._take_optimizer(optimizer)
        except UnsupportedError as error:
            self._problem_is(error)

    @source_places.hook
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.tape.in_step = False
        if self._active:
            try:
                if not self._taken:
                    self._take_optimizer(optimizer)
                self._end(optimizer)
            except UnsupportedError as error:
                self._problem_is(error)
            if self.done == PATIENCE_STEPS and self._unneeded():
                self._problem_is("the training is recorded as one linear layer")
        self._let_go()
        self.tape.places = self.tape.places and self.done < 2

    def _let_go(self) -> None:
        self._passes.clear()
        self._outputs, self._made = [], {}
        self._by_hand.changes = {}
        self.tape.forget()

    # -- one step

    def _take_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self._taken = True
        other_trainings.check_kind(optimizer)
        other_trainings.check_thread(self._thread)
        other_trainings.check_scaler()
        if not self._passes.listed:
            raise UnsupportedError(
                "backward() was not called on a loss since the last step. Call it once before every optimizer.step()"
            )
        if self._by_hand.changes:
            raise UnsupportedError("weights are moved by hand between backward() and optimizer.step()")
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        begun = self.begun or self._begin(optimizer, groups)
        other_trainings.check_goes_on(optimizer, begun.optimizer)
        trained = self._trained(optimizer)
        if not self._clips.clipping:
            unsupported.check_gradients(self._made, {name: begun.leaves[name] for name in trained})
        self._take(begun, trained, self._clips.raw)

    def _begin(self, optimizer: Any, groups: Mapping[int, Mapping[str, Any]]) -> Begun:
        self._names, self.begun = begin(optimizer, groups, self._passes.leaves(), self._models, self._live, self._limit)
        self.begun.clipping = self._clips.clipping
        return self.begun

    def _on_change(self, leaf: torch.Tensor, value: Any) -> None:
        if self._active and isinstance(value, Lost):
            self._problem_is(value.reason)
        elif self._active and self._passes.listed:
            self._by_hand.change(leaf, value)

    def _is_own_gradient(self, leaf: torch.Tensor, gradient: torch.Tensor) -> bool:
        made = self._made.get(id(leaf))
        return bool(self._clips.clipping) or made is None or (made[0] is gradient and made[1] == gradient._version)

    def _moved(self) -> None:
        """A forward pass begins: where the program has moved its weights by hand since, that was a step."""
        if not self._active or not self._by_hand.changes:
            return
        try:
            self._take_by_hand()
        except UnsupportedError as error:
            self._problem_is(error)
        self._let_go()

    def _take_by_hand(self) -> None:
        moved = self._by_hand.steps()
        groups = {key: {"lr": rate, **PLAIN_SGD} for key, (_, rate, _) in moved.items()}
        if self.begun is None:
            self._live = self._by_hand.copied()
        begun = self.begun or self._begin(None, groups)
        if not begun.by_hand:
            raise UnsupportedError("weights are moved by hand, and by an optimizer before")
        unknown = [key for key in moved if key not in self._names]
        if unknown:
            raise UnsupportedError("weights are moved by hand that were not there at the first step")
        trained = {self._names[key]: group for key, group in groups.items()}
        self._before = {
            name: self._by_hand.before.get(key, to_array(begun.leaves[name])) for key, name in self._names.items()
        }
        self._take(begun, trained, {key: gradient for key, (_, _, gradient) in moved.items()} | self._clips.raw)
        self._end(None)
        self._clips.clear()

    def _take(self, begun: Begun, trained: Mapping[str, Mapping[str, Any]], raw: Mapping[int, Array]) -> None:
        unsupported.check_settings(
            {name: plain(group) for name, group in trained.items()}, begun.rules, (begun.leaves, begun.leaves)
        )
        if self.done:
            before = self._before or begun.keeper.last.weights
            self._given |= {name for name in begun.frozen if not same_array(before[name], begun.initial[name])}
            moved_alone = {name: values for name, values in before.items() if name not in self._given}
            unsupported.check_untouched(begun.keeper.last.weights, moved_alone)
        moved = {name: begun.leaves[name] for name in trained}
        unsupported.check_clipping(self._clips, begun.clipping, moved)
        outputs = {value: tensor for value, tensor, version in self._outputs if version_of(tensor) == version}
        encoded = graph_encoding.encode(
            [(value, seed) for value, seed, _ in self._passes.listed],
            list(outputs),
            self._interned,
            self._leaf_name,
            self._states.name,
        )
        self._states.check(begun, encoded)
        if not self.steps.place(encoded, self._limit / 2):
            self._stop()
            return
        if len(self.steps.kinds) > _KINDS:
            raise UnsupportedError(f"the program computes its loss in more than {_KINDS} different ways")
        reached = set(self._passes.calls())
        kept = tuple(to_array(tensor) for value, tensor in outputs.items() if value.call in reached)
        worth = self._passes.worth
        self.steps.losses.append(worth)
        made = gradients(begun.leaves, begun.rules, raw)
        begun.keeper.begin({"outputs": kept, "loss": worth.reshape(())}, made)
        for name, group in trained.items():
            begun.learning_rates[name].append(float(group["lr"]))

    def _stop(self) -> None:
        if not self.done:
            raise UnsupportedError(
                f"the first batch takes more than half the memory limit of {self._limit:,.0f} bytes. Record with a "
                "larger memory_limit, on the command line --memory-limit BYTES"
            )
        self.stopped = True
        self.steps.kind_of_batch = self.steps.kind_of_batch[: len(self.steps.pool.batches)]

    def _trained(self, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
        found = {
            self._names[id(parameter)]: group
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and id(parameter) in self._names
        }
        if not found:
            raise UnsupportedError("no gradient reached any parameter of the optimizer. Call backward() before step()")
        return found

    def _leaf_name(self, tensor: torch.Tensor) -> str | None:
        name = self._names.get(id(tensor))
        return None if name in self._given else name

    def _end(self, optimizer: torch.optim.Optimizer | None) -> None:
        if self.stopped or self.begun is None:
            return
        leaves = self.begun.leaves
        state, others = ({}, {}) if optimizer is None else optimizer_state(optimizer, leaves)
        weights = {name: to_array(tensor) for name, tensor in leaves.items()}
        # What the program itself changes is fed as it is given, step by step: of the leaf, the first values stay.
        weights |= {name: self.begun.initial[name] for name in self._given}
        buffers = self._states.after(self.begun)
        self.begun.keeper.end(After(weights, state, buffers, others), self.steps.pool.size)

    # -- the end

    def finish(self) -> Begun:
        """What was seen, once the program has ended.

        Raises:
            UnsupportedError: it never stepped an optimizer, or did something that cannot be recorded.
        """
        self._moved()
        if self._problem is not None:
            raise UnsupportedError(f"{self._name}: {self._problem}")
        if self.begun is None or not self.done:
            raise UnsupportedError(f"{self._name} ran to its end and never stepped an optimizer")
        return self.begun

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        by_hand = [BY_HAND] if self.begun and self.begun.by_hand else []
        if not self.stopped:
            return by_hand
        return [
            *by_hand,
            f"The recording ends after {count(self.done, 'step')}: the batches seen until then take half the memory "
            f"limit of {self._limit:,.0f} bytes. What is judged is the training up to there.",
        ]


def _owns(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters())
