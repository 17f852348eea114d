"""The losses, with PyTorch's definitions and without its silent broadcasting."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._arrays import as_array, as_weights
from jaxreg._errors import ArgumentError
from jaxreg._validation import check_choice, is_finite, is_number

Reduction = Literal["mean", "sum", "none"]


class ShapeError(ArgumentError):
    """Predictions and targets have as many elements in other shapes; how to give targets theirs depends on their kind.

    Attributes:
        said: what is wrong.
        wanted: the shape that the targets must have.
    """

    def __init__(self, said: str, wanted: tuple[int, ...], fix: str = "targets.reshape({})") -> None:
        super().__init__(f"{said}; write {fix.format(wanted)}")
        self.said, self.wanted = said, wanted


def _check_shapes(predictions: jax.Array, targets: jax.Array) -> None:
    if predictions.shape == targets.shape:
        return
    message = f"predictions and targets must have the same shape, got {predictions.shape} and {targets.shape}"
    try:
        together = jnp.broadcast_shapes(predictions.shape, targets.shape)
    except ValueError:
        raise ArgumentError(message) from None
    message += f". PyTorch would broadcast them to {together} and train the wrong thing without an error"
    if predictions.size == targets.size:
        raise ShapeError(message, predictions.shape)
    raise ArgumentError(f"{message}; if that is what you mean, broadcast both to {together} first")


def _difference(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return predictions less targets, of one shape and a real floating dtype."""
    predictions, targets = (
        jnp.asarray(as_array(name, value)) for name, value in (("predictions", predictions), ("targets", targets))
    )
    _check_shapes(predictions, targets)
    dtypes = [predictions.dtype, targets.dtype]
    if not any(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise ArgumentError(
            f"predictions and targets must be real, and one of them floating, got {dtypes[0]} and {dtypes[1]}; write "
            "predictions.astype(jnp.float32)"
        )
    return predictions - targets


def _spread(weights: ArrayLike, values: jax.Array) -> jax.Array:
    """Return the weights, one for each element of ``values``."""
    weights = jnp.asarray(as_weights(weights))
    shape = values.shape
    per_leading_axes = shape[: weights.ndim] == weights.shape
    per_axis = weights.ndim == len(shape) and all(w in (1, n) for w, n in zip(weights.shape, shape, strict=True))
    if not (per_leading_axes or per_axis):
        raise ArgumentError(
            f"weights must have the predictions' shape {shape}, its leading axes (one weight a row: {shape[:1]}), or "
            f"1 in place of some axes, got {weights.shape}"
        )
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return jnp.broadcast_to(weights.astype(values.dtype), shape)


def _reduce(values: jax.Array, weights: ArrayLike | None, reduction: str, *, over_weights: bool = True) -> jax.Array:
    """Weigh and reduce. The weighted mean divides by the sum of the weights, or else by the number of elements."""
    spread = None if weights is None else _spread(weights, values)
    weighed = values if spread is None else values * spread
    check_choice("reduction", reduction, "mean", "sum", "none")
    match reduction:
        case "mean" if spread is not None and over_weights:
            return jnp.sum(weighed) / jnp.sum(spread)
        case "mean":
            return jnp.mean(weighed)
        case "sum":
            return jnp.sum(weighed)
    return weighed


@jax.custom_jvp
def _magnitude(values: jax.Array) -> jax.Array:
    """Return the absolute value, with PyTorch's subgradient: 0 at 0, and at NaN, where JAX's own is NaN."""
    return jnp.abs(values)


@_magnitude.defjvp
def _magnitude_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (values,), (tangent,) = primals, tangents
    sign = (values > 0).astype(values.dtype) - (values < 0).astype(values.dtype)
    return _magnitude(values), sign * tangent


def _check_threshold(name: str, value: object, *, above_zero: bool) -> None:
    # Not so an integer beyond float64.
    fits = is_number(value) and (is_finite(value) or value == math.inf)
    if not fits or not is_number(value) or not (value > 0 or (value == 0 and not above_zero)):
        raise ArgumentError(f"{name} must be a number {'above 0' if above_zero else 'of at least 0'}, got {value!r}")


def mse_loss(
    predictions: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean", weights: ArrayLike | None = None
) -> jax.Array:
    r"""Squared error, :math:`(p - t)^2`, as ``torch.nn.MSELoss`` defines it.

    The mean is taken over *all* elements, rows times outputs, and nothing is halved: ``optax.l2_loss`` is half of it.
    Over no elements at all the mean is NaN and the sum 0, as in PyTorch.

    Args:
        predictions: any shape, a scalar and an empty one too, floating dtype.
        targets: the same shape; integers are promoted.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the element by element values.
        weights: how much each sample counts: shape ``(rows,)``, more of the predictions' leading axes, all of them, or
            1 in place of some. The mean is then :math:`\sum w (p - t)^2 / \sum w`, the sum of the weights taken over
            all elements, as ``torch.nn.functional.mse_loss(..., weight=)`` has it. Numbers of at least 0, not all of
            them 0; NaN spreads.

    Returns:
        A scalar, or an array of the arguments' shape for ``"none"``. The unit is that of the targets, squared.

    Raises:
        ArgumentError: the shapes differ (even where they would broadcast), both arguments are integers or one is
            complex, what is given holds no numbers, the weights do not fit, or ``reduction`` is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> float(mse_loss(jnp.array([1.0, 4.0]), jnp.array([0.0, 2.0])))
        2.5
        >>> float(mse_loss(jnp.array([1.0, 4.0]), jnp.array([0.0, 2.0]), weights=jnp.array([3.0, 1.0])))
        1.75

    Source: `torch/nn/functional.py`, ``mse_loss``.
    """
    return _reduce(jnp.square(_difference(predictions, targets)), weights, reduction)


def l1_loss(
    predictions: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean", weights: ArrayLike | None = None
) -> jax.Array:
    r"""Absolute error, :math:`|p - t|`, as ``torch.nn.L1Loss`` defines it; its gradient is 0 where :math:`p = t`.

    Args:
        predictions: any shape, floating dtype.
        targets: the same shape; integers are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weights: as in :func:`jaxreg.mse_loss`; the weighted mean divides by the sum of the weights.

    Returns:
        A scalar, or an array of the arguments' shape for ``"none"``, in the unit of the targets.

    Raises:
        ArgumentError: as in :func:`jaxreg.mse_loss`. PyTorch also takes complex numbers, and sums of integers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> float(l1_loss(jnp.array([1.0, 4.0]), jnp.array([0.0, 2.0])))
        1.5
        >>> jax.grad(l1_loss)(jnp.array([1.0, 2.0]), jnp.array([0.0, 2.0])).tolist()
        [0.5, 0.0]

    Source: `torch/nn/functional.py`, ``l1_loss``.
    """
    return _reduce(_magnitude(_difference(predictions, targets)), weights, reduction)


def smooth_l1_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Reduction = "mean",
    beta: float = 1.0,
    weights: ArrayLike | None = None,
) -> jax.Array:
    r""":math:`d^2 / 2\beta` where :math:`|d| = |p - t| < \beta`, else :math:`|d| - \beta / 2`.

    It is ``torch.nn.SmoothL1Loss``.

    Args:
        predictions: any shape, floating dtype.
        targets: the same shape; integers are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        beta: where the square meets the line, at least 0, in the unit of the targets; 0 gives :func:`jaxreg.l1_loss`.
        weights: as in :func:`jaxreg.mse_loss`. PyTorch has none here; the weighted mean is that of its other losses.

    Returns:
        A scalar, or an array of the arguments' shape for ``"none"``, in the unit of the targets.

    Raises:
        ArgumentError: as in :func:`jaxreg.mse_loss`, or ``beta`` is below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> smooth_l1_loss(jnp.array([0.5, 4.0]), jnp.zeros(2), reduction="none").tolist()
        [0.125, 3.5]

    Source: `aten/src/ATen/native/cpu/BinaryOpsKernel.cpp`, ``smooth_l1_kernel``.
    """
    _check_threshold("beta", beta, above_zero=False)
    beta = float(beta)
    if beta == 0:
        return l1_loss(predictions, targets, reduction=reduction, weights=weights)
    difference = _difference(predictions, targets)
    size = _magnitude(difference)
    on_line = size >= beta
    # Not the difference itself: an infinite one makes the gradient of the branch not taken NaN, and zero times it too.
    near = jnp.where(on_line, 0, difference)
    return _reduce(jnp.where(on_line, size - 0.5 * beta, 0.5 * near * near / beta), weights, reduction)


