"""A training that leaves the finite numbers: on which side, from which step on, and what is known of the reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax import tree

from parity.recording.recording import Recording, Tree
from parity.replay.replay import Replay


def first_steps(recording: Recording, replay: Replay) -> dict[str, int]:
    """Return the first step at which a side has inf or NaN, by the side's name; sides that stay finite are left out."""
    first = {}
    for side, run in {"PyTorch": recording.observed, "JAX": replay.free}.items():
        bad = set(np.flatnonzero(~np.isfinite(run.losses)).tolist())
        for values in run.weights.values():
            bad.update(int(step) for step, row in zip(recording.kept, values, strict=True) if not _is_finite(row))
        if bad:
            first[side] = min(bad)
    return first


def sentences(recording: Recording, first: Mapping[str, int], holds: bool) -> list[str]:
    """Say which side has inf or NaN, from which step on, and why; nothing where both stay finite.

    Args:
        recording: the training.
        first: what :func:`first_steps` says of it.
        holds: whether that is parity.
    """
    if not first:
        return []
    starts = " and ".join(f"{side} has inf or NaN from step {step:,} on" for side, step in first.items())
    lead = "Both trainings diverge" if len(first) == 2 else "One training diverges"
    parity = "That is parity too. " if holds and len(first) == 2 else ""
    return [f"{lead}: {starts}. {parity}{_reason(recording, min(first.values()))}"]


def _reason(recording: Recording, step: int) -> str:
    batch = recording.batches[recording.batch_of_step[step]]
    for what, values in (("inputs", batch.inputs), ("targets", batch.targets)):
        if not _is_finite(values):
            return f"The {what} of that step hold inf or NaN. Look at the data."
    if not np.isfinite(recording.observed.losses[step]) and step == 0:
        return "The loss is not finite at the first step already. Look at the targets and the initial weights."
    return "Until then it was finite, and a smaller learning rate may keep it so."


def _is_finite(values: Tree) -> bool:
    leaves = (np.asarray(leaf) for leaf in tree.leaves(values))
    return all(bool(np.isfinite(leaf).all()) for leaf in leaves if leaf.dtype.kind in "fc")
