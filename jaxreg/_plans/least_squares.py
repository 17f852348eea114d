"""What the plans that look at the data once have in common: when they serve, and the small problem left of the data."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxreg._nn.linear_params import LayerParams, stack
from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._plans import solver_device
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Data
from jaxreg._statistics.gram_root import fits_one_call, gram_root
from jaxreg._types import Array, Number

# Numbers larger than this share of the largest in the model's dtype, squared or summed, could overflow in PyTorch.
_OVERFLOW_SHARE = 2.0**-24
_FULL_PRECISION = (None, "highest", jax.lax.Precision.HIGHEST, "float32")


class Problem(NamedTuple):
    """A linear model's squared error: ``scale * sum((design @ coefficients - targets) ** 2)``.

    Attributes:
        design: columns of the root of the data's cross-products, one an input and one for the bias if there is one.
        targets: its columns of the targets.
        scale: what the sum is multiplied with, 1 / elements for a mean.
        start: coefficients to start from, kernel over bias.
        size: root of the sum of the design's squares.
    """

    design: Float64[Array, "m coefficients"]
    targets: Float64[Array, "m outputs"]
    scale: Number
    start: Float64[Array, "coefficients outputs"]
    size: Float64[Array, ""]


def why_not_linear(request: Request) -> str | None:
    """Return why the data cannot be summed up before the training; ``None`` where they can."""
    model, dtype = request.model, request.dtype
    if request.is_traced:
        return (
            "it is traced, by jax.jit, jax.vmap or jax.grad, and how this plan goes on depends on numbers that are not "
            "known then; plan='stepwise', which 'auto' takes, can be traced"
        )
    if not request.is_layer:
        return f"the model must be one linear layer, got {type(model).__name__}"
    if model.dtype not in (None, model.param_dtype) or model.dot_general is not jax.lax.dot_general:
        return "the layer computes in another dtype or with another product than a plain one"
    if dtype not in (np.float32, np.float64):
        return f"parameters must be float32 or float64, got {dtype}, whose own rounding decides what is learned"
    if request.squared_error is None:
        return "the loss must be jaxreg.mse_loss, with reduction 'mean' or 'sum'"
    if request.lowered or model.precision not in _FULL_PRECISION:
        return "products were asked for at another precision than full float32"
    if not isinstance(request.optimizer, PyTorchSGD) and request.draws:
        return "the optimizer draws random numbers, and would draw others in float64"
    weights = request.row_weights
    if weights is not None and not request.weighs_rows:
        return f"weights must be one for each row, shape ({request.rows},), got {weights.shape}"
    if not request.fits:
        return (
            f"inputs must have shape (rows, {model.in_features}) and targets (rows, {model.out_features}), "
            f"got {request.shapes[0]} and {request.shapes[1]}"
        )
    return None


def gram_source(request: Request) -> Data | Float64[Array, "m columns"]:
    """Return the data where they go through in one call, else a root of their cross-products."""
    if request.statistics is not None:
        return solver_device.to_solver_device(request.statistics.root)
    data = request.data
    elsewhere = solver_device.solver_device() is not None and not isinstance(data.inputs, np.ndarray)
    if fits_one_call(data, request.dtype) and not elsewhere:
        return data
    return solver_device.to_solver_device(gram_root(*data, dtype=request.dtype))


def make_problem(
    columns: Float64[Array, "m inputs_and_one"], targets: Float64[Array, "m outputs"], layer: LayerParams, scale: Number
) -> Problem:
    """Return the problem that a root of ``[inputs 1]`` and of the targets leaves, for the parameters of a layer."""
    design = columns[:, : columns.shape[1] - (layer.bias is None)]
    return Problem(design, targets, scale, start(layer), jnp.sqrt(jnp.sum(design**2)))


def start(layer: LayerParams) -> Float64[Array, "coefficients outputs"]:
    """Return the coefficients of a linear layer in float64."""
    return stack(*layer).astype(np.float64)


def too_large(
    problem: Problem, squares: Float64[Array, "*steps"], coefficients: Float64[Array, "*steps c o"], largest: float
) -> Bool[Array, "*steps"]:
    """Return whether a loop over the data in a dtype with this largest number could overflow."""
    return ~(within(problem.size, squares, jnp.sum(coefficients**2, (-2, -1)), largest) & is_finite(problem))


def within(
    size: Float[Array, ""], squares: Float64[Array, "*steps"], reach: Float64[Array, "*steps"], largest: float
) -> Bool[Array, "*steps"]:
    """Return whether numbers stay far below the largest.

    Args:
        size: root of the sum of the data's squares.
        squares: sum of squared errors.
        reach: sum of the coefficients' squares.
        largest: of the dtype.
    """
    products = jnp.maximum(squares, size * jnp.maximum(jnp.sqrt(squares), jnp.sqrt(reach)))
    return jnp.maximum(products, reach) < largest * _OVERFLOW_SHARE


def is_finite(problem: Problem) -> Bool[Array, ""]:
    """Return whether the data were finite, and their squares are."""
    return jnp.isfinite(problem.size) & jnp.all(jnp.isfinite(problem.targets))
