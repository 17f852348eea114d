"""Faults in the data's way: the order of the batches, and the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parity import Port, Recording
from tests.judge_score import jax_side
from tests.judge_score.faults._fault import Change, Fault, attention, conv, linear, mlp
from tests.judge_score.trainings import Training


def _fed(order: Sequence[int]) -> Change:
    """The port feeds itself: at each step the batch with this number."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        seen: list[Any] = [(batch.inputs, batch.targets) for batch in recording.batches]
        return jax_side.changed(port, batches=[seen[number] for number in order])

    return change


def _swapped_rows(port: Port, training: Training, recording: Recording) -> Port:
    """The right batches, but two rows changed places between the first two of them."""
    fed = [(batch.inputs.copy(), batch.targets.copy()) for batch in recording.batches]
    for array, other in zip(fed[0], fed[1], strict=True):
        array[1], other[1] = other[1].copy(), array[1].copy()
    return jax_side.changed(port, batches=[fed[number] for number in recording.batch_of_step])


# Twelve rows: in fives the third batch of an epoch has two; in fours there are three alike.
_FIVES: dict[str, Any] = {"batch": 5, "steps": 6}
_FOURS: dict[str, Any] = {"batch": 4, "steps": 6}

FAULTS = (
    Fault("linear: batches backwards", linear(**_FOURS), _fed([2, 1, 0] * 2), "data", 0, "batch order"),
    Fault(
        "mlp, Adam: the second epoch shuffled",
        mlp("Adam", **_FOURS),
        _fed([0, 1, 2, 0, 2, 1]),
        "data",
        4,
        "batch order",
    ),
    Fault(
        "attention, AdamW: the first two batches swapped",
        attention("AdamW", **_FOURS),
        _fed([1, 0, 2, 0, 1, 2]),
        "data",
        0,
        "batch order",
    ),
    Fault("conv: two rows swapped between batches", conv("Adam", **_FOURS), _swapped_rows, "data", 0, "batch order"),
    Fault(
        "linear: the last batch dropped", linear(**_FIVES), _fed([0, 1, 0, 1, 0, 1]), "data", 2, "last batch dropped"
    ),
    Fault(
        "mlp, AdamW: the last batch dropped",
        mlp("AdamW", **_FIVES),
        _fed([0, 1, 0, 1, 0, 1]),
        "data",
        2,
        "last batch dropped",
    ),
)
