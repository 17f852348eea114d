"""The Verdict: what was found, how it reads, and how it is kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import parity.report
from parity._errors import DivergenceError, ParityError
from parity._matrix import Matrix
from parity._timing import Timing
from parity.bounds.derive import Bounds
from parity.judging import divergence, judge, optimizer_conventions
from parity.judging import outcome as _outcome
from parity.judging.comparisons import LOCKED_FIELDS
from parity.judging.judge import Finding
from parity.recording.recording import Recording
from parity.replay.replay import Replay
from parity.report import document as _document
from parity.report import printed_lines
from parity.report.render import numbers

_ALONE = ("trajectory", "final weights")
_SINGLE = tuple(stage for stage in judge.STAGES if stage not in _ALONE)
# Tensors that a sentence names.
_NAMED = 4
# Judging that takes more seconds than this, and so many times the training, is said to.
_SLOW, _OFTEN = 10.0, 20.0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """Whether a PyTorch training and its JAX port are the same training, and where they part.

    It prints as a table and draws itself in a notebook.

    Attributes:
        recording, replay, bounds: what was compared, and with what.
        findings: one for each stage and tensor, in the order of the stages.
        name, title: what the program is called in files, and in words.
        jax_code: the JAX side as source, where parity wrote it.
        axes: what the data's input and target are called.
        timing: how long both trainings take, where that was measured.
        causes: what explains the divergence, each tested by replaying with it; the likeliest first. Each has a
            ``name``, a ``sentence``, a ``fix`` in a line, and where it shows: ``stage``, ``tensor``, ``step``.
        warnings: what does not break parity and should be known.
        costs: seconds that the recorded ``"training"`` took, and judging it: ``"replay"`` and ``"bounds"``.
        matrix: the same steps on other platforms and at other precisions, where that was asked for.
    """

    recording: Recording
    replay: Replay
    bounds: Bounds
    findings: tuple[Finding, ...]
    name: str
    title: str
    jax_code: str = ""
    axes: tuple[str, str] = ("input", "target")
    timing: Timing | None = None
    causes: tuple[Any, ...] = ()
    warnings: tuple[str, ...] = ()
    matrix: Matrix | None = None
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether parity is shown: everything holds, and there were numbers to compare."""
        return self.outcome == "holds"

    @property
    def outcome(self) -> _outcome.Outcome:
        """``"holds"``; ``"parts"``; ``"inaccurate"`` where a side loses accuracy; ``"not judged"`` where no number of
        a stage is finite.
        """
        return _outcome.of(self.findings)

    @property
    def first_divergence(self) -> Finding | None:
        """The finding at the earliest step, and there the earliest stage, that does not hold."""
        return judge.first_divergence(self.findings)

    @property
    def jax_file(self) -> str:
        """What the JAX side's source is called beside a report."""
        return f"{self.name}_jax.py" if self.jax_code else ""

    @functools.cached_property
    def printed(self) -> tuple[printed_lines.Line, ...]:
        """The program's printed lines beside those of the JAX side."""
        return printed_lines.side_by_side(self.recording, self.replay)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return _outcome.headline(self.findings)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        first, notes = self.first_divergence, self.recording.notes
        if first is not None:
            failing = sum(not finding.holds for finding in self.findings)
            checks = numbers.count(len(self.findings), "check")
            told = f"{failing:,} of {checks} {'does' if failing == 1 else 'do'} not hold."
            return (told, *self._near_float32(first), *notes, *self._not_finite())
        nothing = _outcome.not_compared(self.findings)
        if not self.ok:
            return (*nothing, *notes, *self._not_finite())
        well = (self._in_float64(), self._in_own_precision(), self._at_the_end())
        return (
            *well,
            *nothing,
            *self._open(),
            *optimizer_conventions.told(self.replay.conventions),
            *notes,
            *self._on_print(),
            *self._not_finite(),
            *self._on_cost(),
        )

    @property
    def explanation(self) -> str:
        """Where the sides part, why, and what to change: a few lines, for a failing test. The headline where it holds.

        Causes that were found stand before the numbers.
        """
        first = self.first_divergence
        if first is None:
            return "\n".join([self.headline, *self.sentences])
        causes = [line for cause in self.causes for line in _told(cause)]
        where = f"stage: {first.stage}, tensor: {first.tensor}, step: {first.step:,}"
        warnings = [f"Warning: {warning}" for warning in self.warnings]
        lines = [self.headline, *causes, where, *([first.message] if first.message else [])]
        return "\n".join([*lines, *self.sentences, *warnings])

    def _not_finite(self) -> list[str]:
        return divergence.sentences(self.recording, self._endless, self.ok)

    @functools.cached_property
    def _endless(self) -> Mapping[str, int]:
        return divergence.first_steps(self.recording, self.replay)

    def _near_float32(self, first: Finding) -> list[str]:
        """A hint where no cause was found: what one float32 rounding makes in float64."""
        if self.causes or first.same_program or not 0 < (first.float64_difference or 0.0) < 2.0**-22:
            return []
        return [
            "A float32 rounding of a constant would make as much: is there one that one side works out in float64 and "
            "the other keeps in float32? A buffer of PyTorch's is in recording.initial_buffers."
        ]

    def _in_float64(self) -> str:
        steps, kept = self.recording.steps, len(self.recording.kept)
        every = "every finite" if self._endless else "every"
        what = f"{every} prediction, loss, gradient and weight of all {steps:,} steps"
        if steps == 1:
            what = f"{every} prediction, loss, gradient and weight of the one step"
        if kept < steps:
            what = f"{every} loss, and {every} prediction, gradient and weight of the {kept:,} of {steps:,} steps kept,"
        # Where rounding could lead a training on its own anywhere, only the single steps prove something.
        is_open = self.bounds.open_from64 is not None
        step, alone = (_worst64(self.findings, stages) for stages in (_SINGLE, _ALONE))
        within, apart = max(step, alone), ""
        if is_open:
            what, within = what.rstrip(",") + ", each step from the recorded state,", step
            apart = f" Trained on their own, the two stay {_near(alone) or 'equal'}."
        size = "of its tensor's largest element, and within what rounding explains"
        near = f"{_near(within)} {size}" if within else "exactly"
        return f"In float64, {what} agrees {near}.{apart}{self._zero()}"

    def _zero(self) -> str:
        """The tensors of which nothing is left but rounding."""
        zero = _outcome.named([finding for finding in self.findings if finding.zero])
        return f" Zero to rounding on both sides, so that nothing is relative to it: {zero}." if zero else ""

    def _in_own_precision(self) -> str:
        # What exceeds all of a tensor's numbers is no bound of which something is used.
        bounded = [finding for finding in self.findings if finding.finite and finding.unbounded < 1]
        if not bounded:
            return f"In {self.recording.dtype} alone nothing is shown.{self._without_bound()}"
        torch, own = (max(getattr(finding, f"{side}_used") for finding in bounded) for side in ("torch", "jax"))
        told = (
            f"In {self.recording.dtype}, each side stays within the bound on its own rounding: PyTorch uses at most "
            f"{numbers.percent(torch)} of it, JAX {numbers.percent(own)}."
        )
        return told + self._without_bound()

    def _without_bound(self) -> str:
        """Where the worst case says nothing, and what does then."""
        locked = [finding for finding in self.findings if finding.stage in LOCKED_FIELDS]
        without = [finding for finding in locked if finding.unbounded > 0]
        told = ""
        if without:
            checks = numbers.count(len(locked), "check")
            whole = "all" if all(finding.unbounded == 1 for finding in without) else "some or all"
            told = (
                f" In {len(without):,} of {checks} of single steps, {self.recording.dtype}'s worst-case rounding "
                f"exceeds {whole} of the values, so that there is no bound. Those values are checked in float64 alone."
            )
        if set(self.bounds.sampled) - {"trajectory"}:
            told += (
                " Float64's worst case is too wide to be of use in places. There both sides agree within what random "
                "errors in every operation explain."
            )
        return told

    def _open(self) -> list[str]:
        """From where on a free training proves nothing, since rounding alone could lead it anywhere."""
        start = self.bounds.open_from
        if start is None:
            return []
        start64, own = self.bounds.open_from64, self.recording.dtype
        wide = "in float64 at no step" if start64 is None else f"in float64 from step {start64:,} on"
        if start64 == start:
            wide = "and in float64 too"
        told = "In a training on its own, rounding alone could move the loss by more than its size: "
        told += f"in {own} from step {start:,} on, {wide}. The later steps are proven from the recorded state"
        if "trajectory" in self.bounds.sampled:
            told += ", and by a second float64 training whose weights and gradients are a little off"
        return [f"{told}."]

    def _on_cost(self) -> list[str]:
        """Where judging takes long, how long, and for what."""
        training = self.costs.get("training", 0.0)
        replayed, bounds = self.costs.get("replay", 0.0), self.costs.get("bounds", 0.0)
        if not training or replayed + bounds < max(_SLOW, _OFTEN * training):
            return []
        times = numbers.scientific((replayed + bounds) / training, 2)
        return [
            f"Judging took {times} times as long as the training ({numbers.duration(training)}): "
            f"{numbers.duration(replayed)} for the replays, {numbers.duration(bounds)} for the rounding bounds, "
            "compiling included."
        ]

    def _at_the_end(self) -> str:
        last = {finding.tensor: finding for finding in self.findings if finding.stage == "final weights"}
        worst = sorted(last, key=lambda name: -(last[name].ulps or 0.0))[:_NAMED]
        apart = ", ".join(f"{name} {_ulps(last[name])}" for name in last if name in worst)
        told = (
            "the two are this far apart" if len(last) <= _NAMED else f"of {len(last):,} tensors the furthest apart are"
        )
        return f"After {numbers.count(self.recording.steps, 'step')} on their own, {told}: {apart}."

    def _on_print(self) -> list[str]:
        """What is to be said of printed lines that differ though all is well, and of those that were not compared."""
        told = []
        differ, unknown = (sum(line.same is state for line in self.printed) for state in (False, None))
        if differ:
            told.append(
                f"{_lines(differ, len(self.printed), 'differs', 'differ')} in the last digits. Rounding leaves these "
                "digits uncertain: each side is within its bound."
            )
        if unknown:
            told.append(
                f"{_lines(unknown, len(self.printed), 'was', 'were')} not compared: of a number there it is not known "
                "where it came from."
            )
        return told

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values, as ``report.json`` holds each program."""
        return _document.program(self)

    def to_markdown(self) -> str:
        """The verdict as compact Markdown, such as for a comment on a pull request."""
        from parity.report.render import markdown

        return markdown.comment(self.to_dict())

    def files(self) -> Mapping[str, bytes]:
        """What goes beside a report so that the JAX side can be run: its code and the recording."""
        kept = {recording_file(self.name): self.recording.to_bytes()}
        return {**kept, self.jax_file: self.jax_code.encode()} if self.jax_code else kept

    def save(self, folder: str | Path) -> list[Path]:
        """Write a report of this verdict alone.

        Args:
            folder: where to; made if it is not there.

        Returns:
            The files written.

        Raises:
            OutputError: the folder cannot be written; nothing half-written stays.
        """
        document = _document.report([self], f"parity report {self.recording.name}.py")
        return parity.report.write(document, folder, self.files())

    def renamed(self, name: str) -> Verdict:
        """The same verdict with other file names."""
        code = self.jax_code.replace(recording_file(self.name), recording_file(name))
        return dataclasses.replace(self, name=name, jax_code=code)

    def raise_for_divergence(self) -> None:
        """Raise where the sides part.

        Raises:
            DivergenceError: with the headline, the causes found and their fixes, and the first divergence.
            ParityError: nothing was judged, because no number of a stage is finite.
        """
        if not self.ok:
            raise (ParityError if self.outcome == "not judged" else DivergenceError)(self.explanation)

    def __repr__(self) -> str:
        from parity.report.render import terminal

        return terminal.table(self.to_dict())

    def _repr_html_(self) -> str:
        from parity.report.render import html

        return html.fragment(self.to_dict())


def _worst64(findings: Sequence[Finding], stages: Collection[str]) -> float:
    """The largest relative difference in float64 of what has a size to be relative to."""
    apart = (finding.float64_difference for finding in findings if finding.stage in stages)
    return max((value for value in apart if value is not None), default=0.0)


def _near(distance: float) -> str:
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


def _told(cause: Any) -> list[str]:
    return [f"Cause: {cause.name}: {cause.sentence}", *([f"Fix: {cause.fix}"] if cause.fix else [])]


def recording_file(name: str) -> str:
    """What a recording is called beside a report."""
    return f"{name}.recording.npz"
