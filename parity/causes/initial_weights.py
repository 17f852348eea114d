"""What is wrong with the weights that a port starts from."""

from __future__ import annotations

import itertools

import numpy as np

from parity.causes.alternatives import within
from parity.causes.evidence import Evidence
from parity.judging.cause import Cause
from parity.recording.recording import Array

_LOCKED_STAGES = ("forward", "loss", "gradient", "model state", "optimizer state", "update")


def explain_initial_weights(evidence: Evidence) -> list[Cause]:
    """Explain initial weights that differ: one cause for all of them, or a transposed one by itself."""
    ours, theirs = evidence.replay.initial, evidence.recording.initial
    failing = [found.tensor for found in evidence.findings if found.stage == "initial weights" and not found.holds]
    pairs = {name: (np.asarray(ours[name]), theirs[name]) for name in failing if name in ours}
    if not pairs:
        return []
    turned = {name: axes for name, pair in pairs.items() if (axes := _turn(*pair)) is not None}
    causes = [_turned(turned)] if turned else []
    pairs = {name: pair for name, pair in pairs.items() if name not in turned}
    if not pairs:
        return causes
    locked = [finding for finding in evidence.findings if finding.stage in _LOCKED_STAGES]
    agreement = max((finding.float64_difference or 0.0 for finding in locked), default=0.0)
    told = "; ".join(_told(name, port, torch) for name, (port, torch) in list(pairs.items())[:3])
    sentence = f"the port starts from other weights: {told}"
    if locked and all(finding.same_program for finding in locked):
        sentence += f". From the recorded weights every step agrees {within(agreement)}"
    fix = "start from the recorded weights: recording.initial"
    return [*causes, Cause("initial weights", sentence, fix, "initial weights", next(iter(pairs)), 0, agreement)]


def _turn(port: Array, torch: Array) -> tuple[int, ...] | None:
    """Return the order of axes in which PyTorch's values are the port's to the last bit, if there is one."""
    for axes in itertools.permutations(range(torch.ndim)):
        same = list(axes) == list(range(torch.ndim))
        if not same and np.array_equal(port.astype(torch.dtype), torch.transpose(axes)):
            return axes
    return None


def _turned(turned: dict[str, tuple[int, ...]]) -> Cause:
    names = ", ".join(turned)
    sentence = f"the port starts from {names} with axes in another order, to the last bit"
    fix = (
        f"the recorded axes come in the order {next(iter(turned.values()))} there: copy the values as they are recorded"
    )
    if all(axes == (1, 0) for axes in turned.values()):
        sentence = f"the port starts from the transpose of {names}, to the last bit"
        fix = 'PyTorch keeps (out, in), Flax (in, out): copy weight.T into a kernel, and write "kernel.T" in names'
    return Cause("transposed weight", sentence, fix, "initial weights", next(iter(turned)), 0, 0.0)


def _told(name: str, port: Array, torch: Array) -> str:
    """Say whose default the weights look like, where they do."""
    values, own = np.asarray(port, np.float64).reshape(-1), np.asarray(torch, np.float64).reshape(-1)
    if not np.isfinite(values).all():
        return f"{name} is not finite"
    if not values.any():
        return f"{name} is zero" + (", as Flax starts biases" if name.rpartition(".")[2] == "bias" else "")
    if own.any() and values.size > 1:
        ratio = float(values @ own / (own @ own))
        if np.allclose(values, ratio * own, rtol=1e-6, atol=0) and abs(ratio - 1) > 1e-6:
            return f"{name} is {ratio:.6g} times PyTorch's"
    inputs = torch[0].size if torch.ndim > 1 else 0
    if inputs and values.size >= 16:
        # LeCun's normal and PyTorch's uniform have variances 1/in and 1/(3 in): tell them by the nearer.
        variance = float(values.var()) * inputs
        if np.abs(values).max() > 1 / np.sqrt(inputs) and 0.5 < variance < 2:
            return f"{name} has a variance of {variance:.2g}/{inputs}, as Flax's default (LeCun normal) draws it"
        if np.abs(values).max() <= 1 / np.sqrt(inputs) and 0.2 < variance < 0.5:
            return f"{name} is within ±1/√{inputs}, as PyTorch draws it, but with other numbers"
    gap = float(np.abs(values - own).max())
    return f"{name} differs by up to {gap:.3g}"
