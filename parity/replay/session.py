"""The Session: a port and a recording made ready for each other, once, for replay, bounds and causes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.porting import parameter_names
from parity.porting.optax_state import is_hole, optimizer_state
from parity.porting.parameter_names import Names
from parity.porting.port import Port, of_arrays
from parity.recording.recording import Array, Recording, Tensors
from parity.replay import batches
from parity.replay.batches import Feed, Parts, cast
from parity.replay.step import Carry, Step, StepInput, StepResult, TrainingStep


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What a port starts from and is fed, in one dtype. Made where it is first asked for, on JAX's default device.

    Attributes:
        port, names, recording: as in the :class:`Session`.
        dtype: of all floating numbers.
    """

    port: Port
    names: Names
    recording: Recording
    dtype: np.dtype[Any]
    # The rows that were asked for last: a training's bounds are followed several times over the same.
    _last: dict[tuple[int, int], StepInput] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def recorded(self) -> Feed:
        """The batches that PyTorch was fed."""
        return batches.recorded(self.recording, self.dtype)

    @functools.cached_property
    def own(self) -> Feed:
        """The batches that the port feeds itself: those of PyTorch, unless it brings its own.

        Raises:
            PortError: it brings batches for more steps than PyTorch made, or fewer.
        """
        if self.port.batches is None:
            return self.recorded
        return batches.own(self.port.batches, self.recording, self.dtype)

    @functools.cached_property
    def start(self) -> Carry:
        """The port's own initial weights and states."""
        params = cast(self.port.params, self.dtype)
        model = None if self.port.state is None else cast(self.port.state, self.dtype)
        return Carry(params, self.port.optimizer.init(params), model)

    @functools.cached_property
    def params(self) -> Any:
        """The recorded initial weights, in the port's tree."""
        return self.names.to_port(cast(dict(self.recording.initial), self.dtype))

    @functools.cached_property
    def optimizer_state(self) -> Any:
        """The port's optimizer state before the first step, for the recorded initial weights."""
        return self.port.optimizer.init(self.params)

    def step_inputs(self, rows: slice) -> StepInput:
        """Return what was recorded of the start of some kept steps; leading axis the rows."""
        key = rows.start, rows.stop
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._step_inputs(rows)
        return self._last[key]

    def _step_inputs(self, rows: slice) -> StepInput:
        recording = self.recording
        starts, after, length = recording.starts, recording.observed, rows.stop - rows.start
        gradients = {
            name: after.gradients[name][rows] if name in after.gradients else np.zeros((length, *values.shape))
            for name, values in recording.initial.items()
        }
        given = StepInput(
            _before(recording.initial, after.weights, starts.weights if starts else None, rows),
            gradients,
            _before(recording.initial_buffers, after.buffers, starts.buffers if starts else None, rows),
        )
        made: StepInput = batches.numbers(given, self.dtype)
        return made

    def optimizer_states(self, rows: slice) -> Any:
        """Return the optimizer's recorded state before some kept steps, by PyTorch's key and name."""
        starts = self.recording.starts
        state = starts.state if starts is not None else {}
        return batches.numbers({key: {n: v[rows] for n, v in some.items()} for key, some in state.items()}, self.dtype)


def _before(first: Tensors, after: Tensors, starts: Tensors | None, rows: slice) -> dict[str, Array]:
    """Return tensors as they were before some kept steps, from those after each step."""
    if starts is not None:
        return {name: values[rows] for name, values in starts.items()}
    if rows.start == 0:
        return {n: np.concatenate([first[n][None], values[: rows.stop - 1]]) for n, values in after.items()}
    return {name: values[rows.start - 1 : rows.stop - 1] for name, values in after.items()}


