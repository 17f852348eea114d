"""The Judgement: all that was found of one training and its port, as data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from parity.bounds.derive import Bounds
from parity.judging import divergence, outcome
from parity.judging.cause import Cause
from parity.judging.finding import Finding, first_divergence
from parity.judging.outcome import Outcome
from parity.judging.platforms import PlatformJudgement
from parity.recording.recording import Recording
from parity.replay.replay import Replay


@dataclasses.dataclass(frozen=True)
class Timing:
    """Medians of interleaved repeats, in seconds.

    Attributes:
        steps: length of the training.
        repeats: how often each side was run.
        torch_seconds: the program's own loop, Python and all, without recording.
        jax_seconds: the compiled training, losses kept.
        ratio: PyTorch's time over JAX's, the median over the repeats.
        ratio_low, ratio_high: 95 % bootstrap interval of that median.
        compile_seconds: what compiling the JAX side took, once.
    """

    steps: int
    repeats: int
    torch_seconds: float
    jax_seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    compile_seconds: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Judgement:
    """Whether a PyTorch training and its JAX port are the same training, and where they part.

    Its attributes are those of :class:`parity.Verdict`, which adds what people call.
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
    causes: tuple[Cause, ...] = ()
    warnings: tuple[str, ...] = ()
    matrix: PlatformJudgement | None = None
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether parity is shown: everything holds, and there were numbers to compare."""
        return self.outcome == "holds"

    @property
    def outcome(self) -> Outcome:
        """``"holds"``; ``"parts"``; ``"inaccurate"`` where a side loses accuracy; ``"not judged"`` where no number of
        a stage is finite.
        """
        return outcome.of(self.findings)

    @property
    def first_divergence(self) -> Finding | None:
        """The finding at the earliest step, and there the earliest stage, that does not hold."""
        return first_divergence(self.findings)

    @property
    def jax_file(self) -> str:
        """What the JAX side's source is called beside a report."""
        return f"{self.name}_jax.py" if self.jax_code else ""

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return outcome.headline(self.findings)

    @functools.cached_property
    def not_finite_from(self) -> Mapping[str, int]:
        """The first step at which a side has inf or NaN, by the side's name; sides that stay finite are left out."""
        return divergence.first_steps(self.recording, self.replay)

    @property
    def recording_file(self) -> str:
        """What the recording is called beside a report."""
        return recording_file(self.name)


def recording_file(name: str) -> str:
    """Name the file of a recording that lies beside a report."""
    return f"{name}.recording.npz"
