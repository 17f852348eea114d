"""Clipping of gradients as PyTorch does it before a step, traced by JAX and told in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

Clipping = Mapping[str, Any]
# What PyTorch adds to the norm that it divides by.
EPSILON = 1e-6


def traced(clipping: Clipping, gradients: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's clipping on arrays of JAX, operation by operation as PyTorch rounds it."""
    if "clip_value" in clipping:
        limit = clipping["clip_value"]
        return {name: jnp.clip(gradient, -limit, limit) for name, gradient in gradients.items()}
    if not clipping:
        return dict(gradients)
    sizes = jnp.stack([_norm(jnp.ravel(g), clipping["norm_type"]) for g in gradients.values()])
    share = jnp.minimum(clipping["max_norm"] / (_norm(sizes, clipping["norm_type"]) + EPSILON), 1.0)
    return {name: gradient * share for name, gradient in gradients.items()}


def _norm(values: Any, kind: float) -> Any:
    if np.isinf(kind):
        return jnp.abs(values).max()
    if kind == 2:
        return jnp.sqrt((values * values).sum())
    return (jnp.abs(values) ** kind).sum() ** (1 / kind)


def told(clipping: Clipping) -> str:
    """How gradients are clipped, in words."""
    if "clip_value" in clipping:
        return f"to ±{clipping['clip_value']:g} each"
    kind = "" if clipping["norm_type"] == 2 else f" of order {clipping['norm_type']:g}"
    return f"to a norm{kind} of {clipping['max_norm']:g} together"
