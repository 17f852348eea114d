"""The end of a training that diverges: from where it could overflow, step by step in the model's own dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxreg._optim import optax_step
from jaxreg._plans.stepwise import Data, Loss, Outcome, one_step

Array = np.ndarray[Any, Any]
# Steps between two looks at whether all is NaN; and steps of one call, which nothing can interrupt: a few seconds.
_BLOCK, CALL = 64, 1 << 20


class Kept(NamedTuple):
    """What is kept of the steps that were asked for.

    Attributes:
        asked: the steps, ascending, counted from where the call begins; then a block of numbers that are none.
        place: of the first among them that is not reached yet.
        seen: losses, gradients, weights, with an axis as long as ``asked``; NaN where nothing was seen.
    """

    asked: Any
    place: Any
    seen: Any


def block(step: Callable[[Any], Any], carry: Any, kept: Kept, number: Any, left: Any) -> tuple[Any, Kept, Any]:
    """The block of steps that begins with ``number``, to be traced; past ``left`` of them nothing changes.

    Returns:
        What the last step leaves, what is kept, and whether there is nothing left but NaN.
    """

    def body(carry: Any, k: Any) -> Any:
        after, seen = step(carry)
        return jax.tree.map(lambda new, old: jnp.where(number + k < left, new, old), after, carry), seen

    carry, seen = lax.scan(body, carry, jnp.arange(_BLOCK, dtype=np.int32))
    # A block holds no more of the steps asked for than it has itself.
    since = lax.dynamic_slice_in_dim(kept.asked, kept.place, _BLOCK) - number
    hit, rows = (since >= 0) & (since < _BLOCK), jnp.clip(since, 0, _BLOCK - 1)

    def put(into: Any, new: Any) -> Any:
        old = lax.dynamic_slice_in_dim(into, kept.place, _BLOCK)
        chosen = jnp.where(hit.reshape(-1, *[1] * (new.ndim - 1)), new[rows], old)
        return lax.dynamic_update_slice_in_dim(into, chosen, kept.place, 0)

    place = kept.place + jnp.sum(hit, dtype=np.int32)
    lost = [jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves((carry[0], seen[0][-1:]))]
    return carry, Kept(kept.asked, place, jax.tree.map(put, kept.seen, seen)), jnp.all(jnp.stack(lost))


def through(one: Callable[[Any, Kept, Any], Any], carry: Any, kept: Kept, left: Any) -> tuple[Any, Kept, Any]:
    """Block after block, as ``one(carry, kept, number)`` makes them, until no training has steps left or is alive."""

    def goes_on(now: Any) -> Any:
        number, _, _, lost = now
        return jnp.any((number < left) & ~lost)

    def body(now: Any) -> Any:
        number, carry, kept, _ = now
        return number + _BLOCK, *one(carry, kept, number)

    start = (jnp.zeros((), np.int32), carry, kept, jnp.zeros(jnp.shape(left), bool))
    return lax.while_loop(goes_on, body, start)[1:]


def relative(asked: Array, begin: int) -> tuple[Array, Array]:
    """:class:`Kept`'s ``asked`` and ``place`` for the call that begins with this step."""
    near = np.clip(asked - begin, -1, 1 << 30).astype(np.int32)
    return np.concatenate([near, np.full(_BLOCK, -1, np.int32)]), np.asarray(np.searchsorted(asked, begin), np.int32)


def nothing_seen(shapes: Any, axes: tuple[int, ...]) -> Any:
    """NaN in place of all that will be seen, of these shapes, with leading axes of which the last is for the steps."""
    axes = (*axes[:-1], axes[-1] + _BLOCK)
    return jax.tree.map(lambda leaf: jnp.full((*axes, *leaf.shape), jnp.nan, leaf.dtype), shapes)


@functools.partial(jax.jit, static_argnames=("graph", "optimizer", "loss", "record"))
def _some(
    carry: Any, kept: Kept, left: Any, data: Data, *, graph: Any, optimizer: Any, loss: Loss, record: frozenset[str]
) -> tuple[Any, Kept, Any]:
    step = one_step(graph, optimizer, loss, record)
    one = lambda carry, kept, number: block(lambda now: step(now, data), carry, kept, number, left)  # noqa: E731
    return through(one, carry, kept, left)


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
    asked: Array,
) -> Outcome:
    """Train on for ``steps`` steps, or until there is nothing left but NaN.

    ``asked`` are the steps to keep something of, ascending, each once, counted from here.
    """
    carry = (params, rest, state)
    how: dict[str, Any] = {"graph": graph, "optimizer": optimizer, "loss": loss, "record": record}
    shapes = jax.eval_shape(lambda carry, data: one_step(**how)(carry, data)[1], carry, data)
    seen = nothing_seen(shapes, (len(asked),))
    for begin in range(0, steps, CALL):
        kept, left = Kept(*relative(asked, begin), seen), np.int32(min(steps - begin, CALL))
        carry, (_, _, seen), lost = _some(carry, kept, left, data, **how)
        if bool(lost):
            break
    seen = jax.tree.map(lambda leaf: leaf[: len(asked)], seen)
    return Outcome(optax_step.trained(carry[0], carry[2]), carry[1], *seen)


def split(asked: Array, begin: Any) -> tuple[Array, Array]:
    """The steps asked for from ``begin`` on, counted from there, ascending, each once; and where each of all is found.

    A step before ``begin`` is found at -1.
    """
    later = np.unique(asked[asked >= begin]) - begin
    return later, np.where(asked < begin, -1, np.searchsorted(later, asked - begin))


def joined(places: Array, known: Any, later: Any) -> Any:
    """What is kept of the steps asked for: from ``later`` where these places in it are at least 0, else ``known``.

    The leaves of both come in the order of their names; the tree is that of ``later``.
    """
    rows = np.maximum(places, 0)

    def leaf(first: Any, second: Any) -> Any:
        if not second.shape[0]:
            return jnp.asarray(first, second.dtype)
        flags = (places < 0).reshape(-1, *[1] * (second.ndim - 1))
        return jnp.where(flags, jnp.asarray(first, second.dtype), second[rows])

    leaves, structure = jax.tree.flatten(later)
    return jax.tree.unflatten(structure, map(leaf, jax.tree.leaves(known), leaves))
