"""What a jaxpr is made of: its atoms, the jaxprs inside its equations, the equations that its outputs need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from parity._types import ArrayLike

Literal = core.Literal
Atom: TypeAlias = core.Var | core.Literal
Equation: TypeAlias = core.JaxprEqn
Jaxpr: TypeAlias = core.Jaxpr
ClosedJaxpr: TypeAlias = core.ClosedJaxpr
# Parameters under which a call's equation has what it calls.
_CALLED_PARAMETERS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def dtype_of(atom: Atom) -> np.dtype[Any]:
    """Return an atom's dtype."""
    aval: Any = atom.aval
    return aval.dtype


def shape_of(atom: Atom) -> tuple[int, ...]:
    """Return an atom's shape."""
    aval: Any = atom.aval
    return tuple(aval.shape)


def opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    """Return an open jaxpr and its constants, none where it was open already."""
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())


def called(equation: Equation) -> Jaxpr | ClosedJaxpr | None:
    """Return what an equation calls once; ``None`` where it is no call."""
    return next((found for key in _CALLED_PARAMETERS if (found := equation.params.get(key)) is not None), None)


def inner(equation: Equation) -> Iterator[Jaxpr]:
    """Yield all jaxprs inside an equation, such as the branches of a choice."""
    for param in equation.params.values():
        for part in param if isinstance(param, tuple | list) else (param,):
            if isinstance(part, Jaxpr | ClosedJaxpr):
                yield opened(part)[0]


def bind(equation: Equation, /, *values: ArrayLike, **params: Any) -> Any:
    """Return what an equation's primitive makes of values: one array, or a list where it makes several."""
    primitive: Any = equation.primitive
    return primitive.bind(*values, **params)


def equations(jaxpr: Jaxpr) -> Iterator[Equation]:
    """Yield all equations, each followed by those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for within in inner(equation):
            yield from equations(within)


def needed(jaxpr: Jaxpr) -> list[Equation]:
    """Return the equations that the outputs need: differentiation leaves many that nobody reads."""
    return partial_eval.dce_jaxpr(jaxpr, True, instantiate=True)[0].eqns
