"""The graph of a step: what the program computes from leaves, inputs and state to its loss, as plain values.

Arguments are trees of plain values. A tensor among them is a :class:`Ref`, written as a dict with one key, since a file
keeps plain values only; so are slices, dtypes and numbers that change from step to step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

# A tree of plain values, with refs in it.
Plain: TypeAlias = Any

_REF = "$ref"
SLICE, ELLIPSIS, DTYPE, NUMBER = "$slice", "$ellipsis", "$dtype", "$number"


class Ref(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        kind: ``"leaf"``, ``"input"``, ``"state"``, or ``"made"`` by an earlier operation.
        key: a leaf's or state's name; the number of an input or an operation.
        path: the place in what an operation returns, where that is several tensors.
    """

    kind: str
    key: str | int
    path: tuple[int | str, ...] = ()

    def plain(self) -> Plain:
        """Return the ref as a file keeps it."""
        return {_REF: (self.kind, self.key, *self.path)}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One torch function that was called.

    Attributes:
        name: the function's own name, such as ``"matmul"``.
        args, kwargs: its arguments, trees of plain values.
        in_place: whether it changed its first argument, and returns it.
        stops: whether no gradient goes through it: it was called under ``no_grad``.
        place: the program's line.
    """

    name: str
    args: Plain
    kwargs: Plain
    in_place: bool
    stops: bool
    place: str


@dataclasses.dataclass(frozen=True)
class Graph:
    """The operations of one kind of step.

    Attributes:
        operations: in the order in which they were made.
        roots: the tensors that ``backward`` was called on, and what each was multiplied with; the loss is their sum.
        outputs: what the program's models returned on the way there.
        after: by a state's name, what it is after the step.
    """

    operations: tuple[Operation, ...]
    roots: tuple[Plain, ...]
    outputs: Plain
    after: Mapping[str, Plain]


def ref_of(value: Plain) -> Ref | None:
    """Return the ref that a plain value stands for, if it stands for one."""
    if isinstance(value, dict) and value.keys() == {_REF}:
        kind, key, *path = value[_REF]
        return Ref(kind, key, tuple(path))
    return None


def refs(value: Plain) -> Iterator[Ref]:
    """Yield every ref in a tree of plain values."""
    ref = ref_of(value)
    if ref is not None:
        yield ref
    elif isinstance(value, dict):
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from refs(item)


def filled(value: Plain, tensor: Callable[[Ref], Any], special: Callable[[str, Any], Any]) -> Any:
    """Return a tree of plain values with tensors in the place of refs.

    Args:
        value: the tree.
        tensor: gives the tensor of a ref.
        special: gives what a dict with one of the special keys stands for, from the key and the value.
    """
    ref = ref_of(value)
    if ref is not None:
        return tensor(ref)
    if isinstance(value, dict):
        key = next(iter(value), "")
        if len(value) == 1 and key in (DTYPE, NUMBER):
            return special(key, value[key])
        if key == SLICE:
            return slice(*(filled(item, tensor, special) for item in value[key]))
        if key == ELLIPSIS:
            return ...
        return {name: filled(item, tensor, special) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(item, tensor, special) for item in value)
    return value
