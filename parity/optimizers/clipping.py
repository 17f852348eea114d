"""PyTorch's clipping of gradients, on arrays of NumPy or JAX, operation by operation as PyTorch rounds it."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from parity._types import Array
from parity.recording.clipping import Clipping

# What PyTorch adds to the norm that it divides by.
NORM_EPSILON = 1e-6


def norm_share(norms: Array, max_norm: float, epsilon: float = NORM_EPSILON) -> Array:
    """Return what gradients of these norms are multiplied by, for NumPy's arrays."""
    return np.minimum(max_norm / (norms + epsilon), 1.0)


def clip(clipping: Clipping, gradients: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the gradients as a recorded clipping leaves them; it can be traced."""
    if "clip_value" in clipping:
        limit = clipping["clip_value"]
        return {name: jnp.clip(gradient, -limit, limit) for name, gradient in gradients.items()}
    if not clipping:
        return dict(gradients)
    sizes = jnp.stack([_norm(jnp.ravel(g), clipping["norm_type"]) for g in gradients.values()])
    share = jnp.minimum(clipping["max_norm"] / (_norm(sizes, clipping["norm_type"]) + NORM_EPSILON), 1.0)
    return {name: gradient * share for name, gradient in gradients.items()}


def _norm(values: jax.Array, kind: float) -> jax.Array:
    if np.isinf(kind):
        return jnp.abs(values).max()
    if kind == 2:
        return jnp.sqrt((values * values).sum())
    return (jnp.abs(values) ** kind).sum() ** (1 / kind)
