"""One step of any Optax transformation: it is handed whatever Optax's own loops hand to it.

A line search asks for the loss at other parameters, a plateau for its value, :func:`optax.lookahead` for a second copy
of the parameters. All of it is there where a step is traced, and costs nothing where it is not asked for.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxreg._errors import ArgumentError, JaxregError
from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._types import DType, Optimizer, OptState, Params, TreeDef

Objective = Callable[[Params], jax.Array]
_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


class TwoCopies(NamedTuple):
    """State of an optimizer with :func:`optax.lookahead` in it.

    Attributes:
        slow: the copy of the parameters that the trained model gets; gradients are taken at the other one.
        inner: the optimizer's own state.
    """

    slow: Params
    inner: OptState


def begin(optimizer: Optimizer, params: Params) -> OptState:
    """Return the state before the first step.

    Raises:
        ArgumentError: the optimizer's own ``init`` fails; the message says with what.
    """
    if isinstance(optimizer, PyTorchSGD):
        return optimizer.init(params)
    if _looks_ahead(optimizer, params):
        return TwoCopies(params, optimizer.init(optax.LookaheadParams.init_synced(params)))
    with _NamesOptimizer("init"):
        return optimizer.init(params)


def advance(
    optimizer: Optimizer, params: Params, state: OptState, gradients: Params, value: jax.Array, objective: Objective
) -> tuple[Params, OptState]:
    """Return parameters and state after a step.

    Args:
        optimizer: the transformation.
        params: at which the gradients were taken.
        state: that :func:`begin` or the last step gave.
        gradients: of the loss.
        value: of the loss.
        objective: the loss of other parameters, over the same rows.

    Raises:
        ArgumentError: the optimizer's own ``update`` fails; the message says with what.
    """
    if isinstance(optimizer, PyTorchSGD):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    # Optax's line searches refuse what their function of the value does not name.
    def value_fn(other: Params, obj_fn: object = None, grad_fn: object = None) -> jax.Array:
        return objective(other)

    offered = {
        "value": value,
        "grad": gradients,
        "value_fn": value_fn,
        "obj_fn": objective,
        "grad_fn": lambda other, _=None: jax.grad(objective)(other),
    }
    with _NamesOptimizer("update"):
        if not isinstance(state, TwoCopies):
            updates, state = _updated(optimizer, gradients, state, params, offered)
            return optax.apply_updates(params, updates), state
        both = optax.LookaheadParams(fast=params, slow=state.slow)
        updates, inner = _updated(optimizer, gradients, state.inner, both, offered)
        both = optax.apply_updates(both, updates)
        return both.fast, TwoCopies(both.slow, inner)


def trained(params: Params, state: OptState) -> Params:
    """Return the parameters to hand back: of two copies the slow one, as :class:`optax.LookaheadParams` says."""
    return state.slow if isinstance(state, TwoCopies) else params


@functools.lru_cache(maxsize=256)
def draws(optimizer: Optimizer, structure: TreeDef, kinds: tuple[tuple[tuple[int, ...], DType], ...]) -> bool:
    """Return whether the optimizer draws random numbers: its state for such parameters holds a key."""
    leaves = itertools.starmap(jax.ShapeDtypeStruct, kinds)
    state = jax.eval_shape(functools.partial(begin, optimizer), jax.tree.unflatten(structure, leaves))
    return any(
        jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == np.uint32 for leaf in jax.tree.leaves(state)
    )


def _looks_ahead(optimizer: Optimizer, params: Params) -> bool:
    """Return whether :func:`optax.lookahead` is in it: its state for two copies of the parameters shows."""

    def state(params: Params) -> OptState:
        return optimizer.init(optax.LookaheadParams.init_synced(params))

    try:
        found = jax.eval_shape(state, params)
    except Exception as error:  # parameters of these names and shapes alone are what another transformation takes
        logging.getLogger(__name__).debug(
            "the optimizer does not look ahead: its init fails with two copies: %s", error
        )
        return False
    return any(
        isinstance(node, optax.LookaheadState)
        for node in jax.tree.leaves(found, is_leaf=lambda node: isinstance(node, optax.LookaheadState))
    )


def _updated(
    optimizer: Optimizer, gradients: Params, state: OptState, params: Params, offered: dict[str, object]
) -> tuple[Params, OptState]:
    """Return what ``update`` gives; of what is offered it is given what it takes."""
    if isinstance(optimizer, optax.GradientTransformation) and not isinstance(
        optimizer, optax.GradientTransformationExtraArgs
    ):
        return optimizer.update(gradients, state, params)
    left = dict(offered)
    while True:
        try:
            return optimizer.update(gradients, state, params, **left)
        except TypeError as error:
            named = _UNKNOWN_ARGUMENT.search(str(error))
            if named is None or left.pop(named[1], None) is None:
                raise


class _NamesOptimizer:
    """A context in which what the optimizer raises is told as its own."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, JaxregError):
            raise ArgumentError(
                f"the optimizer's {self._method} fails with the model's parameters: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. A "
                "step hands it the gradients of the whole batch, its state, the parameters, and by name value, grad, "
                "value_fn, obj_fn and grad_fn; one that wants more, or the gradients of each row, cannot be trained "
                "with here"
            ) from error
