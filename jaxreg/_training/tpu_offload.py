"""Where the small problem is solved that is left of the data: beside them, but for TPUs on the host.

A TPU has no float64; its compiler makes each such number of two float32, with their range, and takes minutes over what
the spectral plan does with them. The problem is a matrix of as many columns as the data have: the host is done with it
sooner than that.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax


def home() -> Any:
    """The host's CPU where JAX works on TPUs, if it is there; else ``None``."""
    if jax.default_backend() != "tpu":
        return None
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def working() -> Any:
    """A context in which new arrays go there."""
    there = home()
    return contextlib.nullcontext() if there is None else jax.default_device(there)


def brought(tree: Any) -> Any:
    """Arrays brought there."""
    there = home()
    return tree if there is None else jax.device_put(tree, there)


def returned(tree: Any, like: Any) -> Any:
    """Results brought to where the array ``like`` is; what is NumPy's stays."""
    if home() is None:
        return tree
    return jax.tree.map(lambda leaf: jax.device_put(leaf, like.sharding) if isinstance(leaf, jax.Array) else leaf, tree)
