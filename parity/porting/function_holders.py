"""Where a function is held: under a name in a module, in a closure, in a list, or as an attribute of an object."""

from __future__ import annotations

import gc
import types
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from parity.capture import source_places


class Place(NamedTuple):
    """Find where ``value`` is held, so that another can be put there and it can be put back."""

    holder: Any
    key: Any
    value: Any

    def put(self, value: Any) -> None:
        """Let the holder hold ``value``."""
        if isinstance(self.holder, types.CellType):
            self.holder.cell_contents = value
        elif isinstance(self.holder, dict | list):
            self.holder[self.key] = value
        else:  # not by setattr: the object may be frozen
            object.__setattr__(self.holder, self.key, value)


def places(function: Any, libraries: Collection[str]) -> list[Place]:
    """Find where ``function`` is held by the modules called ``libraries``, and by what is a user's own.

    What other modules hold stays theirs: libraries call the function for purposes of their own. So do functions that
    are defined in them, whose closures and defaults are left alone.
    """
    return [place for holder in gc.get_referrers(function) for place in _within(holder, function, libraries)]


def _within(holder: Any, function: Any, libraries: Collection[str]) -> Iterator[Place]:
    if isinstance(holder, types.CellType):
        if not isinstance(function, type):  # a class's own methods hold it so
            yield Place(holder, None, function)
    elif isinstance(holder, list):
        yield from (Place(holder, index, function) for index, value in enumerate(holder) if value is function)
    elif isinstance(holder, dict):
        if _is_open(holder, libraries):
            yield from (Place(holder, key, function) for key, value in list(holder.items()) if value is function)
    elif not isinstance(holder, type | types.ModuleType | types.FrameType | types.FunctionType | tuple):
        yield from (Place(holder, name, function) for name, value in _attributes(holder) if value is function)


def _attributes(holder: Any) -> list[tuple[str, Any]]:
    slots = [name for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(holder, "__dict__", {}).items(), *((name, getattr(holder, name, None)) for name in slots)]


def _is_open(namespace: dict[Any, Any], libraries: Collection[str]) -> bool:
    """Whether a dict is a user's: no class's, and no module's but the user's own and ``libraries``."""
    if "__module__" in namespace:
        return False
    if "__spec__" not in namespace:
        return True
    file = namespace.get("__file__")
    own = isinstance(file, str) and source_places.is_own(file)
    return own or namespace.get("__name__") in libraries
