"""The judge: recording, replay and bounds into findings, stage by stage and tensor by tensor; NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from parity._words import count, place
from parity.bounds.derive import Bounds
from parity.judging import accuracy_loss, comparisons, scales
from parity.judging.comparisons import Comparison, Mismatch
from parity.judging.finding import Finding
from parity.judging.scales import UNDERFLOW, distance, largest
from parity.recording.recording import Array, Recording
from parity.replay.replay import Replay


def judge(recording: Recording, replay: Replay, bounds: Bounds) -> tuple[Finding, ...]:
    """Judge every stage and tensor; return all findings, in the order of the stages."""
    before = (*comparisons.initial(recording, replay), *comparisons.data(recording, replay))
    own = (replay.locked.losses, replay.free.losses)
    locked, free = (comparisons.steps_with_nan_loss(recording, losses) for losses in own)
    found = (
        _compare(pair, free if pair.stage in ("trajectory", "final weights") else locked)
        for pair in comparisons.compare_all(recording, replay, bounds)
    )
    return (*map(_of_mismatch, before), *found)


def warnings(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Warn of errors that hold and that rounding is unlikely to make, with the worst tensor of each side."""
    told = []
    for side, share in (("PyTorch", "torch_likely"), ("JAX", "jax_likely")):
        beyond = [finding for finding in findings if finding.holds and getattr(finding, share) > 1]
        if beyond:
            worst = max(beyond, key=lambda finding: float(getattr(finding, share)))
            others = f" (and in {count(len(beyond) - 1, 'more tensor')})" if len(beyond) > 1 else ""
            told.append(
                f"{side}'s error in {place(worst.stage, worst.tensor)}{others} is within its worst-case bound. "
                f"But it is {getattr(worst, share):.2g} times what independent roundings exceed once in 1e9 elements. "
                f"{side}'s sums or products may run in a lower precision, or its roundings may all go the same way."
            )
    return tuple(told)


def _of_mismatch(mismatch: Mismatch) -> Finding:
    """Make a finding of unequal starts or data, which must be equal to the last bit: nothing rounds yet."""
    apart = largest(mismatch.distance) / mismatch.size if mismatch.size else None
    return Finding(
        stage=mismatch.stage,
        tensor=mismatch.tensor,
        same_program=False,
        torch_within=True,
        jax_within=False,
        difference=largest(mismatch.distance),
        ulps=None if mismatch.spacing is None else largest(mismatch.distance) / mismatch.spacing,
        float64_difference=apart,
        float64_bound=None if apart is None else 0.0,
        torch_used=0.0,
        jax_used=np.inf,
        step=mismatch.step,
        message=mismatch.message,
        jax_error=apart,
    )


# -- comparing


def _within(value: Array, exact: Array, bound: Array, most: float) -> Array:
    """Tell, element by element, which values are within the bound, or duly beyond ``most``, the largest float."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = (np.abs(value - exact) <= bound + UNDERFLOW) | np.isposinf(bound)
        overflown = ~np.isfinite(value) & (np.abs(exact) + bound > most)
    return np.where(np.isfinite(exact), near | overflown, ~np.isfinite(value))


def _both_or_none_finite(a: Array, b: Array) -> Array:
    """Whether float64 runs leave the finite numbers together, but where the one still there is about to as well."""
    info = np.finfo(np.float64)
    edge = float(info.max) * float(info.eps)
    with np.errstate(invalid="ignore"):
        about_to = np.fmin(np.abs(a), np.abs(b)) > edge
    return (np.isfinite(a) == np.isfinite(b)) | about_to


def _used(value: Array, exact: Array, bound: Array, within: Array) -> float:
    """Return the largest share of the bound that the error uses, where there is a bound and no due overflow."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(value - exact)
        share = np.where(error == 0, 0.0, error / (bound + UNDERFLOW))
    share = share[np.isfinite(exact) & np.isfinite(bound) & (np.isfinite(value) | ~within)]
    return float(np.nan_to_num(share, nan=np.inf).max(initial=0.0))


def _unbounded(exact: Array, bound: Array) -> float:
    """Return the share of numbers that rounding may move by more than their tensor's largest at that step."""
    size = np.abs(exact).max(1, initial=0.0, where=np.isfinite(exact), keepdims=True)
    judged = np.isfinite(exact) & (size > 0)
    return float((bound > size)[judged].mean()) if judged.any() else 0.0


def _likely(value: Array, exact: Array, pair: Comparison, within: Array) -> float:
    return 0.0 if pair.likely is None else _used(value, exact, pair.likely + pair.bound64, within)


def _judged(pair: Comparison, nan_steps: Array, wide: dict[str, Array]) -> tuple[Array, Array]:
    """Tell which elements are judged of the sides' own runs, and of the float64 runs.

    What follows from a loss that is NaN on both sides means nothing: what relu's gradient makes of it, say.
    """
    over = np.isin(pair.steps, nan_steps)[:, None] & (pair.stage not in ("forward", "loss"))
    return ~over, ~over | (np.isfinite(wide["torch64"]) & np.isfinite(wide["jax64"]))


def _only(array: Array, judged: Array) -> Array:
    return array if judged.all() else np.where(judged, array, np.nan)


