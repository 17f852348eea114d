"""The judge: recording, replay and bounds into findings, stage by stage and tensor by tensor; NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from parity._words import count, place
from parity.bounds.derive import Bounds
from parity.judging import accuracy_loss, comparisons, scales
from parity.judging.comparisons import Case, Gap
from parity.judging.finding import Finding
from parity.judging.scales import UNDERFLOW, distance, largest
from parity.recording.recording import Array, Recording
from parity.replay.replay import Replay


def judge(recording: Recording, replay: Replay, bounds: Bounds) -> tuple[Finding, ...]:
    """All findings, in the order of the stages."""
    before = (*comparisons.initial(recording, replay), *comparisons.data(recording, replay))
    own = (replay.locked.losses, replay.free.losses)
    locked, free = (comparisons.lost(recording, losses) for losses in own)
    found = (
        _find(case, free if case.stage in ("trajectory", "final weights") else locked)
        for case in comparisons.cases(recording, replay, bounds)
    )
    return (*map(_unlike, before), *found)


def warnings(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What holds, and yet is not what rounding is likely to do: a sentence for the worst tensor of each side."""
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


def _unlike(gap: Gap) -> Finding:
    """What was given is compared to the last bit: there is nothing yet that could round."""
    apart = largest(gap.distance) / gap.size if gap.size else None
    return Finding(
        stage=gap.stage,
        tensor=gap.tensor,
        same_program=False,
        torch_within=True,
        jax_within=False,
        difference=largest(gap.distance),
        ulps=None if gap.spacing is None else largest(gap.distance) / gap.spacing,
        float64_difference=apart,
        float64_bound=None if apart is None else 0.0,
        torch_used=0.0,
        jax_used=np.inf,
        step=gap.step,
        message=gap.message,
        jax_error=apart,
    )


# -- comparing


def _within(value: Array, exact: Array, bound: Array, most: float) -> Array:
    """Element by element: near enough, or beyond ``most``, the largest number, where the exact value is, or may be."""
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
    """The largest share of the bound that the error uses, where there is a bound and it did not overflow duly."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(value - exact)
        share = np.where(error == 0, 0.0, error / (bound + UNDERFLOW))
    share = share[np.isfinite(exact) & np.isfinite(bound) & (np.isfinite(value) | ~within)]
    return float(np.nan_to_num(share, nan=np.inf).max(initial=0.0))


def _unbounded(exact: Array, bound: Array) -> float:
    """The share of numbers that rounding may move by more than all of their tensor's numbers are large, at its step."""
    size = np.abs(exact).max(1, initial=0.0, where=np.isfinite(exact), keepdims=True)
    judged = np.isfinite(exact) & (size > 0)
    return float((bound > size)[judged].mean()) if judged.any() else 0.0


def _likely(value: Array, exact: Array, case: Case, within: Array) -> float:
    return 0.0 if case.likely is None else _used(value, exact, case.likely + case.bound64, within)


def _judged(case: Case, lost: Array, wide: dict[str, Array]) -> tuple[Array, Array]:
    """Which elements are judged of the sides' own runs, and of the float64 runs.

    What follows from a loss that is NaN on both sides means nothing: what relu's gradient makes of it, say.
    """
    over = np.isin(case.steps, lost)[:, None] & (case.stage not in ("forward", "loss"))
    return ~over, ~over | (np.isfinite(wide["torch64"]) & np.isfinite(wide["jax64"]))


def _only(array: Array, judged: Array) -> Array:
    return array if judged.all() else np.where(judged, array, np.nan)


def _find(case: Case, lost: Array) -> Finding:
    """What is found for a case; ``lost`` are the steps whose loss is no number on either side."""
    wide = {name: np.asarray(getattr(case, name), np.float64) for name in ("torch", "jax", "torch64", "jax64")}
    exact = wide["torch64"]
    torch_bound, jax_bound = case.torch_bound + case.bound64, case.jax_bound + case.bound64
    most, most64 = float(np.finfo(case.torch.dtype).max), float(np.finfo(np.float64).max)
    torch_ok = _within(wide["torch"], exact, torch_bound, most)
    jax_ok = _within(wide["jax"], exact, jax_bound, most)
    same = _within(wide["jax64"], exact, case.bound64, most64) & _both_or_none_finite(wide["jax64"], exact)
    own, own64 = _judged(case, lost, wide)
    torch_ok, jax_ok, same = torch_ok | ~own, jax_ok | ~own, same | ~own64
    seen = {name: _only(array, own64 if name.endswith("64") else own) for name, array in wide.items()}
    beside = _only(exact, own)
    bad = np.flatnonzero(~(torch_ok & jax_ok & same).all(1))
    whole = case.whole or case
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
        stage=case.stage,
        tensor=case.tensor,
        same_program=bool(same.all()),
        torch_within=bool(torch_ok.all()),
        jax_within=bool(jax_ok.all()),
        difference=gap,
        ulps=scales.ulps(gap, to_both, case.torch.dtype) if finite else None,
        float64_difference=scales.ratio(largest(distance(seen["jax64"], seen["torch64"])), size),
        float64_bound=scales.ratio(largest(case.bound64), size),
        torch_used=_used(wide["torch"], beside, torch_bound, torch_ok),
        jax_used=_used(wide["jax"], beside, jax_bound, jax_ok),
        step=int(case.steps[bad[0]]) if bad.size else None,
        message="",
        torch_likely=_likely(wide["torch"], beside, case, torch_ok),
        jax_likely=_likely(wide["jax"], beside, case, jax_ok),
        unbounded=0.0 if zero else _unbounded(exact, np.maximum(torch_bound, jax_bound)),
        jax_error=scales.ratio(error, to_jax),
        zero=zero,
        compared=finite or finite64,
        finite=finite,
    )
    if finding.holds:
        return _with_loss_of_accuracy(finding, case, seen, size)
    row = int(bad[0])
    column = int(np.flatnonzero(~(torch_ok & jax_ok & same)[row])[0])
    values = {name: float(array[row, column]) for name, array in wide.items()}
    values["bound"] = float((case.bound64 if not finding.same_program else jax_bound)[row, column])
    return dataclasses.replace(finding, message=_explain(finding, values))


def _with_loss_of_accuracy(finding: Finding, case: Case, seen: dict[str, Array], size: float | None) -> Finding:
    """The finding, which does not hold where a side has lost half of the digits that the other keeps, in one step."""
    if case.stage not in ("forward", "loss", "gradient") or size is None:
        return finding
    by_row = case.stage == "gradient"
    lost = accuracy_loss.find(seen["torch"], seen["jax"], seen["torch64"], size, case.torch.dtype, by_row=by_row)
    if lost is None:
        return finding
    return dataclasses.replace(
        finding,
        torch_within=lost.side != "torch",
        jax_within=lost.side != "jax",
        step=int(case.steps[lost.row]),
        message=accuracy_loss.told(lost),
        inaccurate=True,
    )


def _explain(finding: Finding, at: dict[str, float]) -> str:
    """What is wrong at the first element that does not hold."""
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
