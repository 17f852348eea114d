"""The Cause: an explanation that was tested."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cause:
    """An explanation of a divergence, found by replaying with it.

    Attributes:
        name: a short term that stays the same from version to version, such as ``"half loss"``.
        sentence: what was tried, and what it showed.
        fix: what to write instead, in one line.
        stage: the first stage that it explains.
        tensor: the tensor there.
        step: the step at which it first shows.
        agreement: largest difference of the two float64 sides with the fault undone, or put into both, relative to the
            tensor's largest element. For coarse products, the share of the error that is left unexplained.
        alternatives: names of other causes that explain this recording as well; then it is one or the other.
    """

    name: str
    sentence: str
    fix: str
    stage: str
    tensor: str
    step: int
    agreement: float
    alternatives: tuple[str, ...] = ()


def either(causes: list[Cause]) -> list[Cause]:
    """Causes that one recording cannot tell apart, each marked with the others."""
    by_name = {cause.name: cause for cause in reversed(causes)}
    if len(by_name) < 2:
        return list(by_name.values())
    marked = []
    for cause in reversed(by_name.values()):
        others = tuple(name for name in reversed(by_name) if name != cause.name)
        told = f"Either this or {' or '.join(others)}; this recording cannot tell them apart: {cause.sentence}"
        marked.append(dataclasses.replace(cause, sentence=told, alternatives=others))
    return marked


def within(agreement: float) -> str:
    """How near two sides are, as the end of a sentence.

    >>> within(0.0), within(1.6e-16)
    ('exactly', 'within 2e-16')
    """
    return f"within {agreement:.0e}" if agreement else "exactly"
