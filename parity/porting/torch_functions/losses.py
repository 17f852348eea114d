"""PyTorch's losses, where they are one function of torch's own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from parity.porting.torch_functions.elementwise import absolute, clamp, log_sigmoid, xlogy
from parity.porting.torch_functions.reductions import log_softmax, norm
from parity.porting.torch_functions.registry import Argument, function

# PyTorch's numbers for the reductions.
_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}


def reduced(values: jax.Array, reduction: Argument = "mean") -> Any:
    """Return values, their mean or their sum."""
    kind = _REDUCTIONS.get(reduction, reduction)
    if kind == "none":
        return values
    return jnp.sum(values) if kind == "sum" else jnp.sum(values) / values.size


@function("mse_loss")
def mse_loss(x: jax.Array, target: jax.Array, reduction: Argument = "mean") -> Any:
    """Squared errors."""
    return reduced((x - target) ** 2, reduction)


@function("l1_loss")
def l1_loss(x: jax.Array, target: jax.Array, reduction: Argument = "mean") -> Any:
    """Absolute errors."""
    return reduced(absolute(x - target), reduction)


@function("smooth_l1_loss")
def smooth_l1_loss(x: jax.Array, target: jax.Array, reduction: Argument = "mean", beta: Argument = 1.0) -> Any:
    """Squared errors near 0, absolute ones elsewhere."""
    size = absolute(x - target)
    if beta == 0:
        return reduced(size, reduction)
    return reduced(jnp.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta), reduction)


@function("huber_loss")
def huber_loss(x: jax.Array, target: jax.Array, reduction: Argument = "mean", delta: Argument = 1.0) -> Any:
    """Squared errors near 0, absolute ones elsewhere."""
    size = absolute(x - target)
    return reduced(jnp.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta)), reduction)


@function("soft_margin_loss")
def soft_margin_loss(x: jax.Array, target: jax.Array, reduction: Argument = "mean") -> Any:
    """``log(1 + exp(-y x))``."""
    return reduced(jnp.log1p(jnp.exp(-target * x)), reduction)


@function("binary_cross_entropy")
def binary_cross_entropy(x: jax.Array, target: jax.Array, weight: Argument = None, reduction: Argument = "mean") -> Any:
    """Of probabilities; logarithms are not below -100."""
    first, second = (jnp.maximum(jnp.log(each), -100) for each in (x, 1 - x))
    values = -(target * first + (1 - target) * second)
    return reduced(values if weight is None else values * weight, reduction)


@function("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    x: jax.Array,
    target: jax.Array,
    weight: Argument = None,
    pos_weight: Argument = None,
    reduction: Argument = "mean",
) -> Any:
    """Of logits."""
    log_share = log_sigmoid(x)
    if pos_weight is None:
        values = (1 - target) * x - log_share
    else:
        values = (1 - target) * x - (1 + (pos_weight - 1) * target) * log_share
    return reduced(values if weight is None else values * weight, reduction)


@function("nll_loss", "nll_loss_nd", "nll_loss2d")
def nll_loss(
    x: jax.Array,
    target: jax.Array,
    weight: Argument = None,
    reduction: Argument = "mean",
    ignore_index: int = -100,
    **_: Argument,
) -> Any:
    """The negative logarithm of the right class's probability; classes are on the second axis, or the only one."""
    axis = 1 if x.ndim > 1 else 0
    counts = target != ignore_index
    classes = jnp.where(counts, target, 0)
    picked = -jnp.squeeze(jnp.take_along_axis(x, jnp.expand_dims(classes, axis), axis), axis)
    each = counts.astype(x.dtype) if weight is None else jnp.where(counts, weight[classes], 0)
    values = jnp.where(counts, picked, 0) * each
    if _REDUCTIONS.get(reduction, reduction) == "mean":
        return jnp.sum(values) / jnp.sum(each)
    return reduced(values, reduction)


@function("cross_entropy_loss", "cross_entropy")
def cross_entropy(
    x: jax.Array,
    target: jax.Array,
    weight: Argument = None,
    reduction: Argument = "mean",
    ignore_index: int = -100,
    label_smoothing: Argument = 0.0,
) -> Any:
    """Of logits and classes, or of logits and probabilities of classes."""
    axis = 1 if x.ndim > 1 else 0
    shares = log_softmax(x, axis)
    if target.shape == x.shape and jnp.issubdtype(target.dtype, jnp.floating):
        return _of_probabilities(shares, target, weight, reduction, label_smoothing, axis)
    plain = nll_loss(shares, target, weight, reduction, ignore_index)
    if isinstance(label_smoothing, int | float) and label_smoothing == 0:
        return plain
    counts = target != ignore_index
    own = -shares if weight is None else -shares * _on_axis(weight, shares, axis)
    values = jnp.where(counts, jnp.sum(own, axis), 0)
    if _REDUCTIONS.get(reduction, reduction) == "mean":
        classes = jnp.where(counts, target, 0)
        whole = jnp.sum(counts.astype(x.dtype) if weight is None else jnp.where(counts, weight[classes], 0))
        smooth = jnp.sum(values) / whole
    else:
        smooth = reduced(values, reduction)
    return (1 - label_smoothing) * plain + smooth * (label_smoothing / x.shape[axis])


