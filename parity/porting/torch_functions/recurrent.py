"""PyTorch's recurrent layers, over a batch of sequences of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.porting.torch_functions.registry import Argument, function

Cell = Callable[[jax.Array, Any, Sequence[jax.Array]], tuple[jax.Array, Any]]


def _gates(x: jax.Array, hidden: jax.Array, weights: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    first, second = x @ weights[0].T, hidden @ weights[1].T
    return (first + weights[2], second + weights[3]) if len(weights) > 2 else (first, second)


def _lstm_cell(x: jax.Array, state: Any, weights: Sequence[jax.Array]) -> tuple[jax.Array, Any]:
    hidden, cell = state
    first, second = _gates(x, hidden, weights[:4])
    enter, forget, new, out = jnp.split(first + second, 4, -1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(out) * jnp.tanh(cell)
    return hidden, (hidden, cell)


def _gru_cell(x: jax.Array, state: Any, weights: Sequence[jax.Array]) -> tuple[jax.Array, Any]:
    (hidden,) = state
    first, second = _gates(x, hidden, weights)
    (reset, update, new), (reset2, update2, new2) = jnp.split(first, 3, -1), jnp.split(second, 3, -1)
    share = jax.nn.sigmoid(update + update2)
    candidate = jnp.tanh(new + jax.nn.sigmoid(reset + reset2) * new2)
    hidden = (1 - share) * candidate + share * hidden
    return hidden, (hidden,)


def _plain_cell(activation: Callable[[jax.Array], jax.Array]) -> Cell:
    def cell(x: jax.Array, state: Any, weights: Sequence[jax.Array]) -> tuple[jax.Array, Any]:
        first, second = _gates(x, state[0], weights)
        hidden = activation(first + second)
        return hidden, (hidden,)

    return cell


def _layers(
    cell: Cell,
    x: jax.Array,
    state: Sequence[jax.Array],
    weights: Sequence[jax.Array],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    directions = 2 if bidirectional else 1
    each = len(weights) // (num_layers * directions)
    sequence = jnp.swapaxes(x, 0, 1) if batch_first else x
    last: list[Any] = []
    for layer in range(num_layers):
        made = []
        for direction in range(directions):
            k = layer * directions + direction
            own = weights[k * each : (k + 1) * each]
            start = tuple(part[k] for part in state)

            def step(carry: Any, row: jax.Array, own: Any = own) -> tuple[Any, jax.Array]:
                out, carry = cell(row, carry, own)
                return carry, out

            end, outputs = lax.scan(step, start, sequence, reverse=direction == 1)
            made.append(outputs)
            last.append(end)
        sequence = jnp.concatenate(made, -1) if directions == 2 else made[0]
    finals = tuple(jnp.stack([end[part] for end in last]) for part in range(len(state)))
    return (jnp.swapaxes(sequence, 0, 1) if batch_first else sequence, *finals)


def _recurrent(cell: Cell, several: bool) -> Callable[..., Any]:
    def run(x: jax.Array, *args: Argument) -> Any:
        if not isinstance(args[1], list | tuple):
            raise NotImplementedError("sequences of several lengths, packed")
        state, weights, has_biases, layers, _, _, bidirectional, batch_first = args
        if several and len(weights) and len(state) == 2 and weights[0].shape[0] != 4 * state[0].shape[-1]:
            raise NotImplementedError("an LSTM with projections")
        states = state if several else (state,)
        return _layers(cell, x, states, weights, has_biases, layers, bidirectional, batch_first)

    return run


function("lstm")(_recurrent(_lstm_cell, several=True))
function("gru")(_recurrent(_gru_cell, several=False))
function("rnn_tanh")(_recurrent(_plain_cell(jnp.tanh), several=False))
function("rnn_relu")(_recurrent(_plain_cell(lambda x: jnp.where(x > 0, x, 0)), several=False))


def _cell(cell: Cell, several: bool) -> Callable[..., Any]:
    def run(x: jax.Array, state: Argument, *weights: Argument) -> Any:
        kept = [weight for weight in weights if weight is not None]
        made = cell(x, tuple(state) if several else (state,), kept)
        return made[1] if several else made[0]

    return run


function("lstm_cell")(_cell(_lstm_cell, several=True))
function("gru_cell")(_cell(_gru_cell, several=False))
function("rnn_tanh_cell")(_cell(_plain_cell(jnp.tanh), several=False))
function("rnn_relu_cell")(_cell(_plain_cell(lambda x: jnp.where(x > 0, x, 0)), several=False))