class Session:
    """A port and a recording made ready for each other; :meth:`of` makes one.

    Attributes:
        port: the port, with nothing but arrays in its trees.
        recording: the recording.
        names: how PyTorch's names map onto the port's leaves.
        step: the pure functions of the port's step.
    """

    def __init__(self, port: Port, recording: Recording, names: Names) -> None:
        self.port, self.recording, self.names = port, recording, names
        self.step = TrainingStep(port.apply, port.loss, port.optimizer)
        # PyTorch's keys of the recorded optimizer state, which say what a field of an Optax state stands for.
        self._keys = tuple(recording.observed.state)
        self._inputs: dict[Any, Inputs] = {}

    @classmethod
    def of(cls, port: Port, recording: Recording) -> Session:
        """Make a port and a recording ready for each other.

        Raises:
            PortError: the port's parameters do not pair up with the recorded ones.
        """
        names = parameter_names.of(port, recording)
        return cls(of_arrays(port), recording, names)

    def with_port(self, port: Port, names: Names | None = None) -> Session:
        """Return a session of another port, made from this one's: its trees are like this one's.

        Its parameters go by this one's names, or by ``names``.
        """
        return Session(port, self.recording, names or self.names)

    def inputs(self, dtype: np.dtype[Any]) -> Inputs:
        """Return what the port starts from and is fed in a dtype: the same object each time on one device.

        Ask for float64 under ``jax.enable_x64``.
        """
        key = dtype, jax.config.jax_default_device  # type: ignore[attr-defined]
        if key not in self._inputs:
            self._inputs[key] = Inputs(self.port, self.names, self.recording, dtype)
        return self._inputs[key]

    def locked_step(self) -> Step:
        """Return one step from what was recorded.

        It takes the optimizer's state before the step, a :class:`StepInput`, the batch, and the rows of each backward
        pass, which are not traced. It gives the optimizer's next state, and a :class:`StepResult`: forward, loss,
        gradients and the model's next state at the recorded weights and buffers; the optimizer's next state and the
        next weights, from the recorded gradients.
        """

        def step(state: Any, recorded: StepInput, batch: Any, parts: Parts) -> tuple[Any, StepResult]:
            params = self.names.to_port(recorded.weights)
            before = self.model_state(recorded.buffers, recorded.weights)
            made = self.step.forward_backward(params, before, batch, parts)
            moved, state = self.step.update(self.names.to_port(recorded.gradients), state, params)
            return state, self.named(made, moved, state, params)

        return step

    def free_step(self) -> Step:
        """Return one step of the port on its own: from a :class:`Carry` to the next, and a :class:`StepResult`."""

        def step(carry: Carry, _: None, batch: Any, parts: Parts) -> tuple[Carry, StepResult]:
            made = self.step.forward_backward(carry.params, carry.model, batch, parts)
            moved, state = self.step.update(made.gradients, carry.optimizer, carry.params)
            return Carry(moved, state, made.model), self.named(made, moved, state, carry.params)

        return step

    def named(self, made: Any, moved: Any, state: Any, params: Any) -> StepResult:
        """Put what a step made under PyTorch's names.

        Args:
            made: the :class:`parity.replay.step.Pass`.
            moved, state: the next parameters, and the optimizer's next state.
            params: parameters like those that the optimizer has.
        """
        return StepResult(
            predictions=made.predictions,
            loss=made.loss,
            gradients=self.names.from_port(made.gradients),
            buffers=self.named_buffers(made.model),
            state=self.named_state(state, params),
            weights=self.names.from_port(moved),
        )

    def model_state(self, buffers: Any, weights: Any) -> Any:
        """Return the model's own state with PyTorch's buffers in it; what is no buffer is as the port has it."""
        if self.port.state is None:
            return None
        own = cast(self.port.state, np.dtype(jnp.result_type(*weights.values())))
        return own if self.names.buffers is None else self.names.buffers.to_port(buffers, own)

    def named_buffers(self, state: Any) -> dict[str, Any]:
        """Return the model's own state by PyTorch's buffer names."""
        return {} if self.names.buffers is None or state is None else self.names.buffers.from_port(state)

    def named_state(self, state: Any, params: Any) -> dict[str, dict[str, Any]]:
        """Return the optimizer's state by PyTorch's key and parameter name."""
        return {
            key: {name: leaf for name, leaf in self.names.from_port(value, is_hole).items() if not is_hole(leaf)}
            for key, value in optimizer_state(state, params, self._keys).items()
        }
