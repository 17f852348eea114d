"""Names of the leaves of a parameter tree, be it a Flax state, a plain dict or what an optimizer made of one."""

from __future__ import annotations

import jax

from jaxreg._types import AnyArray, PyTree


def dotted(path: tuple[object, ...]) -> str:
    """Return a leaf's path as ``"layers.0.kernel"``; the value that a Flax variable holds has the variable's name."""
    inner = path[:-1] if len(path) > 1 and getattr(path[-1], "name", None) == "value" else path
    return jax.tree_util.keystr(inner, simple=True, separator=".")


def named_leaves(tree: PyTree) -> dict[str, AnyArray]:
    """Return the leaves of a tree by their dotted paths."""
    return {dotted(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
