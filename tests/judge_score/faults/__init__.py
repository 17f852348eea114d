"""All faults, each declared as data."""

from tests.judge_score.faults import adam, data, loops, losses, models, sgd, told
from tests.judge_score.faults._fault import Fault

FAULTS: tuple[Fault, ...] = (
    *losses.FAULTS,
    *models.FAULTS,
    *data.FAULTS,
    *sgd.FAULTS,
    *adam.FAULTS,
    *loops.FAULTS,
    *told.FAULTS,
)

__all__ = ["FAULTS", "Fault"]
