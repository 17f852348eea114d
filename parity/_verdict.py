"""The Verdict: a judgement for people to call, which prints, saves and raises."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import parity.report
from parity._errors import DivergenceError, ParityError
from parity.judging.judgement import Judgement, recording_file
from parity.report import document as _document
from parity.report import printed_lines, summary


class Verdict(Judgement):
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

    @functools.cached_property
    def printed(self) -> tuple[printed_lines.LinePair, ...]:
        """The program's printed lines beside those of the JAX side."""
        return summary.printed(self)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words."""
        return summary.sentences(self, self.printed)

    @property
    def explanation(self) -> str:
        """Where the sides part, why, and what to change: a few lines, for a failing test. The headline where it holds.

        Causes that were found stand before the numbers.
        """
        return summary.explanation(self, self.printed)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values, as ``report.json`` holds each program."""
        return _document.program(self)

    def to_markdown(self) -> str:
        """Return the verdict as compact Markdown, such as for a comment on a pull request."""
        from parity.report.render import markdown

        return markdown.comment(self.to_dict())

    def files(self) -> Mapping[str, bytes]:
        """Return what goes beside a report so that the JAX side can be run: its code and the recording."""
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
        """Return the same verdict with other file names."""
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
