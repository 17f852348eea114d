"""Optax states by PyTorch's names: read out of any nest of transformations, and put into one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# PyTorch's name of an optimizer's state, and the fields that Optax transformations keep it in. Of two that share a
# field, the one that the recording has is meant, and the first where it has neither.
STATE_FIELDS = {
    "momentum_buffer": ("momentum_buffer", "trace"),
    "exp_avg": ("mu",),
    "exp_avg_sq": ("nu",),
    "max_exp_avg_sq": ("nu_max",),
    "square_avg": ("nu", "e_g"),
    "grad_avg": ("mu",),
    "sum": ("sum_of_squares",),
    "exp_inf": ("nu",),
    "acc_delta": ("e_x",),
}
# Whole numbers in a state that say how many steps were made.
_COUNTERS = ("count", "step")


def is_hole(value: Any) -> bool:
    """Whether a leaf is kept elsewhere, or nowhere."""
    return isinstance(value, optax.MaskedNode)


def optimizer_state(state: Any, params: Any, keys: Collection[str] = ()) -> dict[str, Any]:
    """Return those parts of an Optax state that PyTorch keeps too, by PyTorch's key; each a tree like ``params``.

    Where parameters are partitioned over several transformations, each keeps a part and a hole for the rest.

    Args:
        state: of any nest of transformations: chains, masks, partitions, injected hyperparameters.
        params: the tree that it was made for, or one like it.
        keys: PyTorch's keys in the recording, which say what a field such as ``nu`` stands for.
    """
    meaning = _meaning(keys)
    found: dict[str, list[Any]] = {}
    for path, part in _flat(state, params)[0]:
        if _field(path) in meaning and (whole := _expanded(part, params)) is not None:
            found.setdefault(meaning[_field(path)], []).append(whole)
    return {key: jax.tree.map(_first_whole, *parts, is_leaf=is_hole) for key, parts in found.items()}


class ExactCounts:
    """An optimizer whose step counters are of JAX's default integers, so that float64 runs have float64 schedules.

    Optax counts in int32, and JAX divides int32 in float32, with 64-bit types too: the rate of
    ``optax.exponential_decay`` would be rounded to float32 in the float64 run. It divides int64 in float64. Without
    64-bit types nothing changes.
    """

    @classmethod
    def of(cls, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """``optimizer`` with such counters; the same object where it has them."""
        if isinstance(getattr(optimizer.update, "__self__", None), cls):
            return optimizer
        exact = cls(optimizer)
        return optax.GradientTransformationExtraArgs(exact.init, exact.update)

    def __init__(self, optimizer: optax.GradientTransformation) -> None:
        self._optimizer = optimizer

    def init(self, params: Any) -> Any:
        """Return the first state, in the types that updates keep: an injected schedule's first rate was of int32."""
        state = _counted(self._optimizer.init(params))
        if jax.dtypes.canonicalize_dtype(np.int64) != np.int64:
            return state
        after = jax.eval_shape(self.update, params, state, params)[1]
        return jax.tree.map(lambda leaf, later: jnp.asarray(leaf, later.dtype), state, after)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        """Return the updates and the next state; see :class:`optax.GradientTransformation`."""
        updates, state = self._optimizer.update(updates, state, params, **extra)
        return updates, _counted(state)


def _counted(state: Any) -> Any:
    """``state`` with its counters of JAX's default integers."""
    return jax.tree_util.tree_map_with_path(
        lambda path, part: jnp.asarray(part, int) if _is_counter(path, part) else part, state
    )


def put(state: Any, params: Any, recorded: Mapping[str, Any], step: Any) -> Any:
    """``state`` as it is before step number ``step``: counters set to it, recorded trees in their places.

    Args:
        state: what the optimizer starts from; what is not recorded stays as it is there. See :func:`uncovered`.
        params: the tree that it was made for, or one like it.
        recorded: by PyTorch's key, a tree like ``params``, holes where the recording has nothing.
        step: number of steps made before.
    """
    meaning = _meaning(recorded)
    leaves, structure = _flat(state, params)

    def filled(path: Any, part: Any) -> Any:
        field = _field(path)
        if _is_counter(path, part):
            return jnp.asarray(step, part.dtype)
        if meaning.get(field) not in recorded or (whole := _expanded(part, params)) is None:
            return part
        taken = jax.tree.map(
            lambda own, new: own if is_hole(own) or is_hole(new) else jnp.asarray(new, own.dtype),
            whole,
            recorded[meaning[field]],
            is_leaf=is_hole,
        )
        return _collapsed(part, taken)

    return jax.tree.unflatten(structure, [filled(path, part) for path, part in leaves])