def _on_axis(weight: jax.Array, like: jax.Array, axis: int) -> jax.Array:
    return weight.reshape([-1 if k == axis else 1 for k in range(like.ndim)])


def _of_probabilities(
    shares: jax.Array, target: jax.Array, weight: Argument, reduction: Argument, smoothing: Argument, axis: int
) -> Any:
    target = target * (1 - smoothing) + smoothing / shares.shape[axis]
    values = -shares * target if weight is None else -shares * target * _on_axis(weight, shares, axis)
    if _REDUCTIONS.get(reduction, reduction) == "mean":
        return jnp.sum(values) / (values.size // values.shape[axis])
    return reduced(jnp.sum(values, axis), reduction)


@function("kl_div")
def kl_div(x: jax.Array, target: jax.Array, reduction: Argument = "mean", log_target: bool = False) -> Any:
    """``target (log target - x)``."""
    values = jnp.exp(target) * (target - x) if log_target else xlogy(target, target) - target * x
    if reduction == "batchmean":
        return jnp.sum(values) / values.shape[0]
    return reduced(values, reduction)


@function("poisson_nll_loss")
def poisson_nll_loss(
    x: jax.Array, target: jax.Array, log_input: bool, full: bool, eps: Argument, reduction: Argument
) -> Any:
    """The negative logarithm of Poisson's probability."""
    values = jnp.exp(x) - target * x if log_input else x - target * jnp.log(x + eps)
    if full:
        more = target * jnp.log(jnp.where(target > 1, target, 1.0)) - target
        more = more + 0.5 * jnp.log(2 * jnp.pi * jnp.where(target > 1, target, 1.0))
        values = values + jnp.where(target > 1, more, 0)
    return reduced(values, reduction)


@function("hinge_embedding_loss")
def hinge_embedding_loss(x: jax.Array, target: jax.Array, margin: Argument = 1.0, reduction: Argument = "mean") -> Any:
    """``x`` where the target is 1, ``max(margin - x, 0)`` where it is -1."""
    values = jnp.where(target == 1, x, 0) + jnp.where(target == -1, clamp(margin - x, 0), 0)
    return reduced(values, reduction)


@function("margin_ranking_loss")
def margin_ranking_loss(
    x: jax.Array, other: jax.Array, target: jax.Array, margin: Argument = 0.0, reduction: Argument = "mean"
) -> Any:
    """``max(-y (x - other) + margin, 0)``."""
    return reduced(clamp(-target * (x - other) + margin, 0), reduction)


@function("cosine_embedding_loss")
def cosine_embedding_loss(
    x: jax.Array, other: jax.Array, target: jax.Array, margin: Argument = 0.0, reduction: Argument = "mean"
) -> Any:
    """1 less the cosine for like vectors, the cosine beyond a margin for others."""
    eps = 1e-12
    product = jnp.sum(x * other, -1)
    cosine = product / jnp.sqrt((jnp.sum(x * x, -1) + eps) * (jnp.sum(other * other, -1) + eps))
    values = jnp.where(target == 1, 1 - cosine, 0) + jnp.where(target == -1, clamp(cosine - margin, 0), 0)
    return reduced(values, reduction)


@function("triplet_margin_loss")
def triplet_margin_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    margin: Argument = 1.0,
    p: Argument = 2,
    eps: Argument = 1e-6,
    swap: bool = False,
    reduction: Argument = "mean",
) -> Any:
    """``max(d(a, p) - d(a, n) + margin, 0)``."""
    near, far = (norm(anchor - each + eps, p, -1) for each in (positive, negative))
    if swap:
        far = jnp.minimum(far, norm(positive - negative + eps, p, -1))
    return reduced(clamp(near - far + margin, 0), reduction)


@function("multi_margin_loss")
def multi_margin_loss(
    x: jax.Array,
    target: jax.Array,
    p: Argument = 1,
    margin: Argument = 1.0,
    weight: Argument = None,
    reduction: Argument = "mean",
) -> Any:
    """How far other classes come near the right one."""
    rows = x if x.ndim > 1 else x.reshape(1, -1)
    classes = jnp.reshape(jnp.asarray(target), (-1,))
    own = jnp.take_along_axis(rows, classes[:, None], 1)  # the right class's score
    values = clamp(margin - own + rows, 0) ** p
    values = values if weight is None else values * weight[classes][:, None]
    values = jnp.where(jnp.arange(rows.shape[1])[None] == classes[:, None], 0, values)
    each = jnp.sum(values, 1) / rows.shape[1]
    return reduced(each if x.ndim > 1 else each[0], reduction)


@function("multilabel_soft_margin_loss")
def multilabel_soft_margin_loss(
    x: jax.Array, target: jax.Array, weight: Argument = None, reduction: Argument = "mean"
) -> Any:
    """Logistic losses of all classes, their mean."""
    values = -(target * log_sigmoid(x) + (1 - target) * log_sigmoid(-x))
    values = values if weight is None else values * weight
    return reduced(jnp.sum(values, -1) / x.shape[-1], reduction)
