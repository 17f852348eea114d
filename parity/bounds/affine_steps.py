"""The linear map that carries an error through one step, where the step is affine: what squared errors and SGD make."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from parity._types import Array, PyTree
from parity.replay.batches import Parts

_logger = logging.getLogger(__name__)
# Elements of the largest array of maps, and of the largest product behind one gradient's map.
_LARGEST_ARRAY_ELEMENTS = 40_000_000


class FlatTree:
    """A tree's floating leaves as one vector, the others kept aside."""

    def __init__(self, tree: PyTree) -> None:
        self._leaves, self._structure = jax.tree.flatten(tree)
        self._floats = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in self._leaves]
        self.size = sum(np.size(leaf) for leaf, is_float in zip(self._leaves, self._floats, strict=True) if is_float)

    def vector(self, tree: PyTree) -> jax.Array:
        """Return the floating leaves of a tree of this structure, one after the other."""
        parts = [
            jnp.ravel(leaf) for leaf, is_float in zip(jax.tree.leaves(tree), self._floats, strict=True) if is_float
        ]
        return jnp.concatenate(parts) if parts else jnp.zeros(0)

    def tree(self, vector: jax.Array, others: PyTree) -> PyTree:
        """Return the tree with these floating leaves, and the other leaves of ``others``."""
        made, start = [], 0
        for leaf, given, is_float in zip(self._leaves, jax.tree.leaves(others), self._floats, strict=True):
            if is_float:
                made.append(vector[start : start + np.size(leaf)].reshape(np.shape(leaf)))
                start += np.size(leaf)
            else:
                made.append(given)
        return jax.tree.unflatten(self._structure, made)


Gradient = Callable[[PyTree, PyTree, Parts], PyTree]
Update = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


def step_maps(
    gradient: Gradient,
    update: Update,
    params: PyTree,
    states: PyTree,
    batches: Sequence[tuple[PyTree, Parts]],
    order: Array,
) -> Array | None:
    """Return each step's map of errors in (parameters, optimizer state); ``None`` if not affine, or too large.

    Args:
        gradient: ``(params, batch, parts)`` to the gradients, a tree like the parameters.
        update: ``(gradients, state, params)`` to the next parameters and state.
        params: parameters at any step.
        states: the optimizer's state before each step, a leading axis on every leaf.
        batches: the different batches, each with the rows of its backward passes.
        order: which batch each step is fed.

    Returns:
        ``(steps, p, p)``, or ``(1, p, p)`` where all are the same.
    """
    first = jax.tree.map(lambda leaf: leaf[0], states)
    weights, kept = FlatTree(params), FlatTree(first)
    size = weights.size + kept.size
    if (
        size**2 * len(order) > _LARGEST_ARRAY_ELEMENTS
        or weights.size * max(map(_elements, batches)) * len(batches) > _LARGEST_ARRAY_ELEMENTS
    ):
        _logger.debug("No linear maps of the steps: they would have too many elements.")
        return None

    def flat_gradient(vector: jax.Array, batch: PyTree, parts: Parts) -> jax.Array:
        return weights.vector(gradient(weights.tree(vector, params), batch, parts))

    curvature = jax.jit(jax.jacfwd(flat_gradient), static_argnums=2)
    at = weights.vector(params)
    curvatures = [np.asarray(curvature(at, batch, parts)) for batch, parts in batches]
    elsewhere = np.asarray(curvature(_elsewhere(at), *batches[0]))
    if not _same(curvatures[0], elsewhere) or not np.isfinite(curvatures).all():
        _logger.debug("No linear maps of the steps: the gradient is not affine in the parameters.")
        return None

    def one(joined: jax.Array, state: PyTree) -> jax.Array:
        w, s, g = jnp.split(joined, [weights.size, size])
        after, state = update(weights.tree(g, params), kept.tree(s, state), weights.tree(w, params))
        return jnp.concatenate([weights.vector(after), kept.vector(state)])

    point = jnp.concatenate([weights.vector(params), kept.vector(first), weights.vector(params)])
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one), (None, 0), axis_size=len(order)))
    steps = np.asarray(jacobians(point, states))
    if not _same(steps, np.asarray(jacobians(_elsewhere(point), states))):
        _logger.debug("No linear maps of the steps: the optimizer's step is not affine.")
        return None
    into = np.concatenate([np.asarray(curvatures), np.zeros((len(batches), weights.size, kept.size))], 2)
    maps = steps[:, :, :size] + steps[:, :, size:] @ into[order]
    return maps[:1] if (maps == maps[0]).all() else maps


def _elsewhere(point: jax.Array) -> jax.Array:
    """Return another point: a map that is the same at both does not depend on the point."""
    random = np.random.default_rng(0)
    return jnp.asarray(1.5 * np.asarray(point) + random.normal(size=point.shape) * (1 + np.abs(point)))


def _same(a: Array, b: Array) -> bool:
    return bool(np.isfinite(a).all() and np.array_equal(a, b))


def _elements(batch: PyTree) -> int:
    return max((np.size(leaf) for leaf in jax.tree.leaves(batch)), default=1)
