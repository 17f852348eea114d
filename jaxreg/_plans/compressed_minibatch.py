"""The compressed plan in batches of the rows' own order: each batch is looked at once, in whatever many epochs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float64

from jaxreg._optim import optax_step
from jaxreg._plans.least_squares import coefficients, params, start, within
from jaxreg._plans.stepwise import laid_out, scan


@functools.partial(jax.jit, static_argnames=("optimizer", "structure", "steps", "record", "mean", "dtype"))
def solve(
    products: Float64[jax.Array, "batches columns columns"],
    kernel: Any,
    bias: Any,
    *,
    optimizer: Any,
    structure: Any,
    steps: int,
    record: frozenset[str],
    mean: bool,
    dtype: str,
) -> tuple[Any, tuple[Any, Any, Any], Any]:
    r"""Every step of any Optax optimizer, in float64, on the cross-products of its batch.

    With :math:`G = Z^T Z` of a batch :math:`Z = [X\ 1\ Y]` and :math:`V = [W; -I]`, the errors' sum of squares is
    :math:`\mathrm{tr}(V^T G V)`, and its gradient twice the first rows of :math:`G V`.

    Args:
        products: :math:`G` of each batch.
        kernel, bias: to start from.
        structure: of the model's parameters, for optimizers that look at their names.
        mean: whether the loss is the mean of squares, else their sum.
        dtype: of the results.

    Returns:
        Parameters; losses, gradients and weights of every step; and whether a loop in that dtype could overflow.
    """
    outputs, largest = kernel.shape[1], float(np.finfo(dtype).max)
    counted = products[:, -outputs - 1, -outputs - 1]
    scale = 1 / (counted * outputs) if mean else jnp.ones_like(counted)
    if bias is None:
        products = jnp.delete(jnp.delete(products, -outputs - 1, 1), -outputs - 1, 2)
    fixed = -jnp.eye(outputs)

    def step(carry: Any, number: jax.Array) -> tuple[Any, Any]:
        trained, state, reach = carry
        at = lax.rem(number, len(products))
        crossed = lax.dynamic_index_in_dim(products, at, keepdims=False)

        def errors(trained: Any) -> tuple[jax.Array, jax.Array]:
            against = jnp.concatenate([coefficients(trained), fixed])
            seen = crossed @ against
            return seen, jnp.maximum(jnp.sum(against * seen), 0.0)

        seen, squares = errors(trained)
        gradients = params(2 * scale[at] * seen[:-outputs], structure)
        moved, state = optax_step.advance(
            optimizer, trained, state, gradients, scale[at] * squares, lambda other: scale[at] * errors(other)[1]
        )
        reach = jnp.maximum(reach, jnp.sum(coefficients(trained) ** 2))
        traced = (gradients if "gradients" in record else None, moved if "weights" in record else None)
        return (moved, state, reach), (squares, *traced)

    begun = params(start(kernel, bias), structure)
    (trained, state, reach), (squares, *traced) = scan(
        step,
        (begun, optax_step.begin(optimizer, begun), jnp.zeros(())),
        jnp.arange(steps),
        unroll=laid_out(steps, products[0]),
    )
    # Of the largest of each, wherever it was: it is asked once, and one that could overflow is run again.
    columns = products.shape[1]
    size = jnp.sqrt(jnp.max(jnp.sum(products.reshape(-1, columns**2)[:, :: columns + 1], 1)))
    over = ~within(size, jnp.max(squares, initial=0.0), reach, largest)
    losses = squares * scale[lax.rem(jnp.arange(steps), len(products))]
    found = jax.tree.map(lambda leaf: leaf.astype(dtype), (optax_step.trained(trained, state), (losses, *traced)))
    return *found, over
