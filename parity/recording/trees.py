"""Trees of arrays: what models take and give beside a single array, as tuples, lists and dicts of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

# An array, or a tuple, list or dict of trees: no static type can tell which.
Tree: TypeAlias = Any
Leaf: TypeAlias = Any
# Shapes and dtypes of a tree, comparable and printable.
Form: TypeAlias = object
Path = tuple[Any, ...]


def leaves(tree: Tree) -> list[Leaf]:
    """Return the arrays of a tree, depth first; ``None`` is an empty place."""
    return [leaf for _, leaf in paths(tree)]


def paths(tree: Tree, at: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield each array of a tree with the keys and places that lead to it."""
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from paths(item, (*at, key))
    elif isinstance(tree, list | tuple):
        for place, item in enumerate(tree):
            yield from paths(item, (*at, place))
    elif tree is not None:
        yield at, tree


def mapped(function: Callable[..., Leaf], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function`` to each array of ``tree``, with those at the same place in ``others``."""
    if isinstance(tree, dict):
        return {key: mapped(function, item, *(other[key] for other in others)) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        items = [mapped(function, *item) for item in zip(tree, *others, strict=True)]
        return items if isinstance(tree, list) else tuple(items)
    return None if tree is None else function(tree, *others)


def found(tree: Tree, path: Path) -> Tree:
    """Return what stands at ``path``."""
    for key in path:
        tree = tree[key]
    return tree


def form(tree: Tree) -> Form:
    """Return shapes and dtypes, to tell whether two trees are alike in all but their values."""
    if isinstance(tree, dict):
        return ("dict", tuple((key, form(item)) for key, item in tree.items()))
    if isinstance(tree, list | tuple):
        return (type(tree).__name__, tuple(form(item) for item in tree))
    return None if tree is None else (tree.shape, str(tree.dtype))


def size(tree: Tree) -> int:
    """Count the bytes of all arrays."""
    return sum(leaf.nbytes for leaf in leaves(tree))


def digest(tree: Tree) -> bytes:
    """Compute a fingerprint of form and values."""
    hasher = hashlib.blake2b(repr(form(tree)).encode())
    for leaf in leaves(tree):
        hasher.update(np.ascontiguousarray(leaf).tobytes())
    return hasher.digest()


def same(a: Tree, b: Tree) -> bool:
    """Compare two trees bit for bit, so that a NaN is itself."""
    return form(a) == form(b) and all(same_array(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def same_array(a: Leaf, b: Leaf) -> bool:
    """Compare two arrays bit for bit; an array that is itself is not looked at."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return bool(np.array_equal(first, second))


def shapes(tree: Tree) -> str:
    """Write the shapes, readable: ``(8, 3)``, ``{ids: (8, 12), mask: (8, 12)}``."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {shapes(item)}" for key, item in tree.items()) + "}"
    if isinstance(tree, list | tuple):
        return "[" + ", ".join(shapes(item) for item in tree) + "]"
    return "None" if tree is None else str(tree.shape)
