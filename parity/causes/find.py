"""``find``: all hypotheses, in the order of the stages that they explain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from parity.bounds.derive import Bounds
from parity.causes.batch_order import explain_batch_order
from parity.causes.evidence import Evidence
from parity.causes.initial_weights import explain_initial_weights
from parity.causes.loss import explain_loss
from parity.causes.model.cancellation import explain_cancellation
from parity.causes.model.explain import explain_model
from parity.causes.model.product_precision import explain_product_precision
from parity.causes.non_finite import explain_non_finite
from parity.causes.optimizer.explain import explain_optimizer
from parity.causes.running_statistics import explain_running_statistics
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.replay.replay import Replay
from parity.replay.session import Session

_logger = logging.getLogger(__name__)
_Hypothesis = Callable[[Evidence], list[Cause]]
# Groups of hypotheses about the same thing: the first that is confirmed stands for its group.
_GROUPS: tuple[tuple[_Hypothesis, ...], ...] = (
    (explain_initial_weights,),
    (explain_batch_order,),
    (explain_non_finite, explain_loss, explain_model),
    (explain_cancellation,),
    (explain_running_statistics,),
    (explain_optimizer,),
    (explain_product_precision,),
)


def find(session: Session, replay: Replay, bounds: Bounds, findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Return the causes of a divergence that replaying with them confirms, the earliest first.

    Args:
        session, replay, bounds, findings: what was judged.

    Returns:
        No more than what is confirmed; none where everything holds and no product looks coarse. Causes that this
        recording cannot tell apart are marked as alternatives of one another.
    """
    evidence = Evidence.of(session, replay, bounds, findings)
    causes: list[Cause] = []
    for group in _GROUPS:
        for hypothesis in group:
            found = hypothesis(evidence)
            _logger.debug("%s: %s.", hypothesis.__name__, ", ".join(cause.name for cause in found) or "nothing")
            causes += [cause for cause in found if cause.name not in {known.name for known in causes}]
            if found:
                break
    return tuple(causes)
