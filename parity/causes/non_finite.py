"""Values that are not finite on one side only: where they first appear, and on which side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.causes.evidence import Evidence, joined, loss_of
from parity.judging import comparisons
from parity.judging.cause import Cause
from parity.recording.recording import Array, Recording, Trace


def explain_non_finite(evidence: Evidence) -> list[Cause]:
    """Find the first stage of the first step that does not hold, with one side finite there and the other not."""
    failing = {(finding.stage, finding.step) for finding in evidence.findings if not finding.holds}
    if not failing:
        return []
    pairs = (
        (evidence.recording.arbiter_locked, evidence.replay.locked64, "float64"),
        (evidence.recording.observed, evidence.replay.locked, str(evidence.recording.dtype)),
    )
    lost = comparisons.steps_with_nan_loss(evidence.recording, evidence.replay.locked.losses)
    for row in range(len(evidence.recording.kept)):
        step = int(evidence.recording.kept[row])
        if step in lost:
            return []  # what follows from a loss that is NaN on both sides is no cause of anything
        for torch, jax, dtype in pairs:
            for stage, tensor, ours, theirs in _rows(evidence.recording, torch, jax, row):
                # Where the optimizer could not be given its state, the replay has none to compare.
                if stage in ("optimizer state", "update") and not evidence.judged[row]:
                    continue
                bad = ~np.isfinite(theirs), ~np.isfinite(ours)
                if bad[0].shape != bad[1].shape or (bad[0] == bad[1]).all():
                    continue
                if (stage, step) not in failing:
                    continue  # a step at which both are about to leave the finite numbers, and one does by rounding
                here = (bad[0] & ~bad[1]).any()
                side, other = ("JAX", "PyTorch") if here else ("PyTorch", "JAX")
                values = (theirs if here else ours)[bad[0] ^ bad[1]]
                what = "NaN" if np.isnan(values).any() else "an infinite number"
                sentence = f"at step {step:,}, in {dtype}, {side} has {what} in {values.size:,} of {bad[0].size:,} "
                sentence += f"places of {tensor} where {other} is finite; all before it is finite on both sides"
                fix = _FIXES.get(stage, "look at what makes it, with jax.debug_nans(True)")
                return [Cause("not finite", sentence, fix, stage, tensor, step, float("inf"))]
    return []


_FIXES = {
    "loss": "look at where the loss divides or takes a logarithm; jax.debug_nans(True) shows the line",
    "gradient": "guard roots, logarithms and quotients before they are taken: jnp.where around their argument too",
    "update": "look at the learning rate and the optimizer's divisions at that step",
}


def _rows(recording: Recording, torch: Trace, jax: Trace, row: int) -> Iterator[tuple[str, str, Array, Array]]:
    yield "forward", "predictions", joined(torch.predictions[row]), joined(jax.predictions[row])
    losses = tuple(np.atleast_1d(loss_of(trace, recording, row)) for trace in (torch, jax))
    yield "loss", "loss", losses[0], losses[1]
    for stage, field in (("gradient", "gradients"), ("model state", "buffers")):
        for name, values in getattr(torch, field).items():
            if name in getattr(jax, field) and np.issubdtype(np.asarray(values).dtype, np.floating):
                yield stage, name, values[row], getattr(jax, field)[name][row]
    for key, tensors in torch.state.items():
        for name, values in tensors.items():
            if name in jax.state.get(key, {}):
                yield "optimizer state", f"{key}/{name}", values[row], jax.state[key][name][row]
    for name, values in torch.weights.items():
        if name in jax.weights:
            yield "update", name, values[row], jax.weights[name][row]
