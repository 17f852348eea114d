"""What rounding can do to the result of any JAX function: a transformation over its jaxpr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import ArrayLike, PyTree, Scalar
from parity.rounding.formats import Format
from parity.rounding.interpreter import walk
from parity.rounding.jaxprs import ClosedJaxpr
from parity.rounding.values import Array, Context, Value, floating

__all__ = ["Format", "bound", "drawn"]


def bound(
    function: Callable[..., PyTree],
    *,
    precision: str | Format = "float32",
    input_bounds: PyTree = None,
    products: str | None = None,
    narrow: bool = True,
    probabilistic: bool | jax.Array = False,
) -> Callable[..., tuple[PyTree, PyTree]]:
    """Return a function of the same arguments to ``(values, bounds)``, both of the shape of ``function``'s result.

    ``values`` is the result in float64. ``bounds`` is, element by element, the most by which the result computed in
    ``precision`` can differ from the exact one: for any order of summation, with or without fused multiply-add, and
    whether or not numbers below the smallest normal one are flushed to zero. It is infinite where a number may
    overflow, where a division may be by zero, and where rounding could lead the program another way that cannot be
    followed. For integers and bools in the result it is 0 or infinity: certain, or not.

    >>> import jax.numpy as jnp
    >>> values, bounds = bound(jnp.sum)(jnp.ones(5, jnp.float32))
    >>> float(values), round(float(bounds) / 2.0**-24, 3)
    (5.0, 20.0)

    The transformation can itself be traced, under ``jax.jit`` and ``jax.vmap``, and takes gradients as it takes any
    function: ``bound(jax.grad(loss))``.

    Args:
        function: takes and returns pytrees of arrays. It is traced with its floating arguments as float64.
        precision: "float64", "float32", "bfloat16", "float16", or a :class:`Format`, whose fields may be traced, so
            that one compiled program serves several formats.
        input_bounds: how far the arguments may be from what they stand for: a tuple like the arguments, with None, a
            number or an array in place of any of its parts. None: they are exact.
        products: "tensorfloat32" or "bfloat16" if matrix products and convolutions round their operands first and sum
            in ``precision``; None if they do not. Not to be given beside a :class:`Format`, which says it itself.
        narrow: whether values that the function itself makes narrower are rounded accordingly.
        probabilistic: sums take the bound that holds but for one chance in 1e9 an element where roundings are
            independent with mean zero, in place of the worst case; it grows with the root of their length. It may be
            traced.

    Raises (when called):
        UnsupportedError: the function uses a primitive for which no rule is known; the message names it.
        ValueError: there is no such precision, or ``input_bounds`` is not like the arguments.

    Sums and products: N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 2002, ch. 3.
    Probabilistic: N. J. Higham and T. Mary, SIAM J. Sci. Comput. 41, 2019. Functions: as measured, see ``_accuracy``.
    For float64 the values are rounded too: two float64 results can be apart by twice the bound.
    """
    if isinstance(precision, Format):
        if products is not None:
            raise ValueError("products is for a precision given by name; a Format has a field for it")
        form = precision
    else:
        form = Format.of(precision, products)

    @jax.jit
    def run(
        form: Format, likely: bool | jax.Array, off: PyTree, arguments: tuple[PyTree, ...]
    ) -> tuple[PyTree, PyTree]:
        context = Context(form, narrow, False if probabilistic is False else likely, walk)
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            arguments = jax.tree.map(_exact, arguments)
            closed, shape = _traced(function, arguments)
            outputs = walk(context, closed.jaxpr, context.constants(closed), _paired(arguments, off))
            tree: Any = jax.tree.structure(shape)
            values = [jnp.asarray(x.value) for x in outputs]
            bounds = [jnp.broadcast_to(context.reported(x), x.shape) for x in outputs]
            return tree.unflatten(values), tree.unflatten(bounds)

    def bounded(*arguments: PyTree) -> tuple[PyTree, PyTree]:
        with jax.enable_x64(True):
            fields = Format(*(lax.convert_element_type(field, np.float64) for field in form))
            return run(fields, probabilistic, input_bounds, arguments)

    return bounded


def drawn(function: Callable[..., PyTree], *, unit: Scalar, seed: Scalar) -> Callable[..., PyTree]:
    """Return a function of the same arguments whose every operation is off by an error drawn at random, in float64.

    Where :func:`bound` carries the worst case of each rounding to the next operation, which for deep compositions of
    long sums soon exceeds everything, this shows what independent roundings do: errors of the size that each operation
    may make, of random sign. This is Monte Carlo arithmetic (D. S. Parker, UCLA CSD-970002, 1997) with the model of
    Higham and Mary (2019), in which the roundings of a sum of n terms add up to the root of n of them.

    >>> import jax.numpy as jnp
    >>> x = jnp.linspace(0.0, 1.0, 1000)
    >>> off = drawn(jnp.sum, unit=2.0**-24, seed=1)(x) - drawn(jnp.sum, unit=0.0, seed=1)(x)
    >>> 0 < abs(float(off)) < 1e-3
    True

    Args:
        function: as for :func:`bound`.
        unit: unit roundoff; 0 for the function itself. It may be traced.
        seed: which errors, a whole number. It may be traced.

    Raises (when called):
        UnsupportedError: the function uses a primitive for which no rule is known; the message names it.
    """

    @jax.jit
    def run(unit: Scalar, seed: Scalar, arguments: tuple[PyTree, ...]) -> PyTree:
        form = Format.of("float64")._replace(unit=unit)
        context = Context(form, False, False, walk, seed * np.uint64(0x9E3779B97F4A7C15))
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            arguments = jax.tree.map(_exact, arguments)
            closed, shape = _traced(function, arguments)
            inputs = [Value(leaf) for leaf in jax.tree.leaves(arguments)]
            outputs = walk(context, closed.jaxpr, context.constants(closed), inputs)
            tree: Any = jax.tree.structure(shape)
            return tree.unflatten([jnp.asarray(x.value) for x in outputs])

    def perturbed(*arguments: PyTree) -> PyTree:
        with jax.enable_x64(True):
            return run(jnp.asarray(unit, np.float64), jnp.asarray(seed, np.uint64), arguments)

    return perturbed


def _traced(function: Callable[..., PyTree], arguments: tuple[PyTree, ...]) -> tuple[ClosedJaxpr, PyTree]:
    """Return the function as it will be compiled, and the shape of its result.

    Where a caller has jit disabled, a scan would be traced as a Python loop, which is differentiated into another
    function: one that leaves out a product of zero with what may be no number.
    """
    with jax.disable_jit(False):
        return jax.make_jaxpr(function, return_shape=True)(*arguments)


def _exact(argument: ArrayLike) -> Array:
    argument = jnp.asarray(argument)
    return lax.convert_element_type(argument, np.float64) if floating(argument.dtype) else argument


def _paired(arguments: tuple[PyTree, ...], off: PyTree) -> list[Value]:
    """Return the arguments with their bounds, which may stop at any depth of the tree."""
    leaves: list[Any]
    tree: Any
    leaves, tree = jax.tree.flatten(arguments)
    if off is None:
        return [Value(leaf) for leaf in leaves]
    none = jax.tree.map(lambda leaf: None, arguments)
    is_none = {"is_leaf": lambda node: node is None}
    try:
        spread = jax.tree.map(lambda part, below: jax.tree.map(lambda _: part, below, **is_none), off, none, **is_none)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"input_bounds must be a tuple like the {len(arguments)} arguments, with None, a number or an array in "
            f"place of any part: {error}"
        ) from error
    bounds = tree.flatten_up_to(spread)
    return [
        Value(leaf, None if part is None else jnp.broadcast_to(jnp.asarray(part, np.float64), leaf.shape))
        for leaf, part in zip(leaves, bounds, strict=True)
    ]
