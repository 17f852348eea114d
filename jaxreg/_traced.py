"""Whether a training is part of a larger program that JAX traces: under ``jax.jit``, ``jax.vmap``, ``jax.grad``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from types import CellType, FunctionType, MethodType

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

_CONVENTION = "jaxreg"


def _state() -> object:
    return get_opaque_trace_state(convention=_CONVENTION)  # type: ignore[no-untyped-call]


def _state_of_new_thread() -> object:
    """Return the state where nothing is traced, even if this is imported inside a function that is."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(_state()))
    thread.start()
    thread.join()
    return found[0]


_NOTHING_TRACED = _state_of_new_thread()


def none_is_going_on() -> bool:
    """Return whether nothing at all is traced here; it takes a microsecond, which most trainings need no more than."""
    return bool(_state() == _NOTHING_TRACED)


def is_staged() -> bool:
    """Return whether all that is worked out here becomes part of a program that runs later, as under ``jax.jit``."""
    return not none_is_going_on() and is_tracer(jnp.zeros(()))


def is_tracer(value: object) -> bool:
    """Return whether only the running program knows the value."""
    return isinstance(value, jax.core.Tracer)


def reaches(*values: object) -> bool:
    """Return whether a current trace reaches any of these: it stages everything, or they hold traced numbers."""
    return not none_is_going_on() and (is_tracer(jnp.zeros(())) or _holds(values, set()))


def _holds(value: object, seen: set[int]) -> bool:
    """Return whether there are traced numbers in it; an optimizer and a loss hold them as functions do."""
    if is_tracer(value):
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds(part, seen) for part in _parts(value))


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return (*cells, value.__defaults__, value.__kwdefaults__)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, Mapping):
        return tuple(value.values())
    if isinstance(value, tuple | list):
        return (*value, *vars(value).values()) if hasattr(value, "__dict__") else value
    if hasattr(value, "__wrapped__"):
        return (value.__wrapped__,)
    return () if isinstance(value, type) else (jax.tree.leaves(value), getattr(value, "__dict__", {}))


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
