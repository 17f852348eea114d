"""Walks a jaxpr with pairs of value and bound, a rule for each primitive."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from parity._errors import UnsupportedError
from parity.rounding import control_flow, elementwise, products, reductions, selections, structural, windows
from parity.rounding.jaxprs import Atom, Equation, Jaxpr, Literal, bind, dtype_of, equations, inner, needed
from parity.rounding.values import BoundRule, Context, Value, floating, union

RULES: dict[str, BoundRule] = {
    **elementwise.RULES,
    **products.RULES,
    **reductions.RULES,
    **windows.RULES,
    **selections.RULES,
    **structural.RULES,
    **control_flow.RULES,
}


def walk(context: Context, jaxpr: Jaxpr, constants: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    """Run an open jaxpr on pairs of value and bound.

    Raises:
        UnsupportedError: a primitive has no rule.
    """
    known: dict[Atom, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Atom) -> Value:
        if isinstance(atom, Literal):
            return context.constant(atom.val, dtype_of(atom))
        return known[atom]

    for eqn in needed(jaxpr):
        outputs = _apply(context, eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    numbers = any(floating(dtype_of(atom)) for atom in [*eqn.invars, *eqn.outvars])
    certain = all(x.error is None for x in inputs)
    if not numbers and certain and not _has_numbers(eqn):
        results = bind(eqn, *(x.value for x in inputs), **eqn.params)
        return [Value(r) for r in (results if eqn.primitive.multiple_results else [results])]
    if name in RULES and (numbers or name not in elementwise.RULES):
        with jax.named_scope(name):
            outputs = RULES[name](context, eqn, inputs)
        return outputs if context.seed is None else [context.drawn(x) for x in outputs]
    if not numbers:
        return _flagged(eqn, inputs)
    raise UnsupportedError(
        f"no rounding bound is known for the primitive '{name}'; write the function with others, "
        "or give its result as an argument with input_bounds"
    )


def _has_numbers(eqn: Equation) -> bool:
    """Return whether a call computes with floating values inside, though none goes in or out."""
    return any(
        floating(dtype_of(atom))
        for jaxpr in inner(eqn)
        for within in equations(jaxpr)
        for atom in [*within.invars, *within.outvars]
    )


def _flagged(eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Flag integers worked out exactly from integers that rounding could change."""
    results = bind(eqn, *(x.value for x in inputs), **eqn.params)
    results = results if eqn.primitive.multiple_results else [results]
    outputs = []
    for result in results:
        if all(x.shape in ((), result.shape) for x in inputs):
            error = union([x.error for x in inputs], result.shape)
        else:
            error = union([None if x.error is None else x.error.max() for x in inputs], result.shape)
        outputs.append(Value(result, error))
    return outputs
