"""Whether a port's loss and predictions have the form that the recording calls for, before anything is run."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from parity._errors import PortError
from parity._words import count
from parity.replay.session import Session
from parity.replay.step import pieces


def check(session: Session) -> None:
    """Look at one kept step for each shape of the batches.

    Raises:
        PortError: the loss is not a scalar, or predictions are not as many numbers as PyTorch's.
    """
    port, recording = session.port, session.recording
    inputs = session.inputs(recording.dtype)
    feed, start = inputs.recorded, inputs.start
    seen = set()
    for row, step in enumerate(recording.kept):
        place = feed.order[step]
        batch, parts = feed.batches[place], feed.parts[place]
        form = (*(leaf.shape for leaf in jax.tree.leaves(batch)), parts)
        if form in seen:
            continue
        seen.add(form)
        made = []
        for given, targets in pieces(batch, parts):
            predictions, _ = jax.eval_shape(port.apply, start.params, start.model, given)
            made.append((predictions, targets))
        flat = [jax.tree_util.tree_flatten_with_path(predictions)[0] for predictions, _ in made]
        _check_predictions(flat, recording.observed.predictions[row], int(step))
        for both in made:
            _check_loss(jax.eval_shape(port.loss, *both), int(step))


def _check_loss(loss: Any, step: int) -> None:
    shape = getattr(loss, "shape", None)
    if shape != ():
        what = f"has shape {shape}" if shape is not None else f"is a {type(loss).__name__}"
        raise PortError(
            f"the port's loss {what} at step {step}, where one number is needed. Take its mean or its sum, as the "
            "program does"
        )


def _check_predictions(made: list[Any], recorded: Any, step: int) -> None:
    """Leaf by leaf the same number of elements: a program may reshape what its model gave before it takes the loss."""
    theirs = [np.shape(leaf) for leaf in jax.tree.leaves(recorded)]
    if len(made[0]) != len(theirs):
        raise PortError(
            f"the port predicts {count(len(made[0]), 'array')} at step {step}, and PyTorch's model {len(theirs)}: "
            "return them in a tree like PyTorch's"
        )
    for place, shape in enumerate(theirs):
        path, leaf = made[0][place]
        total = sum(math.prod(one[place][1].shape) for one in made)
        if total != math.prod(shape):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            which = f" {name!r}" if name else ""
            raise PortError(
                f"the port's predictions{which} have shape {leaf.shape} at step {step}, and PyTorch's {tuple(shape)}"
            )
