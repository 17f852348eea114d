"""Faults in the loss: its factor, its mean, its shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tests.judge_score import jax_parts
from tests.judge_score.faults._fault import Fault, attention, conv, linear, loss, mlp
from tests.judge_score.trainings import LENGTH


def _half(right: Any) -> Any:
    return lambda predictions, targets: 0.5 * right(predictions, targets)


def _l2_loss(right: Any) -> Any:
    return lambda predictions, targets: optax.l2_loss(predictions, targets).mean()


def _half_gradient(right: Any) -> Any:
    """The value is right, the gradient is half of it."""

    def value(predictions: Any, targets: Any) -> Any:
        whole = right(predictions, targets)
        return 0.5 * whole + jax.lax.stop_gradient(0.5 * whole)

    return value


def _reduced(kind: str, reduction: str) -> Any:
    return lambda right: jax_parts.loss(kind, reduction)


def _mean_of_row_sums(right: Any) -> Any:
    """The mean over rows alone: outputs are added up."""
    return lambda predictions, targets: ((predictions - targets) ** 2).sum(-1).mean()


def _sum_of_column_means(right: Any) -> Any:
    """The mean over outputs alone: rows are added up."""
    return lambda predictions, targets: ((predictions - targets) ** 2).mean(-1).sum()


def _mean_over_sentences(right: Any) -> Any:
    """Words are added up within a sentence: as many times too large as a sentence has words."""

    def value(predictions: Any, targets: Any) -> Any:
        each = optax.softmax_cross_entropy_with_integer_labels(predictions, targets)
        return each.reshape(-1, LENGTH).sum(1).mean()

    return value


def _broadcast(right: Any) -> Any:
    """Targets without their last axis: (n, 1) against (n,) makes (n, n)."""
    return lambda predictions, targets: right(predictions, targets[:, 0])


def _nan_at_wrong_signs(right: Any) -> Any:
    """A root of the gap, whose gradient is not a number wherever the gap is negative."""

    def value(predictions: Any, targets: Any) -> Any:
        gap = predictions - targets
        return jnp.where(gap > 0, jnp.sqrt(gap) ** 4, gap**2).mean()

    return value


def _log_of_softmax(right: Any) -> Any:
    """Cross-entropy from exponentials that overflow."""

    def value(logits: Any, targets: Any) -> Any:
        shares = jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)
        return -jnp.log(jnp.take_along_axis(shares, targets[:, None], axis=-1)).mean()

    return value


FAULTS = (
    Fault("linear: optax.l2_loss for MSELoss", linear(), loss(_l2_loss), "loss", 0, "half loss"),
    Fault("mlp, Adam: half the loss", mlp("Adam"), loss(_half), "loss", 0, "half loss"),
    Fault("conv, momentum: half the loss", conv(momentum=0.9), loss(_half), "loss", 0, "half loss"),
    Fault("linear: half the gradient, the value right", linear(), loss(_half_gradient), "gradient", 0, "half loss"),
    Fault("linear: sum", linear(), loss(_reduced("mse", "sum")), "loss", 0, "sum for mean"),
    Fault("conv, Adam: sum", conv("Adam"), loss(_reduced("mse", "sum")), "loss", 0, "sum for mean"),
    Fault(
        "attention, AdamW: sum", attention("AdamW"), loss(_reduced("cross_entropy", "sum")), "loss", 0, "sum for mean"
    ),
    Fault("linear: mean", linear(reduction="sum", lr=0.001), loss(_reduced("mse", "mean")), "loss", 0, "mean for sum"),
    Fault("mlp, AdamW: mean", mlp("AdamW", reduction="sum"), loss(_reduced("mse", "mean")), "loss", 0, "mean for sum"),
    Fault("linear: outputs added up", linear(), loss(_mean_of_row_sums), "loss", 0, "mean over another axis"),
    Fault("mlp, Adam: rows added up", mlp("Adam"), loss(_sum_of_column_means), "loss", 0, "mean over another axis"),
    Fault(
        "attention, Adam: words of a sentence added up",
        attention("Adam"),
        loss(_mean_over_sentences),
        "loss",
        0,
        "mean over another axis",
    ),
    Fault("linear: (n, 1) against (n,)", linear(model="one"), loss(_broadcast), "loss", 0, "broadcast loss"),
    Fault("mlp, Adam: (n, 1) against (n,)", mlp("Adam", "mlp_one"), loss(_broadcast), "loss", 0, "broadcast loss"),
    Fault("linear: the gradient of a root", linear(), loss(_nan_at_wrong_signs), "gradient", 0, "not finite"),
    Fault(
        "linear: exponentials overflow",
        linear(loss="cross_entropy", input_scale=1e4, lr=1e-6),
        loss(_log_of_softmax),
        "loss",
        0,
        "not finite",
    ),
)
