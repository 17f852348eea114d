"""A problem in the basis of its right singular vectors, where every mode takes its steps in closed form."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float64

from jaxreg._optim.settings import Settings
from jaxreg._plans.closed_form import remaining
from jaxreg._plans.least_squares import Problem
from jaxreg._types import Array, Number

# Of the curvature where a mode has none: small enough to move nothing in 2**53 steps.
_NO_CURVATURE = 1e-200
_EPSILON = float(np.finfo(np.float64).eps)
# So few numbers are added up one by one: XLA's CPU compiler makes vectors of that, and none of a sum over an axis.
_ONE_BY_ONE_NUMBERS = 8


class SpectralBasis(NamedTuple):
    """The problem in the basis of its right singular vectors.

    Attributes:
        vectors: the right singular vectors.
        values: the singular values.
        targets: the targets' part in each mode.
        rest: of the targets' squared size what no coefficients explain.
        start: coefficients to start from, in the basis.
        outside: what of them no row of the data sees.
    """

    vectors: Float64[Array, "modes coefficients"]
    values: Float64[Array, "modes 1"]
    targets: Float64[Array, "modes outputs"]
    rest: Float64[Array, ""]
    start: Float64[Array, "modes outputs"]
    outside: Float64[Array, "coefficients outputs"]


class State(NamedTuple):
    """Coefficients in the basis after some steps, what they leave of the targets, and the part that is not seen."""

    coefficients: Float64[Array, "steps modes outputs"]
    residuals: Float64[Array, "steps modes outputs"]
    outside: Float64[Array, "steps coefficients outputs"]


Decomposition = tuple[Float64[Array, "m modes"], Float64[Array, " modes"], Float64[Array, "modes c"]]


def decompose(problem: Problem) -> SpectralBasis:
    """Return the basis of a problem; of one that is not finite, that of nothing at all."""
    # LAPACK can hang on NaN or inf input. The targets, of which a sweep has many over one design, are looked at apart
    # from it: it is decomposed once.
    design = jnp.where(jnp.isfinite(problem.size), problem.design, 0.0)
    seen_targets = jnp.where(jnp.all(jnp.isfinite(problem.targets)), problem.targets, 0.0)
    left_vectors, values, vectors = _svd_of_two(design) if design.shape[1] <= 2 else _svd(design)
    # A mode that is not told from rounding is none: what it would explain of the targets stays, no step takes it away.
    seen = values > 8 * _EPSILON * jnp.max(values)
    left_vectors, values = jnp.where(seen[None], left_vectors, 0.0), jnp.where(seen, values, 0.0)
    targets = left_vectors.T @ seen_targets
    rest = jnp.sum((seen_targets - left_vectors @ targets) ** 2)
    start = vectors @ problem.start
    return SpectralBasis(vectors, values[:, None], targets, rest, start, problem.start - vectors.T @ start)


def _svd(design: Float64[Array, "m c"]) -> Decomposition:
    """Return the singular value decomposition; on TPU, whose compiler fails on it, by way of the cross-products.

    There modes below 1e-8 of the largest are lost. Cross-products in float64 of float32 data have lost them already.
    """
    found: Decomposition = lax.platform_dependent(
        design, tpu=_svd_of_products, default=lambda a: tuple(jnp.linalg.svd(a, full_matrices=False))
    )
    return found


def _svd_of_products(design: Float64[Array, "m c"]) -> Decomposition:
    squares, vectors = jnp.linalg.eigh(design.T @ design)
    count = min(design.shape)
    squares, vectors = squares[::-1][:count], vectors[:, ::-1][:, :count]
    values = jnp.sqrt(jnp.where(squares > len(squares) * _EPSILON * squares[0], squares, 0.0))
    return design @ vectors / jnp.where(values == 0, 1.0, values)[None], values, vectors.T


def _svd_of_two(design: Float64[Array, "m c"]) -> Decomposition:
    """Return the decomposition of one or two columns, for which a call of LAPACK takes longer than the rest.

    One-sided Jacobi (Golub and Van Loan, *Matrix Computations*, 8.6.3): one rotation makes the columns orthogonal, two
    more take away what its rounding leaves where they are almost the same.
    """

    def turned(_: Array | int, both: tuple[Array, Array]) -> tuple[Array, Array]:
        design, vectors = both
        products = design.T @ design
        across = products[0, 1]
        twice = jnp.where(across == 0, jnp.inf, (products[1, 1] - products[0, 0]) / (2 * across))
        tangent = jnp.where(twice < 0, -1.0, 1.0) / (jnp.abs(twice) + jnp.hypot(1.0, twice))
        cosine = 1 / jnp.hypot(1.0, tangent)
        turn = cosine * jnp.stack([jnp.stack([jnp.ones(()), tangent]), jnp.stack([-tangent, jnp.ones(())])])
        return design @ turn, vectors @ turn

    vectors = jnp.eye(design.shape[1])
    if design.shape[1] == 2:
        design, vectors = lax.fori_loop(0, 3, turned, (design, vectors))
    values = jnp.sqrt(jnp.sum(design**2, 0))
    return design / jnp.where(values == 0, 1.0, values)[None], values, vectors.T


def descent(
    basis: SpectralBasis, scale: Number, settings: Settings
) -> tuple[Float64[Array, "1 modes 1"], Float64[Array, "1 modes outputs"]]:
    """Return the loss's second derivative along each mode, and where it comes to rest; a leading axis for the steps."""
    sign = jnp.where(settings.maximize, -1.0, 1.0)
    values, targets = basis.values[None], basis.targets[None]
    curvature = sign * 2 * scale * values**2 + settings.weight_decay
    curvature = jnp.where(curvature == 0, _NO_CURVATURE, curvature)
    return curvature, sign * 2 * scale * values * targets / curvature


def state_after(basis: SpectralBasis, scale: Number, steps: Float64[Array, " steps"], settings: Settings) -> State:
    """Return the state after each of these numbers of steps, with a leading axis for them."""
    steps = steps[:, None, None]
    values, targets, start = basis.values[None], basis.targets[None], basis.start[None]
    curvature, rest_at = descent(basis, scale, settings)
    distance = start - rest_at
    share, gone = remaining(curvature, steps, settings)
    # Near the start from the start, near the end from the end: neither is lost in the other.
    coefficients = jnp.where(gone < 0.5, start - gone * distance, rest_at + share * distance)
    residuals = jnp.where(
        gone < 0.5,
        values * start - targets - gone * (values * distance),
        share * (values * distance) - targets * settings.weight_decay / curvature,
    )
    decay = jnp.where(settings.weight_decay == 0, _NO_CURVATURE, settings.weight_decay)
    unseen, _ = remaining(decay * jnp.ones((1, 1, 1)), steps, settings)
    return State(coefficients, residuals, unseen * basis.outside[None])


def coefficients_of(basis: SpectralBasis, state: State) -> Float64[Array, "steps coefficients outputs"]:
    """Return coefficients in the problem's own columns."""
    return jnp.einsum("mc,smo->sco", basis.vectors, state.coefficients) + state.outside


def squares_of(basis: SpectralBasis, state: State) -> Float64[Array, " steps"]:
    """Return the sum of squared errors."""
    each = state.residuals**2
    count = each.shape[-2] * each.shape[-1]
    if count > _ONE_BY_ONE_NUMBERS:
        return jnp.sum(each, (-2, -1)) + basis.rest
    flat = each.reshape(*each.shape[:-2], count)
    return sum((flat[..., k] for k in range(count)), basis.rest)
