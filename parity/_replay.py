"""Replaying a port on a recording: locked to the recorded state at every step, and free, in both precisions."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from parity import _names
from parity._errors import PortError
from parity._ports import Port, is_hole, optimizer_state
from parity._recording import Array, Recording, Tensors, Trace

Parts = tuple[int, ...]
Step = Callable[[Any, Any, Any, Parts], tuple[Any, Any]]
# Steps laid out in one turn of the compiled loop where it is timed; see jaxreg's stepwise plan.
_UNROLL = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """What the port did on a recording.

    Attributes:
        initial: the port's own initial weights, by PyTorch's names and layout.
        locked: each step from the recorded state, in the recording's dtype: forward, loss and gradient at the recorded
            weights, the optimizer fed the recorded gradients.
        free: from the port's initial weights, on its own, in the recording's dtype.
        locked64, free64: the same in float64, always on the CPU.
        evaluations: the free replay's answers to the recording's evaluations.
        device: where ``locked`` and ``free`` ran.
    """

    initial: Tensors
    locked: Trace
    free: Trace
    locked64: Trace
    free64: Trace
    evaluations: tuple[Array, ...]
    device: str


def replay(port: Port, recording: Recording) -> Replay:
    """Run ``port`` on ``recording``.

    Raises:
        PortError: its parameters do not pair up with the recorded ones, or it fails when it is run.
    """
    shapes = {name: values.shape for name, values in recording.initial.items()}
    names = _names.resolve(shapes, port.params, port.names)
    with _failures_as_port_errors():
        locked, free = _both(port, names, recording, recording.dtype)
        with jax.default_device(jax.devices("cpu")[0]):
            locked64, free64 = _both(port, names, recording, np.dtype(np.float64))
        device = jax.devices()[0]
        return Replay(
            initial=jax.tree.map(np.asarray, names.from_port(port.params)),
            locked=locked,
            free=free,
            locked64=locked64,
            free64=free64,
            evaluations=_evaluate(port, names, recording, free),
            device=f"{device.platform}: {device.device_kind}",
        )


def training(port: Port, recording: Recording) -> Callable[[], Any]:
    """The free replay as one compiled program that keeps the losses only, ready to be timed."""

    def step(carry: Any, _: Any, batch: Any, parts: Parts) -> tuple[Any, Any]:
        params, state = carry
        _, value, gradients = _forward_backward(port, params, batch, parts)
        return _update(port, gradients, state, params), value

    with _types_of(recording.dtype):
        params = _cast(port.params, recording.dtype)
        carry = (params, port.optimizer.init(params))
        whole, arguments = _program(step, carry, None, recording, recording.dtype, unroll=_UNROLL)
        compiled = jax.jit(whole).lower(*arguments).compile()

    def train() -> Any:
        with _types_of(recording.dtype):
            return jax.block_until_ready(compiled(*arguments))  # type: ignore[no-untyped-call]

    return train


def _types_of(dtype: np.dtype[Any]) -> Any:
    """JAX's 64-bit types for a float64 training: without them it would cut float64 to float32 and say nothing."""
    return jax.enable_x64(dtype == np.float64)


@contextlib.contextmanager
def _failures_as_port_errors() -> Iterator[None]:
    try:
        yield
    except PortError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise PortError(f"the port fails when it is run: {type(error).__name__}: {first}") from error


def _both(port: Port, names: _names.Names, recording: Recording, dtype: np.dtype[Any]) -> tuple[Trace, Trace]:
    with _types_of(dtype):
        before = _cast(recording.weights_before(), dtype)
        gradients = _cast(dict(recording.observed.gradients), dtype)
        start = names.to_port(_cast(dict(recording.initial), dtype))
        carry = port.optimizer.init(start)
        locked = _drive(_locked_step(port, names), carry, (before, gradients), recording, dtype)
        own = _cast(port.params, dtype)
        free = _drive(_free_step(port, names), (own, port.optimizer.init(own)), None, recording, dtype)
    return _trace(locked), _trace(free)


def _forward_backward(port: Port, params: Any, batch: Any, parts: Parts) -> tuple[Any, Any, Any]:
    """Predictions, loss and gradients of a step, added up over its backward passes as PyTorch adds them up."""

    def one_pass(inputs: Any, targets: Any) -> tuple[Any, Any, Any]:
        def objective(params: Any) -> tuple[Any, Any]:
            predictions = port.apply(params, inputs)
            return port.loss(predictions, targets), predictions

        (value, predictions), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        return predictions, value, gradients

    if len(parts) == 1:
        return one_pass(*batch)
    ends = list(itertools.accumulate(parts))
    pieces = [jax.tree.map(lambda leaf: leaf[end - rows : end], batch) for rows, end in zip(parts, ends, strict=True)]  # noqa: B023
    passes = [one_pass(*piece) for piece in pieces]
    predictions = jnp.concatenate([made for made, _, _ in passes])
    value, gradients = functools.reduce(
        lambda a, b: jax.tree.map(jnp.add, a, b), [(value, gradients) for _, value, gradients in passes]
    )
    return predictions, value, gradients


