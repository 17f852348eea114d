"""``find``: all hypotheses, in the order of the stages that they explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parity.bounds.derive import Bounds
from parity.causes.batch_order import feeds
from parity.causes.evidence import Case
from parity.causes.initial_weights import initials
from parity.causes.loss import losses
from parity.causes.model.cancellation import cancellations
from parity.causes.model.explain import models
from parity.causes.model.product_precision import precisions
from parity.causes.non_finite import infinities
from parity.causes.optimizer.explain import optimizers
from parity.causes.running_statistics import buffers
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.replay.replay import Replay
from parity.replay.session import Session

_Hypothesis = Callable[[Case], list[Cause]]
# Groups of hypotheses about the same thing: the first that is confirmed stands for its group.
_GROUPS: tuple[tuple[_Hypothesis, ...], ...] = (
    (initials,),
    (feeds,),
    (infinities, losses, models),
    (cancellations,),
    (buffers,),
    (optimizers,),
    (precisions,),
)


def find(session: Session, replay: Replay, bounds: Bounds, findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """The causes of a divergence that replaying with them confirms, the earliest first.

    Args:
        session, replay, bounds, findings: what was judged.

    Returns:
        No more than what is confirmed; none where everything holds and no product looks coarse. Causes that this
        recording cannot tell apart are marked as alternatives of one another.
    """
    case = Case.of(session, replay, bounds, findings)
    causes: list[Cause] = []
    for group in _GROUPS:
        for hypothesis in group:
            found = hypothesis(case)
            causes += [cause for cause in found if cause.name not in {known.name for known in causes}]
            if found:
                break
    return tuple(causes)