def scaled(state: Any, params: Any, factors: Mapping[str, Any], by: Callable[[Any, Any], Any]) -> Any:
    """``state`` with the parts that PyTorch keeps too changed ``by`` a number each.

    Args:
        state: of any nest of transformations.
        params: the tree that it was made for, or one like it.
        factors: by PyTorch's key, a tree like ``params`` of arrays; the first element of each counts.
        by: makes a leaf of the state and its number into the next leaf.
    """
    meaning = _meaning(factors)
    leaves, structure = _flat(state, params)

    def changed(leaf: Any, factor: Any) -> Any:
        number = float(np.ravel(factor)[0]) if np.size(factor) else 1.0
        return leaf if is_hole(leaf) or number == 1 else by(leaf, number)

    def filled(path: Any, part: Any) -> Any:
        key = meaning.get(_field(path), "")
        if key not in factors or (whole := _expanded(part, params)) is None:
            return part
        return _collapsed(part, jax.tree.map(changed, whole, factors[key], is_leaf=is_hole))

    return jax.tree.unflatten(structure, [filled(path, part) for path, part in leaves])


def uncovered(optimizer: optax.GradientTransformation, params: Any, recorded: Mapping[str, Any]) -> list[str]:
    """Find the parts of the optimizer's state that a recording says nothing about, though its update changes them.

    Args:
        optimizer: whose state it is.
        params: arrays.
        recorded: by PyTorch's key, a tree like ``params``: true for each leaf whose state the recording has, or that
            PyTorch does not move, so that its state stays as it started.
    """
    meaning = _meaning(recorded)
    state = optimizer.init(params)
    moving = _changed_by(optimizer, params, state)
    missing = []
    seen: set[tuple[str, int]] = set()
    for path, part in _flat(state, params)[0]:
        inner = [where for where, _ in jax.tree_util.tree_flatten_with_path(part)[0]]
        if _is_counter(path, part) or not any(path + where in moving for where in inner):
            continue
        key, whole = meaning.get(_field(path), ""), _expanded(part, params)
        owned: set[tuple[str, int]] = set()
        if whole is not None:
            leaves = jax.tree.leaves(whole, is_leaf=is_hole)
            owned = {(key, place) for place, leaf in enumerate(leaves) if not is_hole(leaf)}
        has = jax.tree.leaves(recorded[key]) if key in recorded else []
        # Two transformations that keep the same field of one parameter cannot be told apart.
        if not owned or seen & owned or not has or not all(has[place] for _, place in owned):
            missing.append(jax.tree_util.keystr(path, simple=True, separator="."))
        seen |= owned
    return missing


def parts(state: Any, params: Any) -> tuple[list[tuple[Any, bool]], Any]:
    """Return the state's parts, each with whether it is a tree like the parameters, and how to join them again."""
    leaves, structure = _flat(state, params)
    return [(part, _expanded(part, params) is not None) for _, part in leaves], structure


def _meaning(keys: Iterable[str]) -> dict[str, str]:
    """Return what each field of an Optax state is called in PyTorch."""
    order = [key for key in STATE_FIELDS if key in keys] + list(STATE_FIELDS)
    meaning: dict[str, str] = {}
    for key in order:
        for field in STATE_FIELDS[key]:
            meaning.setdefault(field, key)
    return meaning


def _flat(state: Any, params: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Return the state's parts with their paths: trees like the parameters stay whole: no name inside can mislead."""
    return jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda part: is_hole(part) or _expanded(part, params) is not None
    )


def _field(path: tuple[Any, ...]) -> str:
    last = path[-1] if path else None
    return str(getattr(last, "name", getattr(last, "key", "")))


def _is_counter(path: tuple[Any, ...], part: Any) -> bool:
    whole_number = hasattr(part, "dtype") and jnp.issubdtype(part.dtype, jnp.integer)
    return _field(path) in _COUNTERS and whole_number and np.shape(part) == ()


def _expanded(part: Any, params: Any) -> Any:
    """``part`` in the full structure of ``params``, a hole for each leaf it leaves out; ``None`` if it is no such tree.

    A mask may leave out a whole branch with one hole.
    """

    def spread(leaf: Any, branch: Any) -> Any:
        if is_hole(leaf):
            return jax.tree.map(lambda _: leaf, branch)
        if not hasattr(branch, "shape") or np.shape(leaf) != np.shape(branch):
            raise ValueError("another shape")
        return leaf

    if isinstance(part, optax.EmptyState):
        return None
    try:
        return jax.tree.map(spread, part, params, is_leaf=is_hole)
    except (ValueError, TypeError):
        return None


def _collapsed(part: Any, whole: Any) -> Any:
    """``whole`` with one hole again where ``part`` has one for a branch."""
    return jax.tree.map(lambda leaf, branch: leaf if is_hole(leaf) else branch, part, whole, is_leaf=is_hole)


def _first_whole(*parts: Any) -> Any:
    return next((part for part in parts if not is_hole(part)), parts[0])


def _changed_by(optimizer: optax.GradientTransformation, params: Any, state: Any) -> set[Any]:
    """Return the paths of those leaves of the state that an update reads and gives back as something else.

    A learning rate kept in the state is given back as it came; one that a schedule makes anew is read by nothing.
    """
    update: Callable[..., Any] = lambda state, params: optimizer.update(params, state, params)[1]  # noqa: E731
    jaxpr = jax.make_jaxpr(update)(state, params).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    before, after = jaxpr.invars[: len(paths)], jaxpr.outvars
    return {
        path
        for path, old, new in zip(paths, before, after, strict=True)
        if old is not new and (id(old) in read or any(old is out for out in after))
    }
