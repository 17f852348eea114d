"""Products as an accelerator's default makes them: operands rounded to a few bits, sums in float32. Runs anywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_PRODUCTS = ("dot_general", "conv_general_dilated")


def coarse_products(function: Callable[..., Any], bits: int) -> Callable[..., Any]:
    """``function`` with the operands of its float32 products rounded to ``bits`` bits of significand, backward too.

    10 bits are TF32's, 7 are bfloat16's. Products in float64 are left as they are.
    """

    def coarse(*arguments: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        out = _run(closed.jaxpr, closed.consts, jax.tree.leaves(arguments), bits)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return coarse


def _run(jaxpr: Any, consts: Any, arguments: Any, bits: int) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        if name in ("jit", "pjit"):
            inner = equation.params["jaxpr"]
            made = _run(inner.jaxpr, inner.consts, given, bits)
        elif name in _PRODUCTS and all(value.dtype == jnp.float32 for value in given):
            product = equation.primitive.bind(*(_rounded(value, bits) for value in given), **equation.params)
            made = [_rounded_on_the_way_back(product, bits)]
        else:
            out = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
            made = out if equation.primitive.multiple_results else [out]
        values.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _to_bits(x: jax.Array, bits: int) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rounded(x: jax.Array, bits: int) -> jax.Array:
    """Rounded on the way forward; the gradient passes as it is."""
    return _to_bits(x, bits)


_rounded.defvjp(lambda x, bits: (_to_bits(x, bits), None), lambda bits, _, cotangent: (cotangent,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rounded_on_the_way_back(x: jax.Array, bits: int) -> jax.Array:
    """As it is on the way forward; the gradient, an operand of the products that follow, is rounded."""
    return x


_rounded_on_the_way_back.defvjp(lambda x, bits: (x, None), lambda bits, _, cotangent: (_to_bits(cotangent, bits),))
