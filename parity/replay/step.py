"""One step of a port as a pure function, locked to what was recorded or free; JAX can trace it in any precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parity.porting.optax_state import is_hole, optimizer_state
from parity.porting.parameter_names import Names
from parity.porting.port import Port, of_arrays
from parity.replay.batches import Parts, cast

Step = Callable[[Any, Any, Any, Parts], tuple[Any, Any]]


def locked_step(port: Port, names: Names, keys: Collection[str] = ()) -> Step:
    """One step from what was recorded.

    Args:
        port: the port.
        names: the mapping of its leaves.
        keys: PyTorch's keys of the recorded optimizer state, which say what a field of an Optax state stands for.

    Returns:
        ``step(optimizer state, (weights, gradients, buffers), batch, parts)``: the optimizer's state before the step,
        what was recorded, by PyTorch's names; ``(inputs, targets)``; and the rows of each backward pass, which are not
        traced. It gives the optimizer's next state, and ``(predictions, loss, gradients, buffers, state, weights)``:
        forward, loss, gradients and the model's next state at the recorded weights and buffers; the optimizer's next
        state and the next weights, from the recorded gradients; all by PyTorch's names.
    """
    port = of_arrays(port)

    def step(state: Any, recorded: Any, batch: Any, parts: Parts) -> tuple[Any, Any]:
        weights, gradients, buffers = recorded
        params = names.to_port(weights)
        before = model_state(port, names, buffers, weights)
        predictions, value, own, after = forward_backward(port, params, before, batch, parts)
        moved, state = update(port, names.to_port(gradients), state, params)
        named = named_state(names, state, params, keys)
        made = (predictions, value, names.from_port(own), named_buffers(names, after), named, names.from_port(moved))
        return state, made

    return step


def free_step(port: Port, names: Names, keys: Collection[str] = ()) -> Step:
    """One step of the port on its own.

    Args:
        port: the port.
        names: the mapping of its leaves.
        keys: as in :func:`locked_step`.

    Returns:
        ``step(carry, None, batch, parts)``: the carry is ``(params, optimizer state, model state)``, see
        :func:`free_start`. It gives the next carry, and what :func:`locked_step`'s gives.
    """
    port = of_arrays(port)

    def step(carry: Any, _: Any, batch: Any, parts: Parts) -> tuple[Any, Any]:
        params, state, own = carry
        predictions, value, gradients, own = forward_backward(port, params, own, batch, parts)
        moved, state = update(port, gradients, state, params)
        named, buffers = named_state(names, state, params, keys), named_buffers(names, own)
        made = (predictions, value, names.from_port(gradients), buffers, named, names.from_port(moved))
        return (moved, state, own), made

    return step


def free_start(port: Port, dtype: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """What the port starts from on its own: parameters, the optimizer's state, the model's state."""
    port = of_arrays(port)
    params = cast(port.params, dtype)
    return params, port.optimizer.init(params), None if port.state is None else cast(port.state, dtype)


def model_state(port: Port, names: Names, buffers: Any, weights: Any) -> Any:
    """The model's own state with PyTorch's buffers in it; what is no buffer is as the port has it."""
    if port.state is None:
        return None
    dtype = np.dtype(jnp.result_type(*weights.values()))
    own = cast(port.state, dtype)
    return own if names.buffers is None else names.buffers.to_port(buffers, own)


def named_buffers(names: Names, state: Any) -> dict[str, Any]:
    """The model's own state by PyTorch's buffer names."""
    return {} if names.buffers is None or state is None else names.buffers.from_port(state)


def named_state(names: Names, state: Any, params: Any, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """The optimizer's state by PyTorch's key and parameter name."""
    return {
        key: {name: leaf for name, leaf in names.from_port(value, is_hole).items() if not is_hole(leaf)}
        for key, value in optimizer_state(state, params, keys).items()
    }


def forward_backward(port: Port, params: Any, state: Any, batch: Any, parts: Parts) -> tuple[Any, Any, Any, Any]:
    """Predictions, loss, gradients and the model's next state, over the backward passes of a step.

    Gradients and losses of several passes are added up, as PyTorch adds them up; predictions follow one another.
    """
    passes = []
    for inputs, targets in pieces(batch, parts):
        value, gradients, predictions, state = _one_pass(port, params, state, inputs, targets)
        passes.append((predictions, value, gradients))
    if len(passes) == 1:
        return (*passes[0], state)
    predictions = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[made for made, _, _ in passes])
    total = [jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *[one[place] for one in passes]) for place in (1, 2)]
    return predictions, total[0], total[1], state


def _one_pass(port: Port, params: Any, state: Any, inputs: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
    def objective(params: Any) -> tuple[Any, Any]:
        predictions, after = port.apply(params, state, inputs)
        return port.loss(predictions, targets), (predictions, after)

    (value, (predictions, after)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    # A state that comes back in another dtype could not be carried to the next step.
    return value, gradients, predictions, jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)


def pieces(batch: Any, parts: Parts) -> list[Any]:
    """A batch in the rows of each backward pass; an array that has other rows goes whole into each."""
    if len(parts) == 1:
        return [batch]
    ends = list(itertools.accumulate(parts))

    def cut(start: int, end: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[start:end] if leaf.ndim and len(leaf) == ends[-1] else leaf, batch)

    return [cut(end - rows, end) for rows, end in zip(parts, ends, strict=True)]


def update(port: Port, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """The next parameters and the optimizer's next state."""
    updates, state = port.optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state