def huber_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weights: ArrayLike | None = None,
) -> jax.Array:
    r""":math:`d^2 / 2` where :math:`|d| = |p - t| \le \delta`, else :math:`\delta (|d| - \delta / 2)`.

    It is ``torch.nn.HuberLoss``, and :math:`\delta` times :func:`jaxreg.smooth_l1_loss` with the same threshold.

    Args:
        predictions: any shape, floating dtype.
        targets: the same shape; integers are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        delta: where the square meets the line, above 0, in the unit of the targets; infinite for the square alone.
        weights: shapes as in :func:`jaxreg.mse_loss`. The weighted mean divides by the *number of elements*, as
            ``torch.nn.functional.huber_loss`` does, unlike PyTorch's other losses.

    Returns:
        A scalar, or an array of the arguments' shape for ``"none"``. The unit is that of the targets, squared.

    Raises:
        ArgumentError: as in :func:`jaxreg.mse_loss`, or ``delta`` is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> huber_loss(jnp.array([0.5, 4.0]), jnp.zeros(2), delta=2.0, reduction="none").tolist()
        [0.125, 6.0]

    Source: `aten/src/ATen/native/cpu/BinaryOpsKernel.cpp`, ``huber_kernel``.
    """
    _check_threshold("delta", delta, above_zero=True)
    delta = float(delta)
    difference = _difference(predictions, targets)
    if math.isinf(delta):
        return _reduce(0.5 * jnp.square(difference), weights, reduction, over_weights=False)
    size = _magnitude(difference)
    on_line = size > delta
    near = jnp.where(on_line, 0, difference)  # as in smooth_l1_loss
    values = jnp.where(on_line, delta * (size - 0.5 * delta), 0.5 * near * near)
    return _reduce(values, weights, reduction, over_weights=False)
