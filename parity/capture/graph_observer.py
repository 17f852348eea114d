"""The graph observer: follows any training by its tensors, from leaves to the roots of ``backward``, step by step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from parity._errors import UnsupportedError
from parity._words import count
from parity.capture import graph_encoding, leaf_names, other_trainings, source_places, unsupported
from parity.capture.clipping_hooks import Watch
from parity.capture.graph_encoding import Interned
from parity.capture.graph_passes import Passes
from parity.capture.graph_steps import Begun, Steps
from parity.capture.graph_tape import GraphTape, Made
from parity.capture.observed_run import environment, gradients, optimizer_state, plain
from parity.capture.operation_tape import version_of
from parity.capture.step_retention import After, Keeper
from parity.capture.torch_tensors import tensors_of, to_array
from parity.recording.recording import Array

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
        self.tape = GraphTape(self._on_backward)
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
        self._states: dict[int, str] = {}
        self._taken = False
        self._before: dict[str, Array] = {}

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
    def _on_backward(self, roots: list[tuple[torch.Tensor, Any, Any]]) -> Iterator[None]:
        if self._active:
            try:
                self._passes.begin(roots)
            except UnsupportedError as error:
                self._problem_is(error)
        self.tape.off = True
        try:
            yield
        finally:
            self.tape.off = not self._active
        if self._active:
            self._made = {
                id(leaf): (leaf.grad, leaf.grad._version)
                for leaf in self._passes.leaves()
                if leaf.requires_grad and leaf.grad is not None
            }

    @source_places.hook
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.tape.in_step = True
        self._taken = False
        if not self._active:
            return
        try:
            if self.begun is None and not self._names:
                self._live = self._copied(optimizer)
            self._before = {name: to_array(leaf) for name, leaf in self.begun.leaves.items()} if self.begun else {}
            if self._passes.listed:
                self._take(optimizer)
        except UnsupportedError as error:
            self._problem_is(error)

    @source_places.hook
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.tape.in_step = False
        if self._active:
            try:
                if not self._taken:
                    self._take(optimizer)
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
        self.tape.forget()

    # -- one step

    def _copied(self, optimizer: torch.optim.Optimizer) -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
        """The optimizer's tensors and all leaves that are seen so far, copied together with the optimizer."""
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        others = [leaf.tensor for leaf in self.tape._leaves.values()]
        tensors = list({id(tensor): tensor for tensor in [*held, *others]}.values())
        if any(state and float(state.get("step", 1)) > 0 for state in optimizer.state.values()):
            raise UnsupportedError("the optimizer starts with a state of its own. Record a training from its start")
        self._originals = tensors
        try:
            live, own = copy.deepcopy((tensors, optimizer))
        except Exception as error:
            raise UnsupportedError(
                f"the optimizer, a {type(optimizer).__name__}, cannot be copied for the float64 run: {error}"
            ) from None
        return live, own

    def _take(self, optimizer: torch.optim.Optimizer) -> None:
        self._taken = True
        if not self._passes.listed:
            raise UnsupportedError(
                "backward() was not called on a loss since the last step. Call it once before every optimizer.step()"
            )
        other_trainings.check_scaler()
        begun = self.begun or self._begin(optimizer)
        if optimizer is not begun.optimizer:
            raise UnsupportedError(
                f"another {type(optimizer).__name__} than at step 0 takes the step: there are several optimizers, and "
                "a training that takes turns cannot be judged yet"
            )
        trained = self._trained(optimizer)
        unsupported.check_settings(
            {name: plain(group) for name, group in trained.items()}, begun.rules, (begun.leaves, begun.leaves)
        )
        if self.done:
            unsupported.check_untouched(begun.keeper.last.weights, self._before or begun.keeper.last.weights)
        moved = {name: begun.leaves[name] for name in trained}
        unsupported.check_clipping(self._clips, begun.clipping, moved)
        if not self._clips.clipping:
            unsupported.check_gradients(self._made, moved)
        outputs = {value: tensor for value, tensor, version in self._outputs if version_of(tensor) == version}
        encoded = graph_encoding.encode(
            [(value, seed) for value, seed, _ in self._passes.listed],
            list(outputs),
            self._interned,
            lambda tensor: self._names.get(id(tensor)),
            self._state_name,
        )
        self._check_states(begun, encoded)
        if not self.steps.place(encoded, self._limit / 2):
            self._stop()
            return
        if len(self.steps.kinds) > _KINDS:
            raise UnsupportedError(f"the program computes its loss in more than {_KINDS} different ways")
        reached = set(self._passes.calls())
        kept = tuple(to_array(tensor) for value, tensor in outputs.items() if value.call in reached)
        worth = self._passes.worth
        self.steps.losses.append(worth)
        made = gradients(begun.leaves, begun.rules, self._clips.raw)
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

    def _state_name(self, tensor: torch.Tensor) -> str:
        if id(tensor) not in self._states:
            known = leaf_names.of([tensor], self._models)
            self._states[id(tensor)] = known[id(tensor)]
        return self._states[id(tensor)]

    def _check_states(self, begun: Begun, encoded: graph_encoding.Encoded) -> None:
        for name, state in encoded.states.items():
            first = to_array(state.first)
            if not self.done:
                begun.initial_states[name] = first
            elif name not in begun.initial_states:
                raise UnsupportedError(f"{name} is changed by this step, and was not by the first one")
            else:
                unsupported.check_buffers({name: begun.keeper.last.buffers[name]}, {name: first})
        if not self.done:
            begun.keeper.last.buffers.update(begun.initial_states)
        self._tensors = {name: state.tensor for name, state in encoded.states.items()}

    def _begin(self, optimizer: torch.optim.Optimizer) -> Begun:
        trained = {id(p): p for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        known = {id(original): (original, own) for original, own in zip(self._originals, self._live[0], strict=True)}
        reached = self._passes.leaves()
        wanted = [leaf for leaf in reached if id(leaf) in trained or isinstance(leaf, torch.nn.Parameter)]
        names = leaf_names.of(wanted, self._models)
        self._names = {key: name for key, name in names.items() if key in known}
        live = {name: known[key][1] for key, name in self._names.items()}
        leaves = {name: known[key][0] for key, name in self._names.items()}
        initial = {name: to_array(tensor) for name, tensor in live.items()}
        rules = {name: plain(group) for name, group in self._trained(optimizer).items()}
        device = str(next(iter(leaves.values())).device)
        self.begun = Begun(
            optimizer=optimizer,
            leaves=leaves,
            rules=rules,
            learning_rates={name: [] for name in rules},
            initial=initial,
            initial_states={},
            live=(list(live.values()), self._live[1]),
            keeper=Keeper(self._limit, After(initial, {}, {})),
            environment=environment(device) | {"optimizer_line": source_places.told()},
            clipping=self._clips.clipping,
            model=", ".join(type(module).__name__ for module in self._models),
        )
        return self.begun

    def _end(self, optimizer: torch.optim.Optimizer) -> None:
        if self.stopped or self.begun is None:
            return
        leaves: Any = self.begun.leaves
        state, others = optimizer_state(optimizer, leaves)
        weights = {name: to_array(tensor) for name, tensor in leaves.items()}
        last = self.begun.keeper.last.buffers
        buffers = {name: to_array(self._tensors[name]) if name in self._tensors else last[name] for name in last}
        self.begun.keeper.end(After(weights, state, buffers, others), self.steps.pool.size)

    # -- the end

    def finish(self) -> Begun:
        """What was seen, once the program has ended.

        Raises:
            UnsupportedError: it never stepped an optimizer, or did something that cannot be recorded.
        """
        if self._problem is not None:
            raise UnsupportedError(f"{self._name}: {self._problem}")
        if self.begun is None or not self.done:
            raise UnsupportedError(f"{self._name} ran to its end and never stepped an optimizer")
        return self.begun

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        if not self.stopped:
            return []
        return [
            f"The recording ends after {count(self.done, 'step')}: the batches seen until then take half the memory "
            f"limit of {self._limit:,.0f} bytes. What is judged is the training up to there."
        ]


def _owns(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters())
