"""Full float32 products on every backend, unless the user said otherwise."""

from __future__ import annotations

import contextlib

import jax

from jaxreg._errors import ArgumentError


def full_precision(precision: str | None = None) -> contextlib.AbstractContextManager[None]:
    """Return a context that traces matrix products at ``precision``, else at JAX's own setting, else at full float32.

    JAX's default on TPU is one bfloat16 pass and on recent GPUs TF32; PyTorch's is float32. A setting the user made
    (``jax.default_matmul_precision`` or ``JAX_DEFAULT_MATMUL_PRECISION``) is a choice and stands.
    """
    try:
        context: contextlib.AbstractContextManager[None] = jax.default_matmul_precision(_chosen(precision))
    except ValueError:
        raise _unknown(precision) from None
    return context


def is_full(precision: str | None = None) -> bool:
    """Return whether products are then made at full float32 precision."""
    return _chosen(precision) in ("highest", "float32", "F32_F32_F32")


def _unknown(precision: object) -> ArgumentError:
    return ArgumentError(
        "precision must be one that jax.default_matmul_precision takes, such as 'default', 'high', 'highest', "
        f"'bfloat16', 'tensorfloat32' or 'float32', or None, got {precision!r}"
    )


def _chosen(precision: str | None) -> str:
    if precision is not None and not isinstance(precision, str):
        raise _unknown(precision)
    return precision or jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]
