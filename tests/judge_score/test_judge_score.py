"""A sample of the judge's score: one fault of every cause, and a few honest trainings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.judge_score import score
from tests.judge_score.faults import FAULTS, Fault
from tests.judge_score.trainings import Training

# The cheapest model of each cause; `python -m tests.judge_score` puts in all of them.
_COST = {"linear": 0, "square": 0, "one": 0, "mlp_relu": 1, "mlp_gelu": 1, "mlp_tanh": 1, "mlp_one": 1}
SAMPLE = {
    fault.cause: fault for fault in sorted(FAULTS, key=lambda fault: _COST.get(fault.training.model, 2), reverse=True)
}


def test_faults_are_many_and_have_names_of_their_own() -> None:
    assert len(FAULTS) >= 80
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.training.optimizer for fault in FAULTS} == {"SGD", "Adam", "AdamW"}


def _param(fault: Fault) -> Any:
    """Deep models take a minute each to judge."""
    is_deep = _COST.get(fault.training.model, 2) > 0
    return pytest.param(fault, id=fault.name, marks=pytest.mark.thorough if is_deep else ())


@pytest.mark.cases(7)
@pytest.mark.parametrize("fault", [_param(fault) for fault in SAMPLE.values()])
def test_a_fault_is_caught_located_and_named(fault: Fault) -> None:
    judged = score.judge_fault(fault)
    assert judged.located, str(judged)
    assert judged.named, str(judged)
    assert not judged.wrong, str(judged)


@pytest.mark.thorough
def test_honest_trainings_raise_no_alarm() -> None:
    alarms = []

    def judge(training: Training) -> None:
        alarms.append(score.judge_honest(training))

    score.draw_honest(10, 0, judge)
    assert alarms
    assert [str(alarm) for alarm in alarms if alarm is not None] == []


def test_a_score_that_misses_a_figure_does_not_pass() -> None:
    fault = FAULTS[0]
    right = score.Judged(fault, (fault.stage, fault.step), (fault.cause,))
    assert score.passed([right] * 10, [])
    assert not score.passed([right, score.Judged(fault)], [])
    assert not score.passed([right, score.Judged(fault, right.first, (fault.cause, "another"))], [])
    assert not score.passed([right] * 8 + [score.Judged(fault, right.first)] * 2, [])
    assert not score.passed([right], [score.Alarm(fault.training, "said")])
    assert "1/2" in score.table([right, score.Judged(fault)], [], 0)
