"""Hypotheses about the model's own state: BatchNorm's running mean and variance."""

from __future__ import annotations

import numpy as np

from parity.causes.alternatives import within
from parity.causes.decimals import digits, shortest
from parity.causes.evidence import Evidence
from parity.judging.cause import Cause
from parity.recording.recording import Array

# What the sums of a batch's statistics leave of float64's 53 bits, on both sides.
_RELATIVE_SLACK = 2.0**-42


def explain_running_statistics(evidence: Evidence) -> list[Cause]:
    """Return what explains running statistics that differ."""
    first = evidence.failing("model state")
    torch, port = evidence.recording.arbiter_locked.buffers, evidence.replay.locked64.buffers
    if first is None:
        return []
    before = evidence.recording.buffers_before()
    means = [name for name in torch if name.endswith("running_mean") and name in port]
    variances = [name for name in torch if name.endswith("running_var") and name in port]
    if not means or not variances:
        return []

    def flat(names: list[str], source: object) -> Array:
        return np.concatenate([np.asarray(source[name], np.float64).reshape(-1) for name in names])  # type: ignore[index]

    mean = flat(means, before), flat(means, torch), flat(means, port)
    variance = flat(variances, before), flat(variances, torch), flat(variances, port)
    found = _momentum(mean) if not _same(mean) else None
    cause = None
    if found is not None:
        cause = _as_convention(*found, variance)
    elif _same(mean) and not _same(variance):
        # Each layer has its own number of values behind a variance.
        cause = _all_biased([(flat([n], before), flat([n], torch), flat([n], port)) for n in variances])
    if cause is None:
        return []
    name, sentence, fix, agreement = cause
    return [Cause(name, sentence, fix, first.stage, first.tensor, first.step or 0, agreement)]


Sides = tuple[Array, Array, Array]


def _same(sides: Sides) -> bool:
    before, torch, port = sides
    return bool((np.abs(torch - port) <= _RELATIVE_SLACK * (np.abs(before) + np.abs(torch) + np.abs(port))).all())


def _momentum(sides: Sides) -> tuple[float, float] | None:
    """Return how many times as far as PyTorch's the port's mean moves, and the slack of that number."""
    before, torch, port = sides
    moved, other = torch - before, port - before
    if not (moved @ moved) or moved.size < 2:
        return None
    size = np.abs(before) + np.abs(torch) + np.abs(port)
    ratio = float(moved @ other / (moved @ moved))
    if (np.abs(other - ratio * moved) > _RELATIVE_SLACK * (1 + abs(ratio)) * size).any():
        return None
    with np.errstate(divide="ignore"):
        slack = float((_RELATIVE_SLACK * (1 + abs(ratio)) * size / np.abs(moved)).min())
    return ratio, slack


def _as_convention(ratio: float, slack: float, variance: Sides) -> tuple[str, str, str, float] | None:
    """Explain the gap by the same batch statistics, with another share of them taken in."""
    before, torch, port = variance
    # PyTorch's momentum m is the share of the new; Flax's is that of the old. The one for the other is (1 - m)/m.
    own = 1 / (1 + ratio)
    shown = shortest(own, slack)
    if 0 < own < 1 and shown == float(f"{shown:.3g}"):
        name = "BatchNorm momentum convention"
        sentence = f"the port moves {digits(ratio, slack)} times as far as PyTorch: it takes {1 - shown:g} of each "
        sentence += f"batch's statistics where PyTorch takes {shown:g}"
        fix = f"set momentum={1 - shown:g} in Flax, the share of the old, for PyTorch's {shown:g}, the share of the new"
    else:
        name = "BatchNorm momentum"
        sentence = f"the port's running statistics move {digits(ratio, slack)} times as far as PyTorch's"
        fix = "set Flax's momentum to 1 - PyTorch's"
    if ratio == 0:
        return (
            "BatchNorm in eval mode",
            "the port's running statistics never move, as in evaluation, and PyTorch's do",
            "train it in training mode: model.train(), or use_running_average=False",
            0.0,
        )
    predicted = before + ratio * (torch - before)
    agreement = float(np.abs(port - predicted).max() / (np.abs(port).max() or 1.0))
    within = agreement <= _RELATIVE_SLACK * (1 + abs(ratio))
    if not within:
        # The variance may be the biased one besides; the mean alone tells the momentum.
        sentence += "; the variances differ in another way besides"
    return name, sentence, fix, agreement


def _all_biased(layers: list[Sides]) -> tuple[str, str, str, float] | None:
    """Explain the gap by biased variances in every layer that differs."""
    found = [_as_biased(*sides) for sides in layers if not _same(sides)]
    if not found or any(one is None for one in found):
        return None
    counts, momenta, gaps = zip(*(one for one in found if one is not None), strict=True)
    said = " and ".join(str(count) for count in dict.fromkeys(counts))
    sentence = (
        f"the port's running variance is that of a biased batch variance, over N = {said} and not N - 1: with a share "
        f"of {momenta[0]:.3g} of each batch the two agree {within(max(gaps))}"
    )
    fix = "keep the unbiased variance, times N / (N - 1), as PyTorch does for running_var"
    return "BatchNorm biased variance", sentence, fix, max(gaps)


def _as_biased(before: Array, torch: Array, port: Array) -> tuple[int, float, float] | None:
    """Return N, the share of the new, and how well it fits: port = a torch + c before, with a = (N - 1)/N."""
    design = np.stack([torch, before], 1)
    (share, old), *_ = np.linalg.lstsq(design, port, rcond=None)
    agreement = float(np.abs(design @ [share, old] - port).max() / (np.abs(port).max() or 1.0))
    count = 1 / (1 - share) if share != 1 else np.inf
    rounded = round(count) if np.isfinite(count) else 0
    # PyTorch's N is a whole number, and the old keeps its own share: c = (1 - m)(1 - a).
    if agreement > 1e-12 or rounded < 2 or abs(count - rounded) > 1e-6 * rounded or not 0 <= old * rounded < 1:
        swapped = _swapped(share)
        if swapped is None or agreement > 1e-12:
            return None
        rounded = swapped
    return rounded, float(1 - old * rounded), agreement


def _swapped(share: float) -> int | None:
    """Return N where PyTorch keeps the biased variance and the port the other; ``None`` where there is no such N."""
    count = share / (share - 1) if share > 1 else 0.0
    return round(count) if count >= 2 and abs(count - round(count)) <= 1e-6 * count else None
