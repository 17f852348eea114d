"""Tables that a port works out and PyTorch keeps in a buffer, such as positional encodings.

PyTorch's table was rounded to the recorded dtype when it was made, and the float64 runs of its program keep it so. A
port's float64 run would work its own table out in float64, and be another program by that rounding. Where the port's
table can be PyTorch's, by what rounding may do to the operations that make it, the float64 run therefore takes
PyTorch's: what is missing is added to it, so that its rounding is still followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from parity.recording.recording import Array, Recording
from parity.rounding import Format, bound

# Calls whose operations are looked at one by one.
_CALLS = ("jit", "pjit", "closed_call", "core_call")
# Both sides make their table, each with these roundings: PyTorch's need not be the port's, but are of the same kind.
_ROUNDINGS_OF_BOTH_SIDES = 2.0
# How near, of its largest element, a constant is to a table for it to be worth while to derive a bound.
_NEAR_SHARE = 1e-2
Place = tuple[int, ...]


def constant_buffers(recording: Recording) -> dict[str, Array]:
    """Return the floating buffers that training never changes, of more than one number."""
    found = {}
    for name, values in recording.initial_buffers.items():
        after = recording.observed.buffers.get(name)
        still = after is None or all(np.array_equal(values, row, equal_nan=True) for row in after)
        if still and np.issubdtype(values.dtype, np.floating) and values.size > 1:
            found[name] = values
    return found


def with_tables(function: Callable[..., Any], tables: Mapping[str, Array], dtype: np.dtype[Any]) -> Callable[..., Any]:
    """``function``, whose float64 runs take PyTorch's tables in the place of its own; itself where there are none.

    Args:
        function: of the port.
        tables: PyTorch's, in the recorded dtype.
        dtype: the recorded dtype.
    """
    if not tables or dtype == np.float64:
        return function
    known: dict[Any, dict[Place, Array]] = {}

    def call(*arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        if not any(getattr(leaf, "dtype", None) == np.float64 for leaf in leaves):
            return function(*arguments)
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        key = str(closed.jaxpr)
        if key not in known:
            known[key] = _missing(closed, list(tables.values()), dtype)
        if not known[key]:
            return function(*arguments)
        out = _run(closed.jaxpr, closed.consts, leaves, known[key])
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _missing(closed: Any, tables: Sequence[Array], dtype: np.dtype[Any]) -> dict[Place, Array]:
    """Return what is missing to PyTorch's tables, by the place of the equation that makes the port's."""
    found: dict[Place, Array] = {}
    places = [place for place, aval in _constants(closed.jaxpr) if any(_part(table, aval.shape) for table in tables)]
    if not places:
        return found
    form = Format.of(dtype.name)
    with jax.ensure_compile_time_eval():
        for place in places:
            # What was found before goes into what is made of it.
            value = np.asarray(_at(closed, place, found), np.float64)
            near = [
                part
                for table in tables
                if (part := _part(table, value.shape)) and _is_near(np.asarray(part[0], np.float64), value)
            ]
            if not near:
                continue
            _, off = bound(lambda place=place: _at(closed, place, found), precision=form, narrow=False)()
            for (beginning,) in near:
                wide = np.asarray(beginning, np.float64)
                allowed = _ROUNDINGS_OF_BOTH_SIDES * (np.asarray(off) + float(form.unit) * np.abs(wide))
                if (np.abs(value - wide) <= allowed).all() and not np.array_equal(value, wide):
                    found[place] = wide - value
                    break
    return found


def _is_near(table: Array, value: Array) -> bool:
    return bool(np.abs(table - value).max(initial=0.0) <= _NEAR_SHARE * np.abs(table).max(initial=0.0))


def _part(table: Array, shape: tuple[int, ...]) -> tuple[Array] | None:
    """Return the beginning of a table in a shape, both but for axes of one; ``None`` where it has no such part."""
    plain, wanted = np.squeeze(table), tuple(size for size in shape if size != 1)
    if plain.ndim != len(wanted) or any(size > has for size, has in zip(wanted, plain.shape, strict=True)):
        return None
    return (plain[tuple(slice(size) for size in wanted)].reshape(shape),) if int(np.prod(shape)) > 1 else None


def _constants(jaxpr: Any, known: Sequence[bool] | None = None, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Find the equations whose floating result follows from no argument, with their places."""
    fixed = dict(zip(jaxpr.invars, known or [False] * len(jaxpr.invars), strict=True))
    fixed.update(dict.fromkeys(jaxpr.constvars, True))
    for number, equation in enumerate(jaxpr.eqns):
        given = [isinstance(atom, Literal) or fixed.get(atom, False) for atom in equation.invars]
        inner = _inner(equation)
        same = all(given) and not equation.effects and "random" not in equation.primitive.name
        fixed.update(dict.fromkeys(equation.outvars, same))
        if inner is not None:
            yield from _constants(inner.jaxpr, given, (*at, number))
        elif same and len(equation.outvars) == 1 and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            yield (*at, number), equation.outvars[0].aval


def _inner(equation: Any) -> Any:
    return equation.params.get("jaxpr") if equation.primitive.name in _CALLS else None


def _at(closed: Any, place: Place, missing: Mapping[Place, Array]) -> Any:
    """Return the result of one equation that follows from no argument."""
    kept: dict[Place, Any] = {}
    _run(closed.jaxpr, closed.consts, [None] * len(closed.jaxpr.invars), missing, kept=kept, until=place)
    return kept[place]


def _run(
    jaxpr: Any,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    missing: Mapping[Place, Array],
    at: Place = (),
    kept: dict[Place, Any] | None = None,
    until: Place | None = None,
) -> list[Any]:
    """Run a jaxpr with what is missing added; ``until`` ends it there, and then with what follows from no argument."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for number, equation in enumerate(jaxpr.eqns):
        here, given, inner = (*at, number), [read(atom) for atom in equation.invars], _inner(equation)
        made: list[Any]
        if until is not None and any(value is None for value in given) and inner is None:
            made = [None] * len(equation.outvars)
        elif inner is not None:
            made = _run(inner.jaxpr, inner.consts, given, missing, here, kept, until)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            result = equation.primitive.bind(*given, **params)
            made = list(result) if equation.primitive.multiple_results else [result]
        if here in missing:
            # In halves: each addition may round by as much as two tables that were rounded once may differ by.
            half = jnp.asarray(missing[here] / 2, made[0].dtype)
            made = [made[0] + half + half]
        if kept is not None and here == until:
            kept[here] = made[0]
        if until is not None and kept:
            return [None] * len(jaxpr.outvars)
        values.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
