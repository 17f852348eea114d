"""What a module is called with and what it returns: tensors as trees of arrays, all else kept for a second call."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from parity._errors import UnsupportedError
from parity.recording.recording import Array, Tree
from parity.recording.trees import Path, found, paths

_NOTHING = object()
# The dtypes of PyTorch's that NumPy has too.
_IN_NUMPY = frozenset(
    (
        *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    )
)


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of a tensor that was taken out, by its path in the tree of tensors."""

    path: Path


@dataclasses.dataclass(frozen=True, eq=False)
class Arguments:
    """A call's arguments with a :class:`Slot` for each tensor: what the program holds constant."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def filled(self, tensors: Tree) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments again, with these tensors."""
        return filled(self.args, tensors), filled(self.kwargs, tensors)


def to_array(tensor: torch.Tensor) -> Array:
    """A tensor's values as a NumPy array of their own.

    Raises:
        UnsupportedError: NumPy has no such tensors.
    """
    if tensor.layout is not torch.strided:
        raise UnsupportedError(
            f"there is a tensor of layout {tensor.layout}, and a recording keeps dense ones. Make it dense: "
            "with to_dense(), and with sparse=False for the gradients of an Embedding"
        )
    if tensor.dtype not in _IN_NUMPY:
        raise UnsupportedError(
            f"there is a tensor of {tensor.dtype}, which NumPy, and so a recording, has not. Train in float32 to have "
            "it judged: leave out torch.autocast, bfloat16() and the like"
        )
    with torch._C.DisableTorchFunction():  # it is parity that reads, not the program
        return np.array(tensor.detach().cpu().resolve_conj().resolve_neg().numpy())


def taken(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tree, Arguments]:
    """The tensors that ``module`` is called with as a tree, and the arguments without them.

    One positional argument is its own tree, several are a tuple, and with any keyword they are a dict by name.
    """
    if _has_tensors(kwargs):
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        tree, cut = split(named)
        return tree, Arguments(*_by_position(bound, cut))
    with_tensors = [place for place, value in enumerate(args) if _has_tensors(value)]
    pairs = {}
    for order, place in enumerate(with_tensors):
        pairs[place] = split(args[place], () if len(with_tensors) == 1 else (order,))
    trees = tuple(tree for tree, _ in pairs.values())
    cut = tuple(pairs[place][1] if place in pairs else value for place, value in enumerate(args))
    return trees[0] if len(trees) == 1 else trees, Arguments(cut, dict(kwargs))


def _by_position(bound: inspect.BoundArguments, cut: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name, but for those that can only be given by their place."""
    args, rest = [], dict(cut)
    kinds = {name: bound.signature.parameters[name].kind for name in bound.arguments}
    starred = inspect.Parameter.VAR_POSITIONAL in kinds.values()
    for name, kind in kinds.items():
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(rest.pop(name))
        elif kind is inspect.Parameter.POSITIONAL_ONLY or (starred and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD):
            args.append(rest.pop(name))
    return tuple(args), rest


def _has_tensors(value: Any) -> bool:
    return split(value, copied=False)[0] is not None


def to_tree(value: Any) -> Tree:
    """The tensors in what a module returned, as a tree of arrays; ``None`` where there are none."""
    return split(value)[0]


def split(value: Any, at: Path = (), *, copied: bool = True) -> tuple[Tree, Any]:
    """The tensors in ``value`` as a tree, and ``value`` with slots in their place.

    In a tuple or list, what is no tensor leaves ``None``; in a dict it leaves nothing.
    """
    if isinstance(value, torch.Tensor):
        return (to_array(value) if copied else value), Slot(at)
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Mapping):
        names = [field.name for field in dataclasses.fields(value)]
        tree, cut = split({name: getattr(value, name) for name in names}, at, copied=copied)
        return tree, _Rebuilt(value, cut) if tree is not None else value
    if isinstance(value, Mapping):
        pairs = {key: split(item, (*at, key), copied=copied) for key, item in value.items()}
        kept = {key: tree for key, (tree, _) in pairs.items() if tree is not None}
        cut = {key: item for key, (_, item) in pairs.items()}
        return (kept or None), (cut if type(value) is dict else _Rebuilt(value, cut)) if kept else value
    if isinstance(value, list | tuple):
        parts = [split(item, (*at, place), copied=copied) for place, item in enumerate(value)]
        if all(tree is None for tree, _ in parts):
            return None, value
        trees, items = [tree for tree, _ in parts], [item for _, item in parts]
        if isinstance(value, list):
            return trees, items
        return tuple(trees), tuple(items) if type(value) is tuple else _Rebuilt(value, dict(enumerate(items)))
    return None, value


@dataclasses.dataclass(frozen=True, eq=False)
class _Rebuilt:
    """A container of the program's own class, which is made again from its items."""

    original: Any
    items: dict[Any, Any]

    def again(self, items: dict[Any, Any]) -> Any:
        if isinstance(self.original, tuple):
            return type(self.original)(*items.values())
        if isinstance(self.original, Mapping):
            made: Any = copy.copy(self.original)
            for key, item in items.items():
                made[key] = item
            return made
        return dataclasses.replace(self.original, **items)


def filled(cut: Any, tensors: Tree) -> Any:
    """What :func:`split` cut, with tensors in its slots again."""
    if isinstance(cut, Slot):
        return found(tensors, cut.path)
    if isinstance(cut, _Rebuilt):
        return cut.again(filled(cut.items, tensors))
    if isinstance(cut, dict):
        return {key: filled(item, tensors) for key, item in cut.items()}
    if isinstance(cut, list | tuple) and type(cut) in (list, tuple):
        items = [filled(item, tensors) for item in cut]
        return items if isinstance(cut, list) else tuple(items)
    return cut


def tensors_of(value: Any, at: Path = ()) -> list[tuple[Path, torch.Tensor]]:
    """The tensors in what a module returned, each with its path in the tree of :func:`to_tree`."""
    return list(paths(split(value, at, copied=False)[0]))


def constants(cut: Any) -> Any:
    """What is left beside the tensors, in a form that can be compared."""
    if isinstance(cut, _Rebuilt):
        return (type(cut.original).__name__, constants(cut.items))
    if isinstance(cut, dict):
        return tuple((key, constants(item)) for key, item in cut.items())
    if isinstance(cut, list | tuple):
        return tuple(constants(item) for item in cut)
    return cut
