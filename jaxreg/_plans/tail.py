"""The end of a training that diverges: from where it could overflow, step by step in the model's own dtype."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxreg import _optax
from jaxreg._plans.stepwise import Data, Loss, Outcome, one_step

# Steps of one call, and how many calls a training may take from where it could overflow to where all is NaN. One that
# diverges more slowly than that gains less than a millionth a step.
_STEPS, _CALLS = 64, 1 << 18


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "count", "record"))
def _some(
    carry: Any,
    data: Data,
    *,
    graph: Any,
    optimizer: Any,
    loss: Loss,
    count: int,
    record: frozenset[str],
) -> tuple[Any, Any, Any]:
    step = one_step(graph, optimizer, loss, record)
    carry, kept = lax.scan(lambda carry, _: step(carry, data), carry, None, length=count)
    lost = [jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves((carry[0], kept[0][-1:]))]
    return carry, kept, jnp.all(jnp.stack(lost))


def run(
    params: Any,
    rest: Any,
    state: Any,
    data: Data,
    *,
    graph: Any,
    optimizer: Any,
    loss: Loss,
    steps: int,
    record: frozenset[str],
) -> Outcome:
    """Train on for ``steps`` steps, or until there is nothing left but NaN: then with fewer steps kept."""
    carry, pieces = (params, rest, state), []
    for count in _counts(steps):
        carry, kept, lost = _some(carry, data, graph=graph, optimizer=optimizer, loss=loss, count=count, record=record)
        pieces.append(kept)
        if bool(lost):
            break
    params = _optax.trained(carry[0], carry[2])
    losses, gradients, weights = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
    return Outcome(params, carry[1], losses, gradients, weights)


def _counts(steps: int) -> Iterator[int]:
    for start in range(0, min(steps, _STEPS * _CALLS), _STEPS):
        yield min(_STEPS, steps - start)


def joined(asked: np.ndarray[Any, Any], known: Any, later: Any, begin: int) -> Any:
    """What was asked for at these steps: from ``known`` before ``begin``, from there on from ``later``."""

    def leaf(first: Any, second: Any) -> Any:
        rows = np.clip(asked - begin, 0, second.shape[0] - 1)
        after = np.where(_along(asked - begin < second.shape[0], second), np.asarray(second)[rows], np.nan)
        return jnp.asarray(np.where(_along(asked < begin, second), np.asarray(first), after), second.dtype)

    return jax.tree.map(leaf, known, later)


def _along(flags: np.ndarray[Any, Any], leaf: Any) -> np.ndarray[Any, Any]:
    return flags.reshape(-1, *[1] * (leaf.ndim - 1))