def _update(port: Port, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    updates, state = port.optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def _locked_step(port: Port, names: _names.Names) -> Step:
    def step(state: Any, recorded: Any, batch: Any, parts: Parts) -> tuple[Any, Any]:
        weights, gradients = recorded
        params = names.to_port(weights)
        predictions, value, own = _forward_backward(port, params, batch, parts)
        after, state = _update(port, names.to_port(gradients), state, params)
        return state, (predictions, value, names.from_port(own), _named_state(names, state), names.from_port(after))

    return step


def _free_step(port: Port, names: _names.Names) -> Step:
    def step(carry: Any, _: Any, batch: Any, parts: Parts) -> tuple[Any, Any]:
        params, state = carry
        predictions, value, gradients = _forward_backward(port, params, batch, parts)
        params, state = _update(port, gradients, state, params)
        kept = (predictions, value, names.from_port(gradients), _named_state(names, state), names.from_port(params))
        return (params, state), kept

    return step


def _named_state(names: _names.Names, state: Any) -> dict[str, Any]:
    return {
        key: {name: leaf for name, leaf in names.from_port(value, is_hole).items() if not is_hole(leaf)}
        for key, value in optimizer_state(state).items()
    }


def _cast(tree: Any, dtype: np.dtype[Any]) -> Any:
    """Floating arrays in ``dtype``, others as they are; on the default device."""

    def cast(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jnp.asarray(array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array)

    return jax.tree.map(cast, tree)


def _batches(recording: Recording, dtype: np.dtype[Any]) -> list[Any]:
    return [_cast((batch.inputs, batch.targets), dtype) for batch in recording.batches]


def _drive(step: Step, carry: Any, xs: Any, recording: Recording, dtype: np.dtype[Any]) -> Any:
    """``step`` over all recorded steps, results with a leading axis: one program where the batches' shapes allow."""
    shapes = {(batch.inputs.shape, batch.targets.shape, batch.parts) for batch in recording.batches}
    if len(shapes) == 1:
        whole, arguments = _program(step, carry, xs, recording, dtype)
        return jax.tree.map(np.asarray, jax.jit(whole)(*arguments)[1])
    batches = _batches(recording, dtype)
    compiled = jax.jit(step, static_argnums=3)
    kept = []
    for number, place in enumerate(recording.batch_of_step):
        x = jax.tree.map(lambda leaf: leaf[number], xs)  # noqa: B023
        carry, out = compiled(carry, x, batches[place], recording.batches[place].parts)
        kept.append(jax.tree.map(np.asarray, out))
    # Predictions differ in shape from step to step, so they stay a list; everything else stacks.
    predictions = [out[0] for out in kept]
    return (predictions, *jax.tree.map(lambda *leaves: np.stack(leaves), *[out[1:] for out in kept]))


def _program(
    step: Step, carry: Any, xs: Any, recording: Recording, dtype: np.dtype[Any], unroll: int = 1
) -> tuple[Any, tuple[Any, ...]]:
    """The scan over all steps as a function, and its arguments. A single batch is not looked up anew at every step."""
    batches, parts = _batches(recording, dtype), recording.batches[0].parts
    single = len(batches) == 1
    data = batches[0] if single else jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

    def whole(carry: Any, xs: Any, data: Any, order: Any) -> Any:
        def body(carry: Any, item: Any) -> tuple[Any, Any]:
            x, place = item
            return step(carry, x, data if single else jax.tree.map(lambda leaf: leaf[place], data), parts)

        return lax.scan(body, carry, (xs, order), unroll=min(unroll, recording.steps))

    return whole, (carry, xs, data, jnp.asarray(recording.batch_of_step, jnp.int32))


def _trace(kept: Any) -> Trace:
    predictions, losses, gradients, state, weights = kept
    return Trace(tuple(np.asarray(row) for row in predictions), losses, gradients, state, weights)


def _evaluate(port: Port, names: _names.Names, recording: Recording, free: Trace) -> tuple[Array, ...]:
    apply = jax.jit(port.apply)
    answers = []
    with _types_of(recording.dtype):
        own = names.from_port(_cast(port.params, recording.dtype))
        for evaluation in recording.evaluations:
            weights = own if evaluation.step == 0 else {k: v[evaluation.step - 1] for k, v in free.weights.items()}
            answers.append(np.asarray(apply(names.to_port(weights), _cast(evaluation.inputs, recording.dtype))))
    return tuple(answers)
