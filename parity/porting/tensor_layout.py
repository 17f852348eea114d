"""Where a port keeps one of PyTorch's tensors, and in which layout: as it is, transposed, split in heads, in parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf of the port that holds a tensor of PyTorch's, or a part of one.

    Attributes:
        path: the leaf's path, joined with dots.
        transposed: whether it is PyTorch's transposed; see :func:`turned`.
        shape: its shape.
        source: the shape of PyTorch's tensor, or of the part.
    """

    path: str
    transposed: bool
    shape: Shape
    source: Shape

    def __str__(self) -> str:
        return f"{self.path}.T" if self.transposed else self.path

    def to_port(self, tensor: Any) -> Any:
        """Return PyTorch's tensor as the port keeps it."""
        return (turn(tensor) if self.transposed else tensor).reshape(self.shape)

    def from_port(self, leaf: Any) -> Any:
        """Return the port's leaf as PyTorch keeps it."""
        if not self.transposed:
            return leaf.reshape(self.source)
        order = _order(len(self.source))
        back = [order.index(axis) for axis in range(len(order))]
        return leaf.reshape(turned(self.source)).transpose(back)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the port keeps one tensor: a leaf, or several, one after the other along PyTorch's first axis."""

    leaves: tuple[Leaf, ...]

    def __str__(self) -> str:
        return str(self.leaves[0]) if len(self.leaves) == 1 else str([str(leaf) for leaf in self.leaves])

    @property
    def path(self) -> str:
        """The path of the first leaf, which is the only one but for fused parameters."""
        return self.leaves[0].path

    @property
    def transposed(self) -> bool:
        """Whether the first leaf is PyTorch's transposed."""
        return self.leaves[0].transposed

    def to_port(self, tensor: Any) -> dict[str, Any]:
        """Return the leaves that hold ``tensor``, by path."""
        if len(self.leaves) == 1:
            return {self.path: self.leaves[0].to_port(tensor)}
        found, row = {}, 0
        for leaf in self.leaves:
            found[leaf.path] = leaf.to_port(tensor[row : row + leaf.source[0]])
            row += leaf.source[0]
        return found

    def from_port(self, leaves: Sequence[Any], joined: Callable[[Sequence[Any]], Any]) -> Any:
        """Return PyTorch's tensor from the port's leaves, which ``joined`` puts one after the other."""
        parts = [leaf.from_port(value) for leaf, value in zip(self.leaves, leaves, strict=True)]
        return parts[0] if len(parts) == 1 else joined(parts)


def _order(rank: int) -> tuple[int, ...]:
    return (*range(2, rank), 1, 0)


def turned(shape: Shape) -> Shape:
    """Return the shape after ``.T``: (out, in, spatial...) to (spatial..., in, out); a matrix's transpose."""
    return tuple(shape[axis] for axis in _order(len(shape))) if len(shape) > 1 else shape


def turn(tensor: Any) -> Any:
    """Return the tensor after ``.T``; see :func:`turned`."""
    return tensor.transpose(_order(tensor.ndim))


def splits(whole: Shape, parts: Shape) -> bool:
    """Whether one shape is the other with axes split in several, as a width is in heads: elements keep their order."""
    coarse, fine = sorted((whole, parts), key=len)
    if math.prod(coarse) != math.prod(fine):
        return False
    place = 0
    for size in coarse:
        product = 1
        while place < len(fine) and (product < size or fine[place] == 1):
            product *= fine[place]
            place += 1
        if product != size:
            return False
    return place == len(fine)


def fits(source: Shape, shape: Shape, transposed: bool) -> bool:
    """Whether a leaf of this shape can hold a tensor, as it is or turned, an axis split perhaps."""
    if transposed and len(source) < 2:
        return False
    wanted = turned(source) if transposed else source
    return wanted == shape or splits(wanted, shape)


def fused(source: Shape, shapes: Sequence[Shape], turns: Sequence[bool]) -> list[Shape] | None:
    """Return the shapes of the parts of a tensor that several leaves hold, cut along its first axis, or ``None``."""
    if not source:
        return None
    width = math.prod(source[1:])
    rows = [math.prod(shape) // width if width and not math.prod(shape) % width else 0 for shape in shapes]
    sources = [(count, *source[1:]) for count in rows]
    whole = sum(rows) == source[0] and all(rows)
    fit = whole and all(fits(*one) for one in zip(sources, shapes, turns, strict=True))
    return sources if fit else None
