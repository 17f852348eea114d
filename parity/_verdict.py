"""The Verdict: what was found, how it reads, and how it is kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import parity.report
from parity import _document, _judge, _printed
from parity._bounds import Bounds
from parity._errors import DivergenceError
from parity._judge import Finding
from parity._recording import Recording
from parity._replay import Replay
from parity._timing import Timing


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

    @property
    def ok(self) -> bool:
        """Whether everything holds: the same program, and both sides within their bounds."""
        return all(finding.holds for finding in self.findings)

    @property
    def first_divergence(self) -> Finding | None:
        """The finding at the earliest step, and there the earliest stage, that does not hold."""
        return _judge.first_divergence(self.findings)

    @property
    def jax_file(self) -> str:
        """What the JAX side's source is called beside a report."""
        return f"{self.name}_jax.py" if self.jax_code else ""

    @functools.cached_property
    def printed(self) -> tuple[_printed.Line, ...]:
        """The program's printed lines beside those of the JAX side."""
        return _printed.side_by_side(self.recording, self.replay)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        first = self.first_divergence
        if first is None:
            return "Parity holds: the same training in PyTorch and in JAX."
        return f"The sides part at step {first.step:,}: {first.stage}, {first.tensor}."

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        first = self.first_divergence
        if first is not None:
            failing = sum(not finding.holds for finding in self.findings)
            return (f"{failing} of {len(self.findings)} checks do not hold.", *self._diverging())
        return (self._in_float64(), self._in_own_precision(), self._at_the_end(), *self._on_print(), *self._diverging())

    def _in_float64(self) -> str:
        worst = max(finding.float64_difference for finding in self.findings)
        return (
            f"In float64, every prediction, loss, gradient and weight of all {self.recording.steps:,} steps agrees "
            f"within {worst:.1e} of its tensor's largest element, and within what rounding explains."
        )

    def _in_own_precision(self) -> str:
        torch = max(finding.torch_used for finding in self.findings)
        own = max(finding.jax_used for finding in self.findings)
        return (
            f"In {self.recording.dtype}, each side stays within the bound on its own rounding: PyTorch uses at most "
            f"{torch:.0%} of it, JAX {own:.0%}."
        )

    def _at_the_end(self) -> str:
        last = {finding.tensor: finding.ulps for finding in self.findings if finding.stage == "final weights"}
        apart = ", ".join(f"{name} {distance:,.0f} ULP" for name, distance in last.items())
        return f"After {self.recording.steps:,} steps on their own, the two are this far apart: {apart}."

    def _on_print(self) -> list[str]:
        """What is to be said of printed lines that differ though all is well, and of those that were not compared."""
        told = []
        differ, unknown = (sum(line.same is state for line in self.printed) for state in (False, None))
        if differ:
            told.append(
                f"{differ} of {len(self.printed):,} printed lines differ in their last digits: they print more digits "
                "than rounding leaves certain, as the bounds tell."
            )
        if unknown:
            told.append(
                f"{unknown:,} of {len(self.printed):,} printed lines show numbers that are no loss, weight or "
                "prediction; these were not compared."
            )
        return told

    def _diverging(self) -> list[str]:
        """A training that leaves the finite numbers is no fault of the port; it is said which side does, and when."""
        sides = {"PyTorch": self.recording.observed, "JAX": self.replay.free}
        first = {}
        for side, run in sides.items():
            bad = ~np.isfinite(run.losses)
            for values in run.weights.values():
                bad = bad | ~np.isfinite(values).reshape(len(bad), -1).all(1)
            if bad.any():
                first[side] = int(bad.argmax())
        if not first:
            return []
        told = " and ".join(f"{side}'s from step {step:,}" for side, step in first.items())
        both = "Both trainings diverge, which is parity too" if len(first) == 2 else "One training diverges"
        return [f"{both}: inf or NaN is in {told} on. A smaller learning rate would keep it finite."]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values, as ``report.json`` holds each program."""
        return _document.program(self)

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
            DivergenceError: with the headline and the explanation.
        """
        if not self.ok:
            first = self.first_divergence
            raise DivergenceError("\n".join([self.headline, first.message if first else "", *self.sentences]))

    def __repr__(self) -> str:
        from parity.report import text

        return text.table(self.to_dict())

    def _repr_html_(self) -> str:
        from parity.report import html

        return html.fragment(self.to_dict())


def recording_file(name: str) -> str:
    """What a recording is called beside a report."""
    return f"{name}.recording.npz"
