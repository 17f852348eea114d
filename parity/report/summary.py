"""A judgement in words: the sentences of every view, and what a failing test says."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from parity._words import sentence
from parity.judging import divergence, optimizer_conventions, outcome
from parity.judging.cause import Cause
from parity.judging.comparisons import LOCKED_FIELDS
from parity.judging.finding import STAGES, Finding
from parity.judging.judgement import Judgement
from parity.report import printed_lines
from parity.report.render import numbers

_FREE_STAGES = ("trajectory", "final weights")
_LOCKED_STAGES = tuple(stage for stage in STAGES if stage not in _FREE_STAGES)
# Tensors that a sentence names.
_NAMED_TENSORS = 4
# Judging that takes more seconds than this, and so many times the training, is said to.
_SLOW_JUDGING_SECONDS, _SLOW_JUDGING_RATIO = 10.0, 20.0


def printed(judgement: Judgement) -> tuple[printed_lines.LinePair, ...]:
    """Pair the program's printed lines with those of the JAX side."""
    return printed_lines.side_by_side(judgement.recording, judgement.replay)


def sentences(judgement: Judgement, lines: Sequence[printed_lines.LinePair]) -> tuple[str, ...]:
    """Put the verdict into words; ``lines`` are what :func:`printed` pairs."""
    first, notes = judgement.first_divergence, judgement.recording.notes
    if first is not None:
        failing = sum(not finding.holds for finding in judgement.findings)
        checks = numbers.count(len(judgement.findings), "check")
        told = f"{failing:,} of {checks} {'fails' if failing == 1 else 'fail'}."
        return (told, *_near_float32(judgement, first), *notes, *_not_finite(judgement))
    nothing = outcome.not_compared(judgement.findings)
    if not judgement.ok:
        return (*nothing, *notes, *_not_finite(judgement))
    well = (_in_float64(judgement), _in_own_precision(judgement), _at_the_end(judgement))
    return (
        *well,
        *nothing,
        *_open(judgement),
        *optimizer_conventions.describe(judgement.replay.conventions),
        *notes,
        *_on_print(lines),
        *_not_finite(judgement),
        *_on_cost(judgement),
    )


def explanation(judgement: Judgement, printed_pairs: Sequence[printed_lines.LinePair]) -> str:
    """Say where the sides part, why, and what to change, for a failing test; the headline where it holds.

    Causes that were found stand before the numbers.
    """
    first = judgement.first_divergence
    if first is None:
        return "\n".join([judgement.headline, *sentences(judgement, printed_pairs)])
    causes = [line for cause in judgement.causes for line in _cause_lines(cause)]
    where = f"stage: {first.stage}, tensor: {first.tensor}, step: {first.step:,}"
    warnings = [f"Warning: {warning}" for warning in judgement.warnings]
    lines = [judgement.headline, *causes, where, *([first.message] if first.message else [])]
    return "\n".join([*lines, *sentences(judgement, printed_pairs), *warnings])


def _not_finite(judgement: Judgement) -> list[str]:
    return divergence.sentences(judgement.recording, judgement.not_finite_from, judgement.ok)


def _near_float32(judgement: Judgement, first: Finding) -> list[str]:
    """Hint at a constant rounded to float32, where no cause was found and the difference is of that size."""
    if judgement.causes or first.same_program or not 0 < (first.float64_difference or 0.0) < 2.0**-22:
        return []
    return [
        "A constant that only one side rounds to float32 would explain a difference of this size. Look for one that "
        "the other side computes in float64. PyTorch's buffers are in recording.initial_buffers."
    ]


def _in_float64(judgement: Judgement) -> str:
    steps, kept = judgement.recording.steps, len(judgement.recording.kept)
    every = "every finite" if judgement.not_finite_from else "every"
    what = f"{every} prediction, loss, gradient and weight of all {steps:,} steps"
    if steps == 1:
        what = f"{every} prediction, loss, gradient and weight of the one step"
    if kept < steps:
        what = f"{every} loss, and in {every} prediction, gradient and weight of the {kept:,} of {steps:,} steps kept"
    # Where rounding could lead a training on its own anywhere, only the single steps prove something.
    is_open = judgement.bounds.open_from64 is not None
    step, alone = (_worst64(judgement.findings, stages) for stages in (_LOCKED_STAGES, _FREE_STAGES))
    within, apart = max(step, alone), ""
    if is_open:
        what, within = f"{what}, when each step starts from the recorded state", step
        apart = f" Trained on their own, they stay {_within(alone) or 'equal'}."
    size = " The largest difference is {} of its tensor's largest element, and rounding explains it."
    largest = size.format(numbers.scientific(within, 2)) if within else " They are exactly equal."
    return f"In float64, the two sides agree in {what}.{largest}{apart}{_zero(judgement)}"


def _zero(judgement: Judgement) -> str:
    """Name the tensors of which nothing is left but rounding."""
    zero = outcome.list_places([finding for finding in judgement.findings if finding.zero])
    return f" Zero to rounding on both sides, so nothing is relative to it: {zero}." if zero else ""


