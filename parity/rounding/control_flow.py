"""Rules for calls, loops and branches: pairs go in, pairs come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from parity.rounding.jaxprs import ClosedJaxpr, Equation, Jaxpr, opened
from parity.rounding.values import Array, BoundRule, Context, Value, floating, gap

# Arrays that stand for values in a loop: the value; its error, empty if exact; its floor, empty if none is kept.
Packed = tuple[Array, tuple[Array, ...], tuple[Array, ...]]


def _called(name: str) -> BoundRule:
    def rule(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
        return _inside(context, eqn.params[name], inputs)

    return rule


def _inside(context: Context, jaxpr: Jaxpr | ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    """Walk a jaxpr, closed or open."""
    return context.walk(context, opened(jaxpr)[0], context.constants(jaxpr), inputs)


# -- values in and out of loops


def _pack(x: Value, exact: bool) -> Packed:
    value = jnp.asarray(x.value)
    if exact:
        return value, (), ()
    error = jnp.zeros(value.shape) if x.error is None else jnp.broadcast_to(x.error, value.shape)
    return value, (error,), (x.floor(),) if floating(value.dtype) else ()


def _unpack(packed: Packed) -> Value:
    value, error, floor = packed
    return Value(value, error[0] if error else None, floor[0] if floor else None)


def _stable(step: Callable[[list[Value]], list[Value]], start: list[Value]) -> list[bool]:
    """Return which of a loop's carried values stay exact: those exact at the start that no turn makes otherwise."""
    exact = [x.error is None for x in start]
    seen: list[bool] = []

    def probe(packed: list[Packed]) -> list[Array]:
        outputs = step([_unpack(p) for p in packed])
        seen[:] = [x.error is None for x in outputs]
        return [x.value for x in outputs]

    while True:
        jax.eval_shape(probe, [_pack(x, e) for x, e in zip(start, exact, strict=True)])
        after = [a and b for a, b in zip(exact, seen, strict=True)]
        if after == exact:
            return exact
        exact = after


def _scan(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    params = eqn.params
    n_consts, n_carry = params["num_consts"], params["num_carry"]
    consts, carry, xs = inputs[:n_consts], inputs[n_consts : n_consts + n_carry], inputs[n_consts + n_carry :]
    xs_packed = [_pack(x, x.error is None) for x in xs]
    consts_packed = [_pack(x, x.error is None) for x in consts]

    def turn(carried: list[Value], slices: list[Packed]) -> list[Value]:
        fixed = [_unpack(p) for p in consts_packed]
        return _inside(context, params["jaxpr"], [*fixed, *carried, *(_unpack(p) for p in slices)])

    def probe(carried: list[Value]) -> list[Value]:
        # The slices' values do not matter to which carried values stay exact.
        slices = jax.tree.map(lambda a: lax.full(a.shape[1:], 0, a.dtype), xs_packed)
        return turn(carried, slices)[:n_carry]

    exact = _stable(probe, carry)

    def body(packed: list[Packed], slices: list[Packed]) -> tuple[list[Packed], list[Packed]]:
        outputs = turn([_unpack(p) for p in packed], slices)
        after = [_pack(x, e) for x, e in zip(outputs[:n_carry], exact, strict=True)]
        return after, [_pack(x, x.error is None) for x in outputs[n_carry:]]

    start = [_pack(x, e) for x, e in zip(carry, exact, strict=True)]
    end, stacked = lax.scan(
        body, start, xs_packed, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [_unpack(p) for p in [*end, *stacked]]


def _while(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    """Follow the turns that the exact values take; if rounding could change their number, nothing can be said."""
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts, carry = inputs[:n_cond], inputs[n_cond : n_cond + n_body], inputs[n_cond + n_body :]
    packed_cond = [_pack(x, x.error is None) for x in cond_consts]
    packed_body = [_pack(x, x.error is None) for x in body_consts]

    def test(carried: list[Value]) -> Value:
        return _inside(context, params["cond_jaxpr"], [*(_unpack(p) for p in packed_cond), *carried])[0]

    def turn(carried: list[Value]) -> list[Value]:
        return _inside(context, params["body_jaxpr"], [*(_unpack(p) for p in packed_body), *carried])

    exact = _stable(turn, carry)

    def proceed(state: tuple[Array, list[Packed]]) -> Array:
        return test([_unpack(p) for p in state[1]]).value

    def body(state: tuple[Array, list[Packed]]) -> tuple[Array, list[Packed]]:
        carried = [_unpack(p) for p in state[1]]
        unsure = state[0] | test(carried).uncertain()
        return unsure, [_pack(x, e) for x, e in zip(turn(carried), exact, strict=True)]

    start = (jnp.zeros((), bool), [_pack(x, e) for x, e in zip(carry, exact, strict=True)])
    unsure, end = lax.while_loop(proceed, body, start)
    outputs = [_unpack(p) for p in end]
    last = test(outputs)
    if all(exact) and last.error is None:
        return outputs
    unsure = unsure | last.uncertain()
    return [Value(x.value, jnp.where(unsure, jnp.inf, context.reported(x))) for x in outputs]


def _branch(context: Context, eqn: Equation, inputs: list[Value]) -> list[Value]:
    index, *operands = inputs
    branches = eqn.params["branches"]
    packed = [_pack(x, x.error is None) for x in operands]

    def run(branch: Any) -> Callable[[list[Packed]], list[Packed]]:
        return lambda given: [_pack(x, False) for x in _inside(context, branch, [_unpack(p) for p in given])]

    number = jnp.clip(index.value.astype(jnp.int32), 0, len(branches) - 1)
    chosen = lax.switch(number, [run(branch) for branch in branches], packed)
    outputs = [_unpack(p) for p in chosen]
    if index.error is None:
        return outputs
    unsure = index.uncertain()
    for branch in branches:
        # Any branch may have been taken: the bound must reach the results of each.
        others = [_unpack(p) for p in run(branch)(packed)]
        outputs = [_covering(context, unsure, x, other) for x, other in zip(outputs, others, strict=True)]
    return outputs


def _covering(context: Context, unsure: Array, x: Value, other: Value) -> Value:
    if x.floating:
        apart = gap(x.value, other.value) + context.error(other)
    else:
        apart = jnp.where(x.value == other.value, context.reported(other), jnp.inf)
    floor = (lambda: jnp.where(unsure, jnp.minimum(x.floor(), other.floor()), x.floor())) if x.floating else None
    return Value(x.value, jnp.where(unsure, jnp.maximum(context.reported(x), apart), context.reported(x)), floor)


RULES: dict[str, BoundRule] = {
    "jit": _called("jaxpr"),
    "pjit": _called("jaxpr"),
    "closed_call": _called("call_jaxpr"),
    "core_call": _called("call_jaxpr"),
    "custom_jvp_call": _called("call_jaxpr"),
    "custom_vjp_call": _called("call_jaxpr"),
    "custom_lin": _called("call_jaxpr"),
    "remat2": _called("jaxpr"),
    "checkpoint": _called("jaxpr"),
    "scan": _scan,
    "while": _while,
    "cond": _branch,
}
