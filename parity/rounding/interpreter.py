"""Walks a jaxpr with pairs of value and bound, a rule for each primitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from parity._errors import UnsupportedError
from parity.rounding import control_flow, elementwise, products, reductions, selections, structural, windows
from parity.rounding.values import Context, Value, floating, union

Rule = Callable[[Context, Any, list[Value]], list[Value]]

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **products.RULES,
    **reductions.RULES,
    **windows.RULES,
    **selections.RULES,
    **structural.RULES,
    **control_flow.RULES,
}


def walk(context: Context, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    """The outputs of an open jaxpr as pairs.

    Raises:
        UnsupportedError: a primitive has no rule.
    """
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            aval: Any = atom.aval
            return context.constant(atom.val, aval.dtype)
        return known[atom]

    for eqn in _live(jaxpr):
        outputs = _apply(context, eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _live(jaxpr: Any) -> list[Any]:
    """The equations that the outputs need: differentiation leaves many that nobody reads."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not wanted.isdisjoint(eqn.outvars):
            kept.append(eqn)
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
    return kept[::-1]


def _apply(context: Context, eqn: Any, inputs: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    numbers = any(floating(atom.aval.dtype) for atom in [*eqn.invars, *eqn.outvars])
    certain = all(x.error is None for x in inputs)
    if not numbers and certain and not _has_numbers(eqn.params):
        results = eqn.primitive.bind(*(x.value for x in inputs), **eqn.params)
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


def _has_numbers(params: dict[str, Any]) -> bool:
    """Whether a call computes with floating values inside, though none goes in or out."""
    for param in params.values():
        for inner in param if isinstance(param, (tuple, list)) else (param,):
            if hasattr(inner, "eqns") and any(
                floating(atom.aval.dtype) or _has_numbers(eqn.params)
                for eqn in inner.eqns
                for atom in [*eqn.invars, *eqn.outvars]
            ):
                return True
    return False


def _flagged(eqn: Any, inputs: list[Value]) -> list[Value]:
    """Integers worked out exactly from integers that rounding could change: element by element, or all of them."""
    results = eqn.primitive.bind(*(x.value for x in inputs), **eqn.params)
    results = results if eqn.primitive.multiple_results else [results]
    outputs = []
    for result in results:
        if all(x.shape in ((), result.shape) for x in inputs):
            error = union([x.error for x in inputs], result.shape)
        else:
            error = union([None if x.error is None else x.error.max() for x in inputs], result.shape)
        outputs.append(Value(result, error))
    return outputs
