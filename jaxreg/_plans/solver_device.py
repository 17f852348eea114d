"""The device that solves the small problem that is left of the data: that of the data, but for TPUs the host's CPU.

A TPU has no float64; its compiler makes each such number of two float32, with their range, and takes minutes over what
the spectral plan does with them. The problem is a matrix of as many columns as the data have: the host is done with it
sooner than that.
"""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from typing import TypeVar

import jax

from jaxreg._types import Array

_Tree = TypeVar("_Tree")


def solver_device() -> jax.Device | None:
    """Return the host's CPU where JAX works on TPUs, if it is there; else ``None``."""
    if jax.default_backend() != "tpu":
        return None
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        logging.getLogger(__name__).debug("the small problem is solved on the TPU: %s", error)
        return None


def on_solver_device() -> AbstractContextManager[object]:
    """Return a context in which new arrays go to the solver's device."""
    device = solver_device()
    return contextlib.nullcontext() if device is None else jax.default_device(device)


def to_solver_device(tree: _Tree) -> _Tree:
    """Return the tree with its arrays on the solver's device."""
    device = solver_device()
    return tree if device is None else jax.device_put(tree, device)


def to_device_of(like: Array, tree: _Tree) -> _Tree:
    """Return results on the device of the array ``like``; what is NumPy's stays."""
    if solver_device() is None:
        return tree
    moved: _Tree = jax.tree.map(
        lambda leaf: jax.device_put(leaf, like.sharding) if isinstance(leaf, jax.Array) else leaf, tree
    )
    return moved
