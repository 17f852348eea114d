"""``find``: all hypotheses, in the order of the stages that they explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parity._bounds import Bounds
from parity._judge import Finding
from parity._ports import Port
from parity._recording import Recording
from parity._replay import Replay
from parity.causes._case import Case
from parity.causes._cause import Cause
from parity.causes._loss import losses
from parity.causes._optimizer import optimizers

_HYPOTHESES: tuple[Callable[[Case], list[Cause]], ...] = (losses, optimizers)


def find(
    recording: Recording, port: Port, replay: Replay, bounds: Bounds, findings: Sequence[Finding]
) -> tuple[Cause, ...]:
    """The causes of a divergence that replaying with them confirms, the earliest first.

    Args:
        recording, port, replay, bounds, findings: what was judged.

    Returns:
        No more than what is confirmed; none where everything holds and no product looks coarse. Causes that this
        recording cannot tell apart are marked as alternatives of one another.
    """
    case = Case.of(recording, port, replay, bounds, findings)
    return tuple(cause for hypothesis in _HYPOTHESES for cause in hypothesis(case))
