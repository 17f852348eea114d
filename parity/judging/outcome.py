"""What findings come to in one word and one line: parity, a parting, a loss of accuracy, or nothing to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from parity._words import listed, place
from parity.judging.finding import Finding, first_divergence

# "inaccurate": the same program, and one side has lost half of the digits that the other keeps.
Outcome = Literal["holds", "parts", "inaccurate", "not judged"]
# Where no number of one of these is finite, a training without parity would pass as well.
_STAGES_NEEDED = ("forward", "loss", "gradient", "update")
_PLAIN_NAMES = {"forward": "prediction"}
_LISTED_FINDINGS = 4


def of(findings: Sequence[Finding]) -> Outcome:
    """Return the outcome in a word."""
    first = first_divergence(findings)
    if first is not None:
        return "inaccurate" if first.inaccurate else "parts"
    return "not judged" if _without_numbers(findings) else "holds"


def headline(findings: Sequence[Finding]) -> str:
    """Return the outcome in one line."""
    first = first_divergence(findings)
    if first is None:
        if missing := _without_numbers(findings):
            return f"Not judged: there is no finite {listed(missing, 'or')} to compare."
        return "Parity holds: the same training in PyTorch and in JAX."
    where = place(first.stage, first.tensor)
    if first.inaccurate:
        side = "PyTorch" if first.off == "torch" else "JAX"
        return f"{side} loses accuracy at step {first.step:,}: {where}."
    return f"The two sides part at step {first.step:,}: {where}."


def not_compared(findings: Sequence[Finding]) -> list[str]:
    """Say of what nothing was compared, because both sides have inf or NaN only; nothing where there is no such."""
    if missing := _without_numbers(findings):
        return [
            f"Both sides have only inf or NaN in every {listed(missing)}. Nothing was compared there, so any port "
            "would pass."
        ]
    names = list_places([finding for finding in findings if not finding.compared])
    return [f"Not compared, because both sides have only inf or NaN: {names}."] if names else []


def list_places(findings: Sequence[Finding]) -> str:
    """Name the first few findings, and count the rest; empty where there is none."""
    names = [place(finding.stage, finding.tensor) for finding in findings]
    more = len(names) - _LISTED_FINDINGS
    return "; ".join([*names[:_LISTED_FINDINGS], *([f"{more:,} more"] if more > 0 else [])])


def _without_numbers(findings: Sequence[Finding]) -> list[str]:
    """Return the stages that parity rests on and that have nothing finite to compare."""
    stages = {finding.stage: False for finding in findings if finding.stage in _STAGES_NEEDED}
    for finding in findings:
        if finding.stage in stages and finding.compared:
            stages[finding.stage] = True
    return [_PLAIN_NAMES.get(stage, stage) for stage, compared in stages.items() if not compared]
