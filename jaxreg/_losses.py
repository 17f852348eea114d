"""The losses, with PyTorch's definitions and without its silent broadcasting."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._errors import ArgumentError

Reduction = Literal["mean", "sum", "none"]


def _check_shapes(predictions: jax.Array, targets: jax.Array) -> None:
    if predictions.shape == targets.shape:
        return
    message = f"predictions and targets must have the same shape, got {predictions.shape} and {targets.shape}"
    try:
        together = jnp.broadcast_shapes(predictions.shape, targets.shape)
    except ValueError:
        raise ArgumentError(message) from None
    fix = f"; write targets.reshape({predictions.shape})" if predictions.size == targets.size else ""
    raise ArgumentError(
        f"{message}. PyTorch would broadcast them to {together} and train the wrong thing without an error{fix}"
    )


def _reduce(values: jax.Array, reduction: str) -> jax.Array:
    match reduction:
        case "mean":
            return jnp.mean(values)
        case "sum":
            return jnp.sum(values)
        case "none":
            return values
    raise ArgumentError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')


def mse_loss(predictions: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean") -> jax.Array:
    r"""Squared error, :math:`(p - t)^2`, as ``torch.nn.MSELoss`` defines it.

    The mean is taken over *all* elements, rows times outputs, and nothing is halved: ``optax.l2_loss`` is half of it.

    Args:
        predictions: any shape, floating dtype.
        targets: the same shape.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the element by element values.

    Returns:
        A scalar, or an array of the arguments' shape for ``"none"``. The unit is that of the targets, squared.

    Raises:
        ArgumentError: the shapes differ (even where they would broadcast), or ``reduction`` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> float(mse_loss(jnp.array([1.0, 4.0]), jnp.array([0.0, 2.0])))
        2.5

    Source: `torch/nn/functional.py`, ``mse_loss``.
    """
    predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
    _check_shapes(predictions, targets)
    return _reduce(jnp.square(predictions - targets), reduction)
