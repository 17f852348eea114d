"""Whether a training is part of a larger program that JAX traces: under ``jax.jit``, ``jax.vmap``, ``jax.grad``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

_NAMED = "jaxreg"


def _state() -> Any:
    return get_opaque_trace_state(convention=_NAMED)  # type: ignore[no-untyped-call]


def _state_of_new_thread() -> Any:
    """The state where nothing is traced, even if this is imported inside a function that is."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(_state()))
    thread.start()
    thread.join()
    return found[0]


_NOTHING_TRACED = _state_of_new_thread()


def none_is_going_on() -> bool:
    """Whether nothing at all is traced here; it takes a microsecond, which most trainings need no more than."""
    return bool(_state() == _NOTHING_TRACED)


def is_staged() -> bool:
    """Whether all that is worked out here becomes part of a program that runs later, as under ``jax.jit``."""
    return not none_is_going_on() and is_tracer(jnp.zeros(()))


def is_tracer(value: Any) -> bool:
    """Whether only the running program knows the value."""
    return isinstance(value, jax.core.Tracer)


def reaches(*values: Any) -> bool:
    """Whether a trace that is going on reaches any of these: it stages everything, or they hold traced numbers."""
    return not none_is_going_on() and (is_tracer(jnp.zeros(())) or _holds(values, set()))


def _holds(value: Any, seen: set[int]) -> bool:
    """Whether there are traced numbers in it; an optimizer and a loss are functions, and hold them as such do."""
    if is_tracer(value):
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds(part, seen) for part in _parts(value))


def _parts(value: Any) -> Iterable[Any]:
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


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
