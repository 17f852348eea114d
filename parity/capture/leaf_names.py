"""What the program itself calls the tensors that it trains: by module, by variable, by place in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from parity.capture import source_places

_CONTAINERS = (list, tuple)


def of(tensors: Iterable[torch.Tensor], modules: Iterable[torch.nn.Module]) -> dict[int, str]:
    """Names of tensors, by identity; each name once.

    Args:
        tensors: what is to be named.
        modules: the models that were called, the outermost ones.
    """
    wanted = {id(tensor): tensor for tensor in tensors}
    found: dict[int, str] = {}
    taken: set[str] = set()

    def give(tensor: Any, name: str) -> None:
        if id(tensor) in wanted and id(tensor) not in found:
            while name in taken:
                name += "_"
            taken.add(name)
            found[id(tensor)] = name

    models = list(dict.fromkeys(modules))
    variables = list(_variables()) if len(models) > 1 or len(found) < len(wanted) else []
    for module in models:
        prefix = "" if len(models) == 1 else _called(module, variables) + "."
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            give(tensor, prefix + name)
    for name, value in variables:
        for path, tensor in _inside(value, name):
            give(tensor, path)
    for tensor in wanted.values():
        give(tensor, f"leaf{len(found)}")
    return found


def _called(module: torch.nn.Module, variables: list[tuple[str, Any]]) -> str:
    """The variable that holds a module, or that holds what has it as an attribute; its class where there is none."""
    for name, value in variables:
        if value is module:
            return name
    for name, value in variables:
        for key, item in _attributes(value):
            if item is module:
                return key if name == "self" else f"{name}.{key}"
    return type(module).__name__.lower()


def _variables() -> Iterator[tuple[str, Any]]:
    """The variables of the program's own frames, the innermost first."""
    for frame in source_places.frames():
        if source_places.is_own(frame.f_code.co_filename):
            yield from list(frame.f_locals.items())
            if frame.f_locals is not frame.f_globals:
                yield from list(frame.f_globals.items())


def _inside(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth < 3 and type(value) in _CONTAINERS and len(value) < 10_000:
        for place, item in enumerate(value):
            yield from _inside(item, f"{name}.{place}", depth + 1)
    elif depth < 3 and isinstance(value, Mapping) and len(value) < 10_000 and not name.startswith("__"):
        for key, item in list(value.items()):
            yield from _inside(item, f"{name}.{key}", depth + 1)
    elif depth == 0 and isinstance(value, torch.nn.Module):
        for key, parameter in value.named_parameters():
            yield f"{name}.{key}", parameter
    elif depth == 0:
        for key, item in _attributes(value):
            yield from _inside(item, key if name == "self" else f"{name}.{key}", depth + 1)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    own = getattr(value, "__dict__", None)
    kind = type(value)
    if not isinstance(own, dict) or isinstance(value, type) or not source_places.is_own(_file_of(kind)):
        return []
    return list(own.items())


def _file_of(kind: type) -> str:
    import sys

    module = sys.modules.get(kind.__module__)
    return str(getattr(module, "__file__", "") or "<none>")
