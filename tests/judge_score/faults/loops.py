"""Faults in the loop: schedules, gradients that stay or come late, frozen parameters, clipping."""

from __future__ import annotations

from typing import Any

import optax

from tests.judge_score.faults import _changes as to
from tests.judge_score.faults import transforms
from tests.judge_score.faults._fault import Fault, attention, conv, linear, mlp, optimizer

_MOMENTUM: dict[str, Any] = {"momentum": 0.9}
# Twelve rows in fours: three batches an epoch, and the rate falls after each epoch.
_EPOCHS: dict[str, Any] = {"batch": 4, "steps": 8, "falls": 1}


def _clip(norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(norm)


_SCHEDULES = (
    Fault("linear: the rate falls a step early", linear(falls=3), to.shifted(1), "update", 2, "schedule off by one"),
    Fault(
        "mlp, Adam: the rate falls a step late",
        mlp("Adam", falls=2),
        to.shifted(-1),
        "update",
        2,
        "schedule off by one",
    ),
    Fault(
        "attention, AdamW: the rate falls a step early",
        attention("AdamW", falls=4),
        to.shifted(1),
        "update",
        3,
        "schedule off by one",
    ),
    Fault(
        "linear: the schedule stepped per batch",
        linear(**_EPOCHS),
        optimizer(to.per_batch),
        "update",
        1,
        "schedule stepped per batch",
    ),
    Fault(
        "conv, momentum: the schedule stepped per batch",
        conv(**_MOMENTUM, **_EPOCHS),
        optimizer(to.per_batch),
        "update",
        1,
        "schedule stepped per batch",
    ),
    Fault(
        "mlp, AdamW: the schedule stepped per batch",
        mlp("AdamW", **_EPOCHS),
        optimizer(to.per_batch),
        "update",
        1,
        "schedule stepped per batch",
    ),
)

_GRADIENTS = (
    Fault(
        "linear: gradients not zeroed",
        linear(),
        to.before(transforms.never_zeroed),
        "update",
        1,
        "gradients not zeroed",
    ),
    Fault(
        "mlp, momentum: gradients not zeroed",
        mlp(**_MOMENTUM),
        to.before(transforms.never_zeroed),
        "optimizer state",
        1,
        "gradients not zeroed",
    ),
    Fault(
        "attention, Adam: gradients not zeroed",
        attention("Adam"),
        to.before(transforms.never_zeroed),
        "optimizer state",
        1,
        "gradients not zeroed",
    ),
    Fault(
        "linear: the gradient of the step before",
        linear(),
        to.before(transforms.one_step_late),
        "update",
        1,
        "stale gradient",
    ),
    Fault(
        "conv, Adam: the gradient of the step before, at first none",
        conv("Adam"),
        to.before(transforms.one_step_late_from_zero),
        "optimizer state",
        0,
        "stale gradient",
    ),
    Fault(
        "mlp, momentum: the gradient of the step before",
        mlp(**_MOMENTUM),
        to.before(transforms.one_step_late),
        "optimizer state",
        1,
        "stale gradient",
    ),
    Fault("linear: clipped", linear(), to.before(lambda: _clip(0.05)), "update", 0, "gradient clipping"),
    Fault(
        "mlp, momentum: clipped",
        mlp(**_MOMENTUM),
        to.before(lambda: _clip(0.1)),
        "optimizer state",
        0,
        "gradient clipping",
    ),
    Fault(
        "attention, AdamW: clipped",
        attention("AdamW"),
        to.before(lambda: _clip(0.5)),
        "optimizer state",
        0,
        "gradient clipping",
    ),
)

_FROZEN = (
    Fault(
        "linear: the bias left out of the optimizer",
        linear(),
        to.after(lambda: transforms.frozen("bias")),
        "update",
        0,
        "frozen parameter",
    ),
    Fault(
        "mlp, Adam: a layer left out of the optimizer",
        mlp("Adam"),
        to.after(lambda: transforms.frozen("fc1")),
        "update",
        0,
        "frozen parameter",
    ),
    Fault(
        "attention: no gradient to the embedding",
        attention(),
        to.stopped("embedding"),
        "gradient",
        0,
        "frozen parameter",
    ),
    Fault(
        "conv, momentum: no gradient to the convolution",
        conv(**_MOMENTUM),
        to.stopped("conv"),
        "gradient",
        0,
        "frozen parameter",
    ),
    Fault("linear: a rate divided by zero", linear(), optimizer(to.rate_over_step), "update", 0, "not finite"),
)

_NESTEROV = (
    Fault(
        "linear: Nesterov as a mean",
        linear(**_MOMENTUM, nesterov=True),
        optimizer(to.nesterov_mixed),
        "update",
        0,
        "Nesterov in another form",
    ),
    Fault(
        "conv: Nesterov without the gradient",
        conv(**_MOMENTUM, nesterov=True),
        optimizer(to.nesterov_without_gradient),
        "update",
        0,
        "Nesterov in another form",
    ),
)

FAULTS = (*_SCHEDULES, *_GRADIENTS, *_FROZEN, *_NESTEROV)
