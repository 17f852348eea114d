"""How PyTorch's parameter names map onto a port's parameters: given, or found from names and shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from parity._errors import PortError

Shape = tuple[int, ...]
# What other libraries call PyTorch's parameters. A Flax kernel is stored (in, out), PyTorch's weight (out, in).
_SAME_ROLE = {"weight": ("weight", "kernel", "w", "scale", "embedding"), "bias": ("bias", "b")}
_TRANSPOSED_ROLES = ("kernel", "w")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the port keeps one parameter: the leaf's path, and whether it is PyTorch's transposed."""

    path: str
    transposed: bool

    def __str__(self) -> str:
        return f"{self.path}.T" if self.transposed else self.path


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
    """A resolved mapping; both directions can be traced by JAX."""

    places: Mapping[str, Place]
    paths: tuple[str, ...]
    structure: Any

    def to_port(self, weights: Mapping[str, Any]) -> Any:
        """PyTorch's weights by name, in the port's structure and layout."""
        by_path = {
            place.path: weights[name].T if place.transposed else weights[name] for name, place in self.places.items()
        }
        return jax.tree.unflatten(self.structure, [by_path[path] for path in self.paths])

    def from_port(self, params: Any, is_hole: Callable[[Any], bool] = lambda _: False) -> dict[str, Any]:
        """A tree like the port's parameters, by PyTorch's names and in its layout; holes stay as they are."""
        leaves = dict(zip(self.paths, self.structure.flatten_up_to(params), strict=True))
        found = {name: (leaves[place.path], place.transposed) for name, place in self.places.items()}
        return {name: leaf.T if turned and not is_hole(leaf) else leaf for name, (leaf, turned) in found.items()}


def resolve(shapes: Mapping[str, Shape], params: Any, names: Mapping[str, str] | None) -> Names:
    """Match PyTorch's parameters, given by name and shape, with the leaves of ``params``.

    Raises:
        PortError: they cannot be matched, or in more than one way; the message says what to write.
    """
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="."): tuple(np.shape(leaf)) for path, leaf in flat}
    places = _given(shapes, leaves, names) if names is not None else _found(shapes, leaves)
    used = [place.path for place in places.values()]
    if sorted(used) != sorted(leaves):
        raise PortError(_mismatch("the port's parameters and PyTorch's do not pair up one to one", shapes, leaves))
    return Names(places, tuple(leaves), structure)


def _given(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape], names: Mapping[str, str]) -> dict[str, Place]:
    places = {}
    for name, shape in shapes.items():
        if name not in names:
            raise PortError(_mismatch(f"names leaves out PyTorch's parameter {name!r}", shapes, leaves))
        text = names[name]
        place = Place(text, False) if text in leaves else Place(text.removesuffix(".T"), text.endswith(".T"))
        if place.path not in leaves:
            raise PortError(_mismatch(f"names puts {name!r} at {text!r}, which the port does not have", shapes, leaves))
        if leaves[place.path] != (shape[::-1] if place.transposed else shape):
            raise PortError(_mismatch(f"{name!r} {shape} does not fit {text!r} {leaves[place.path]}", shapes, leaves))
        places[name] = place
    return places


def _found(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for name, shape in shapes.items():
        fits = [path for path in leaves if leaves[path] in (shape, shape[::-1])]
        for narrower in (_same_owner, _same_role):
            fits = [path for path in fits if narrower(name, path)] or fits
        if len(fits) != 1:
            what = "fits no parameter of the port" if not fits else f"could be {' or '.join(map(repr, fits))}"
            raise PortError(_mismatch(f"{name!r} {what}", shapes, leaves))
        places[name] = Place(fits[0], _is_transposed(name, shape, fits[0], leaves, shapes))
    return places


def _is_transposed(
    name: str, shape: Shape, path: str, leaves: Mapping[str, Shape], shapes: Mapping[str, Shape]
) -> bool:
    if len(shape) != 2 or leaves[path] != shape:
        return leaves[path] != shape
    if shape[0] != shape[1]:
        return False
    last = path.rpartition(".")[2]
    if last in _TRANSPOSED_ROLES:
        return True
    if last == "weight":
        return False
    raise PortError(_mismatch(f"{name!r} is square, so {path!r} could be it or its transpose", shapes, leaves))


def _same_owner(name: str, path: str) -> bool:
    return name.rpartition(".")[0] == path.rpartition(".")[0]


def _same_role(name: str, path: str) -> bool:
    role = name.rpartition(".")[2]
    return path.rpartition(".")[2] in _SAME_ROLE.get(role, (role,))


def _mismatch(what: str, shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> str:
    def listed(items: Mapping[str, Shape]) -> str:
        return ", ".join(f"{name} {shape}" for name, shape in items.items()) or "none"

    example = dict.fromkeys(shapes, "...")
    return (
        f"{what}. PyTorch has {listed(shapes)}; the port has {listed(leaves)}. "
        f'Write names={example} in the Port, each "..." a path of the port, with ".T" where it is transposed'
    )
