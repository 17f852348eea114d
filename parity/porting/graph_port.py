"""A port from the graphs of a recording: each operation by the table of PyTorch's functions in JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._errors import UnsupportedError
from parity.porting import torch_optimizer
from parity.porting.port import Port
from parity.porting.torch_functions import FUNCTIONS, dtype_of
from parity.porting.torch_functions.registry import is_floating
from parity.recording import graph as _graph
from parity.recording.graph import NUMBER, Graph, Operation, Ref
from parity.recording.recording import Recording

_ADVICE = (
    "Give its JAX counterpart with parity.register, or write the port yourself and name it with --port FILE.py:NAME"
)


def port(recording: Recording) -> Port:
    """Make the JAX counterpart of a training that was recorded as graphs.

    Raises:
        UnsupportedError: it uses a function or an optimizer that the tables have not; the message names it.
    """
    _require_functions(recording)
    frozen = set(recording.frozen)
    has_state = bool(recording.initial_buffers)

    def apply(params: Any, *rest: Any) -> Any:
        state, inputs = rest if has_state else ({}, rest[0])
        ((kind, given),) = inputs.items()
        leaves = {name: lax.stop_gradient(leaf) if name in frozen else leaf for name, leaf in params.items()}
        made, after = run(recording.graphs[kind], leaves, given["tensors"], given.get("numbers"), state)
        return (made, {**state, **after}) if has_state else made

    made = Port(
        params=dict(recording.initial),
        apply=apply,
        loss=lambda predictions, _: predictions["loss"],
        optimizer=torch_optimizer.of(recording),
        names={name: name for name in (*recording.initial, *recording.initial_buffers)},
        state=dict(recording.initial_buffers) if has_state else None,
    )
    _trace(recording, made)
    return made


def _trace(recording: Recording, made: Port) -> None:
    """Follow each kind of step once: what cannot be ported is said before anything runs."""
    seen: set[str] = set()
    for batch in recording.batches:
        if not seen & batch.inputs.keys():
            seen |= batch.inputs.keys()
            inputs = jax.tree.map(_abstract(recording.dtype), batch.inputs)
            state = () if made.state is None else (made.state,)
            jax.eval_shape(made.apply, made.params, *state, inputs)


def _abstract(dtype: np.dtype[Any]) -> Any:
    """Give arrays as a replay feeds them: floating ones in the recording's dtype, whole numbers in 32 bits."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        kinds = {"f": dtype, "i": np.dtype(np.int32), "u": np.dtype(np.uint32)}
        return jax.ShapeDtypeStruct(leaf.shape, kinds.get(leaf.dtype.kind, leaf.dtype))  # type: ignore[no-untyped-call]

    return shape


def _require_functions(recording: Recording) -> None:
    for graph in recording.graphs.values():
        for operation in graph.operations:
            if operation.name not in FUNCTIONS:
                where = f". In {operation.place}" if operation.place else ""
                raise UnsupportedError(
                    f"the program calls torch's {operation.name}, which parity cannot port by itself. {_ADVICE}{where}"
                )


def run(
    graph: Graph, leaves: Mapping[str, Any], inputs: Any, numbers: Any, state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute a graph in JAX.

    Args:
        graph: of one kind of step.
        leaves, state: by name.
        inputs: the tensors that come from elsewhere.
        numbers: the numbers that change from step to step.

    Returns:
        What the models returned and the loss; and the states afterwards.
    """
    made: list[Any] = []

    def tensor(ref: Ref) -> Any:
        if ref.kind == "leaf":
            return leaves[str(ref.key)]
        if ref.kind == "state":
            return state[str(ref.key)]
        value = jnp.asarray(inputs[int(ref.key)]) if ref.kind == "input" else made[int(ref.key)]
        for key in ref.path:
            value = value[key]
        return value

    def special(key: str, value: Any) -> Any:
        return numbers[value] if key == NUMBER else dtype_of(value)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for operation in graph.operations:
            made.append(_computed(operation, tensor, special))  # noqa: PERF401, later ones read earlier ones
        terms = [_term(_graph.filled(pair, tensor, special)) for pair in graph.roots]
        loss = sum(terms[1:], *terms[:1])
    outputs = tuple(_graph.filled(value, tensor, special) for value in graph.outputs)
    after = {name: _graph.filled(value, tensor, special) for name, value in graph.after.items()}
    return {"loss": loss, "outputs": outputs}, after


def _term(pair: Any) -> Any:
    """Return a root times what it is multiplied with."""
    root, factor = pair
    return root.reshape(()) if isinstance(factor, float) and factor == 1.0 else factor * root.reshape(())


def _computed(operation: Operation, tensor: Any, special: Any) -> Any:
    args = _graph.filled(operation.args, tensor, special)
    kwargs = _graph.filled(operation.kwargs, tensor, special)
    try:
        out = FUNCTIONS[operation.name](*args, **kwargs)
    except Exception as error:
        where = f". In {operation.place}" if operation.place else ""
        first = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"torch's {operation.name} is called in a way that parity cannot port by itself ({first}). {_ADVICE}{where}"
        ) from error
    if operation.in_place and operation.stops:
        # Autograd does not see it: the gradient goes on to what the tensor was before.
        return lax.stop_gradient(out) + (args[0] - lax.stop_gradient(args[0])) if is_floating(out) else out
    return jax.tree.map(lax.stop_gradient, out) if operation.stops else out
