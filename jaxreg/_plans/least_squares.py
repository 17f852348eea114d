"""What the plans that look at the data once have in common: the problem that is left of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

# Numbers larger than this share of the largest in the model's dtype, squared or summed, could overflow in PyTorch.
_ROOM = 2.0**-24


class Problem(NamedTuple):
    """A linear model's squared error: ``scale * sum((design @ coefficients - targets) ** 2)``.

    Attributes:
        design: columns of the root of the data's cross-products, one an input and one for the bias if there is one.
        targets: its columns of the targets.
        scale: what the sum is multiplied with, 1 / elements for a mean.
        start: coefficients to start from, kernel over bias, shape ``(coefficients, out_features)``.
        size: root of the sum of the design's squares.
    """

    design: Float64[jax.Array, "m coefficients"]
    targets: Float64[jax.Array, "m outputs"]
    scale: Any
    start: Float64[jax.Array, "coefficients outputs"]
    size: Any


def problem(columns: Any, targets: Any, kernel: Any, bias: Any, scale: Any) -> Problem:
    """The problem that a root of ``[inputs 1]`` and of the targets leaves, for the parameters of a linear layer."""
    design = columns[:, : columns.shape[1] - (bias is None)]
    return Problem(design, targets, scale, start(kernel, bias), jnp.sqrt(jnp.sum(design**2)))


def start(kernel: Any, bias: Any) -> Float64[jax.Array, "coefficients outputs"]:
    """The coefficients of a linear layer, kernel over bias."""
    return (kernel if bias is None else jnp.concatenate([kernel, bias[None]])).astype(np.float64)


def params(coefficients: Any, structure: Any) -> Any:
    """A linear layer's parameters, of that tree structure, from coefficients ``(..., coefficients, outputs)``."""
    if structure.num_leaves == 1:
        return jax.tree.unflatten(structure, [coefficients])
    return jax.tree.unflatten(structure, [coefficients[..., -1, :], coefficients[..., :-1, :]])


def coefficients(params: Any) -> Any:
    """The reverse of :func:`params`: kernel over bias. The leaves come in the order of their names."""
    *bias, kernel = jax.tree.leaves(params)
    return jnp.concatenate([kernel, bias[0][None]]) if bias else kernel


def too_large(problem: Problem, squares: Any, coefficients: Any, largest: float) -> Any:
    """Whether a loop over the data in a dtype with this largest number could overflow, from its sum of squares."""
    return ~(within(problem.size, squares, jnp.sum(coefficients**2, (-2, -1)), largest) & is_finite(problem))


def within(size: Any, squares: Any, reach: Any, largest: float) -> Any:
    """Whether numbers stay far below the largest, for data and coefficients of these sums of squares.

    ``size`` is the root of the data's.
    """
    most = jnp.maximum(squares, size * jnp.maximum(jnp.sqrt(squares), jnp.sqrt(reach)))
    return jnp.maximum(most, reach) < largest * _ROOM


def is_finite(problem: Problem) -> Any:
    """Whether the data were, and their squares are."""
    return jnp.isfinite(problem.size) & jnp.all(jnp.isfinite(problem.targets))
