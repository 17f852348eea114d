"""Scoring the judge: what it says of each fault against what it must say, and of honest trainings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import hypothesis
import jax

import parity
from parity import Recording
from tests.judge_score import jax_side, torch_side
from tests.judge_score.faults import Fault
from tests.judge_score.honest import honest
from tests.judge_score.trainings import Training

CAUSES_RIGHT = 0.9


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the judge said of one fault.

    Attributes:
        fault: the fault.
        first: stage and step at which it says the two sides part; ``None``: it says they do not.
        causes: the names of the causes it states.
        error: what it raised in place of a verdict.
    """

    fault: Fault
    first: tuple[str, int] | None = None
    causes: tuple[str, ...] = ()
    error: str = ""

    @property
    def caught(self) -> bool:
        """Whether parity is denied."""
        return self.first is not None

    @property
    def located(self) -> bool:
        """Whether stage and step are right."""
        return self.first == (self.fault.stage, self.fault.step)

    @property
    def named(self) -> bool:
        """Whether the cause is among those stated."""
        return self.fault.cause in self.causes

    @property
    def wrong(self) -> tuple[str, ...]:
        """Causes that are stated and are none."""
        return tuple(name for name in self.causes if name != self.fault.cause)

    def __str__(self) -> str:
        """What was expected and what came, for the list of misses."""
        fault = self.fault
        said = self.error or ("it says that parity holds" if self.first is None else f"{self.first[0]} {self.first[1]}")
        causes = " and ".join(map(repr, self.causes)) or "no cause"
        return f"{fault.name}: expected {fault.stage} {fault.step}, {fault.cause!r}; got {said}, {causes}"


@dataclasses.dataclass(frozen=True)
class Alarm:
    """An honest training that the judge did not pass."""

    training: Training
    said: str

    def __str__(self) -> str:
        return f"{self.training}: {self.said}"


@functools.lru_cache(maxsize=128)
def recorded(training: Training) -> Recording:
    """The recording of a training, made once."""
    return parity.record(torch_side.program(training))


def judge_fault(fault: Fault) -> Judged:
    """One fault put into its port and judged."""
    try:
        recording = recorded(fault.training)
        # Faults, and the libraries they are written in, mix dtypes and ranks as people do.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            verdict = parity.check(recording, fault.port)
    except parity.ParityError as error:
        return Judged(fault, error=f"{type(error).__name__}: {error}")
    first = verdict.first_divergence
    place = None if first is None else (first.stage, first.step or 0)
    return Judged(fault, place, tuple(cause.name for cause in verdict.causes))


def judge_honest(training: Training) -> Alarm | None:
    """An honest training judged; ``None`` where it passes."""
    try:
        recording = parity.record(torch_side.program(training))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            verdict = parity.check(recording, jax_side.port(training))
    except parity.ParityError as error:
        return Alarm(training, f"{type(error).__name__}: {error}")
    return None if verdict.ok else Alarm(training, verdict.headline)


def without_faults(faults: Iterable[Fault]) -> Iterator[Training]:
    """The trainings that faults are put into, each once: without the fault they must pass."""
    yield from dict.fromkeys(fault.training for fault in faults)


def draw_honest(count: int, seed: int, judge: Callable[[Training], None]) -> None:
    """Hand ``count`` drawn trainings to ``judge``, which must not raise."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(honest())
    def one(training: Training) -> None:
        judge(training)

    one()


def table(judged: Sequence[Judged], alarms: Sequence[Alarm], honest_count: int) -> str:
    """The figures in rows, and the misses by name."""
    total = len(judged)
    wrong = sum(len(row.wrong) for row in judged)
    rows = [
        ("faults caught", f"{sum(row.caught for row in judged)}/{total}", "all"),
        ("first stage and step right", f"{sum(row.located for row in judged)}/{total}", "all"),
        ("cause right", f"{sum(row.named for row in judged)}/{total}", f"at least {CAUSES_RIGHT:.0%}"),
        ("wrong causes stated", str(wrong), "none"),
        ("alarms on honest trainings", f"{len(alarms)}/{honest_count}", "none"),
    ]
    lines = [f"{name:<30}{figure:>12}   wanted: {wanted}" for name, figure, wanted in rows]
    misses = [row for row in judged if not row.located or not row.named or row.wrong]
    if misses:
        lines += ["", "Misses:", *(f"  {row}" for row in misses)]
    if alarms:
        lines += ["", "False alarms:", *(f"  {alarm}" for alarm in alarms)]
    return "\n".join(lines)


def passed(judged: Sequence[Judged], alarms: Sequence[Alarm]) -> bool:
    """Whether every figure is met."""
    named = sum(row.named for row in judged) >= CAUSES_RIGHT * len(judged)
    return not alarms and named and all(row.located and not row.wrong for row in judged)