def _in_own_precision(judgement: Judgement) -> str:
    # What exceeds all of a tensor's numbers is no bound of which something is used.
    bounded = [finding for finding in judgement.findings if finding.finite and finding.unbounded < 1]
    if not bounded:
        return f"In {judgement.recording.dtype} alone, nothing can be shown.{_without_bound(judgement)}"
    torch, own = (max(getattr(finding, f"{side}_used") for finding in bounded) for side in ("torch", "jax"))
    told = (
        f"In {judgement.recording.dtype}, each side's errors stay within their rounding bounds: PyTorch's reach "
        f"{numbers.percent(torch)} of a bound, JAX's {numbers.percent(own)}."
    )
    return told + _without_bound(judgement)


def _without_bound(judgement: Judgement) -> str:
    """Say where the worst case says nothing, and what was checked there."""
    locked = [finding for finding in judgement.findings if finding.stage in LOCKED_FIELDS]
    without = [finding for finding in locked if finding.unbounded > 0]
    told = ""
    if without:
        checks = numbers.count(len(locked), "check")
        whole = "all" if all(finding.unbounded == 1 for finding in without) else "some or all"
        told = (
            f" In {len(without):,} of {checks} of single steps, {judgement.recording.dtype} rounding could exceed "
            f"{whole} of the values themselves, so no bound applies. Those values are checked in float64 alone."
        )
    if set(judgement.bounds.sampled) - {"trajectory"}:
        told += (
            " In places, the worst-case bound of float64 is too wide to be useful. There the two sides agree within "
            "what random rounding errors in every operation explain."
        )
    return told


def _open(judgement: Judgement) -> list[str]:
    """Say from which step on a free training proves nothing, because rounding could lead it anywhere."""
    start = judgement.bounds.open_from
    if start is None:
        return []
    start64, own = judgement.bounds.open_from64, judgement.recording.dtype
    wide = "at no step" if start64 is None else f"from step {start64:,} on"
    told = (
        f"From step {start:,} on, rounding alone could move the loss of a free {own} training by more than its size. "
        f"In float64, it could {wide}. The later steps are proven one by one, each from the recorded state."
    )
    if "trajectory" in judgement.bounds.sampled:
        told += " A second float64 training, with weights and gradients a little off, shows how far rounding can go."
    return [told]


def _on_cost(judgement: Judgement) -> list[str]:
    """Say how long judging took, and for what, where it took long."""
    training = judgement.costs.get("training", 0.0)
    replayed, bounds = judgement.costs.get("replay", 0.0), judgement.costs.get("bounds", 0.0)
    if not training or replayed + bounds < max(_SLOW_JUDGING_SECONDS, _SLOW_JUDGING_RATIO * training):
        return []
    times = numbers.scientific((replayed + bounds) / training, 2)
    return [
        f"Judging took {times} times as long as the training ({numbers.duration(training)}): "
        f"{numbers.duration(replayed)} for the replays, {numbers.duration(bounds)} for the rounding bounds, "
        "compiling included."
    ]


def _at_the_end(judgement: Judgement) -> str:
    last = {finding.tensor: finding for finding in judgement.findings if finding.stage == "final weights"}
    worst = sorted(last, key=lambda name: -(last[name].ulps or 0.0))[:_NAMED_TENSORS]
    apart = ", ".join(f"{name} {_ulps(last[name])}" for name in last if name in worst)
    told = "this far apart" if len(last) <= _NAMED_TENSORS else f"this far apart, at most, in {len(last):,} tensors"
    steps = numbers.count(judgement.recording.steps, "step")
    return f"Trained on their own for {steps}, the two sides end {told}: {apart}."


def _on_print(printed: Sequence[printed_lines.LinePair]) -> list[str]:
    """Say which printed lines differ though all is well, and which were not compared."""
    told = []
    differ, unknown = (sum(line.same is state for line in printed) for state in (False, None))
    if differ:
        told.append(
            f"{_lines(differ, len(printed), 'differs', 'differ')} in the last digits. Rounding leaves these "
            "digits uncertain: each side is within its bound."
        )
    if unknown:
        told.append(
            f"{_lines(unknown, len(printed), 'was', 'were')} not compared: parity could not tell where a number there "
            "came from."
        )
    return told


def _worst64(findings: Sequence[Finding], stages: Collection[str]) -> float:
    """Return the largest relative difference in float64 of what has a size to be relative to."""
    apart = (finding.float64_difference for finding in findings if finding.stage in stages)
    return max((value for value in apart if value is not None), default=0.0)


def _within(distance: float) -> str:
    return f"within {numbers.scientific(distance, 2)}" if distance else ""


def _ulps(finding: Finding) -> str:
    if not finding.finite:
        return "not finite"
    return "zero to rounding" if finding.ulps is None else f"{numbers.ulps(finding.ulps)} ULP"


def _lines(some: int, of: int, one: str, many: str) -> str:
    """Begin a sentence about some of the printed lines."""
    if of == 1:
        return f"The printed line {one}"
    return f"{some:,} of {numbers.count(of, 'printed line')} {one if some == 1 else many}"


def _cause_lines(cause: Cause) -> list[str]:
    return [f"Cause: {cause.name}. {sentence(cause.sentence)}", *([f"Fix: {cause.fix}"] if cause.fix else [])]