def _compare(pair: Comparison, nan_steps: Array) -> Finding:
    """Compare one tensor's values; ``nan_steps`` are the steps whose loss is NaN on both sides."""
    wide = {name: np.asarray(getattr(pair, name), np.float64) for name in ("torch", "jax", "torch64", "jax64")}
    exact = wide["torch64"]
    torch_bound, jax_bound = pair.torch_bound + pair.bound64, pair.jax_bound + pair.bound64
    most, most64 = float(np.finfo(pair.torch.dtype).max), float(np.finfo(np.float64).max)
    torch_ok = _within(wide["torch"], exact, torch_bound, most)
    jax_ok = _within(wide["jax"], exact, jax_bound, most)
    same = _within(wide["jax64"], exact, pair.bound64, most64) & _both_or_none_finite(wide["jax64"], exact)
    own, own64 = _judged(pair, nan_steps, wide)
    torch_ok, jax_ok, same = torch_ok | ~own, jax_ok | ~own, same | ~own64
    seen = {name: _only(array, own64 if name.endswith("64") else own) for name, array in wide.items()}
    beside = _only(exact, own)
    bad = np.flatnonzero(~(torch_ok & jax_ok & same).all(1))
    whole = pair.whole or pair
    size = scales.size(whole.torch64, whole.bound64)
    zero = all(scales.is_zero(values, whole.bound64) for values in (whole.torch64, whole.jax64))
    gap, error = largest(distance(seen["jax"], seen["torch"])), largest(distance(seen["jax"], beside))
    torch_whole, jax_whole = whole.torch_bound + whole.bound64, whole.jax_bound + whole.bound64
    to_both = scales.to(size, gap, whole.torch64, np.maximum(torch_whole, jax_whole))
    to_jax = scales.to(size, error, whole.torch64, jax_whole)
    finite, finite64 = (
        any(bool(np.isfinite(seen[side + run]).any()) for side in ("torch", "jax")) for run in ("", "64")
    )
    finding = Finding(
        stage=pair.stage,
        tensor=pair.tensor,
        same_program=bool(same.all()),
        torch_within=bool(torch_ok.all()),
        jax_within=bool(jax_ok.all()),
        difference=gap,
        ulps=scales.ulps(gap, to_both, pair.torch.dtype) if finite else None,
        float64_difference=scales.ratio(largest(distance(seen["jax64"], seen["torch64"])), size),
        float64_bound=scales.ratio(largest(pair.bound64), size),
        torch_used=_used(wide["torch"], beside, torch_bound, torch_ok),
        jax_used=_used(wide["jax"], beside, jax_bound, jax_ok),
        step=int(pair.steps[bad[0]]) if bad.size else None,
        message="",
        torch_likely=_likely(wide["torch"], beside, pair, torch_ok),
        jax_likely=_likely(wide["jax"], beside, pair, jax_ok),
        unbounded=0.0 if zero else _unbounded(exact, np.maximum(torch_bound, jax_bound)),
        jax_error=scales.ratio(error, to_jax),
        zero=zero,
        compared=finite or finite64,
        finite=finite,
    )
    if finding.holds:
        return _with_loss_of_accuracy(finding, pair, seen, size)
    row = int(bad[0])
    column = int(np.flatnonzero(~(torch_ok & jax_ok & same)[row])[0])
    values = {name: float(array[row, column]) for name, array in wide.items()}
    values["bound"] = float((pair.bound64 if not finding.same_program else jax_bound)[row, column])
    return dataclasses.replace(finding, message=_explain(finding, values))


def _with_loss_of_accuracy(finding: Finding, pair: Comparison, seen: dict[str, Array], size: float | None) -> Finding:
    """Return the finding, failed where one side loses half of the digits that the other keeps in a single step."""
    if pair.stage not in ("forward", "loss", "gradient") or size is None:
        return finding
    by_row = pair.stage == "gradient"
    loss = accuracy_loss.find(seen["torch"], seen["jax"], seen["torch64"], size, pair.torch.dtype, by_row=by_row)
    if loss is None:
        return finding
    return dataclasses.replace(
        finding,
        torch_within=loss.side != "torch",
        jax_within=loss.side != "jax",
        step=int(pair.steps[loss.row]),
        message=accuracy_loss.describe(loss),
        inaccurate=True,
    )


def _explain(finding: Finding, at: dict[str, float]) -> str:
    """Explain what is wrong at the first element that does not hold."""
    endless = [side for side in ("torch", "jax") if not np.isfinite(at[side])]
    if len(endless) == 1:
        names = {"torch": "PyTorch", "jax": "JAX"}
        side, other = endless[0], "jax" if endless[0] == "torch" else "torch"
        return (
            f"{names[side]} has {at[side]:g} here, where {names[other]} has {at[other]:.9g}. Look for a division by "
            "zero, a logarithm of zero or an overflow before this stage."
        )
    if finding.off == "program":
        gap = abs(at["jax64"] - at["torch64"])
        # Nothing is a multiple of what is zero to rounding.
        ratio = at["jax64"] / at["torch64"] if abs(at["torch64"]) > at["bound"] else np.inf
        factor = f", a factor of {ratio:.9g}" if np.isfinite(ratio) and abs(ratio - 1) > 1e-6 else ""
        return (
            f"In float64, PyTorch has {at['torch64']:.9g} and JAX has {at['jax64']:.9g}: {gap:.3g} apart{factor}. "
            f"Rounding explains only {at['bound']:.2g}. The two are not the same program."
        )
    side = {"jax": "JAX's", "torch": "PyTorch's", "both": "Each side's"}[str(finding.off)]
    own = at["torch"] if finding.off == "torch" else at["jax"]
    advice = {
        "jax": "JAX runs the same program in a lower precision. Look at the precision of its products and its dtypes.",
        "torch": "PyTorch's recorded value is not what its model, loss and optimizer give. Something changed it on the "
        "way (clipping, or a hook of a tensor?), or its products ran in a lower precision.",
        "both": "Both sides run in a lower precision than that of their dtype.",
    }[str(finding.off)]
    return (
        f"{side} value {own:.9g} is {abs(own - at['torch64']):.3g} from the exact {at['torch64']:.9g}. Rounding "
        f"explains only {at['bound']:.2g}, and the float64 runs agree. {advice}"
    )
