"""A recording's locked steps replayed on every JAX platform present, at each precision of its products."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax

from parity._errors import PortError
from parity.bounds.derive import Bounds
from parity.judging import judge
from parity.judging.finding import Finding
from parity.replay import replay
from parity.replay.replay import Replay
from parity.replay.session import Session

_LOG = logging.getLogger(__name__)

# The precisions asked for where none are named, by the names of jax.default_matmul_precision, from the highest down:
# float32; TF32 on a GPU, three bfloat16 passes on a TPU; what the platform takes by itself; bfloat16 products
# with float32 sums. A CPU has one way to multiply and gives the same at each.
PRECISIONS = ("highest", "high", "default", "BF16_BF16_F32")
HIGHEST = ("highest", "float32")
_PLATFORMS = ("cpu", "gpu", "tpu")
# The stages that products go into.
_STAGES = ("forward", "loss", "gradient", "update")


@dataclasses.dataclass(frozen=True)
class Stage:
    """How one stage of the locked replay fares on one platform at one precision.

    Attributes:
        stage: its name.
        holds: whether every value is within its rounding bound of the float64 one, and any is finite.
        tensor: the one that uses the most of its bound.
        bound_used: the largest share of its bound that an error uses; ``None`` where no number is finite on both sides,
            so that nothing was compared.
        relative_error: the largest error against float64, relative to its tensor's largest element over all steps;
            ``None`` where every tensor is zero to rounding.
    """

    stage: str
    holds: bool
    tensor: str
    bound_used: float | None
    relative_error: float | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One platform at one precision; ``failure`` says why it could not run there, and is empty where it ran."""

    platform: str
    device: str
    precision: str
    stages: tuple[Stage, ...]
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether it ran and every stage holds."""
        return not self.failure and all(stage.holds for stage in self.stages)


@dataclasses.dataclass(frozen=True, repr=False)
class PlatformJudgement:
    """What holds where: a cell for each platform and precision."""

    cells: tuple[Cell, ...]

    @property
    def ok(self) -> bool:
        """Whether it holds at the highest precision on every platform. Lower ones are asked for to be looked at."""
        return all(cell.holds for cell in self.cells if cell.precision in HIGHEST)

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as plain values, as ``report.json`` holds it."""
        cells = [{**dataclasses.asdict(cell), "stages": [*map(dataclasses.asdict, cell.stages)]} for cell in self.cells]
        told = [{**plain, "holds": cell.holds} for plain, cell in zip(cells, self.cells, strict=True)]
        return {"holds": self.ok, "cells": told}


def platforms() -> list[jax.Device]:
    """Return the first device of every platform that JAX finds here."""
    found = []
    for name in _PLATFORMS:
        try:
            found.append(jax.devices(name)[0])
        except RuntimeError as error:  # what JAX says of a platform that is not there
            _LOG.debug("no platform %s: %s", name, error)
    return found


def run(
    session: Session,
    replayed: Replay,
    bounds: Bounds,
    precisions: Sequence[str] = PRECISIONS,
    progress: Callable[[str], None] | None = None,
) -> PlatformJudgement:
    """Replay a session on each platform and at each precision.

    Args:
        session: what is replayed.
        replayed, bounds: the replay that the verdict was made from, and its bounds: both hold wherever it runs.
        precisions: names that ``jax.default_matmul_precision`` takes.
        progress: called with a line after each cell.
    """
    _check(precisions)
    cells = []
    for device in platforms():
        for precision in precisions:
            cells.append(_cell(session, replayed, bounds, device, precision))
            if progress is not None:
                progress(f"replayed every step on {device.platform} at precision {precision}")
    return PlatformJudgement(tuple(cells))


def _check(precisions: Sequence[str]) -> None:
    for precision in precisions:
        try:
            with jax.default_matmul_precision(precision):
                pass
        except Exception as error:
            message = f"expected names that jax.default_matmul_precision takes, such as 'high', got {precision!r}"
            raise PortError(message) from error


def _cell(session: Session, replayed: Replay, bounds: Bounds, device: jax.Device, precision: str) -> Cell:
    where = (device.platform, device.device_kind, precision)
    try:
        locked = replay.locked_run(session, device=device, precision=precision)
    except PortError as error:  # a precision that this platform has not, or more memory than it has
        return Cell(*where, (), str(error.__cause__ or error).strip().partition("\n")[0])
    findings = judge.judge(session.recording, dataclasses.replace(replayed, locked=locked), bounds)
    return Cell(*where, tuple(_stage(stage, findings) for stage in _STAGES))


def _stage(stage: str, findings: Sequence[Finding]) -> Stage:
    own = [finding for finding in findings if finding.stage == stage]
    worst = max(own, key=lambda finding: (not finding.jax_within, finding.jax_used))
    error = max((finding.jax_error for finding in own if finding.jax_error is not None), default=None)
    if not any(finding.compared for finding in own):
        return Stage(stage, False, worst.tensor, None, None)
    return Stage(stage, all(finding.jax_within for finding in own), worst.tensor, worst.jax_used, error)
