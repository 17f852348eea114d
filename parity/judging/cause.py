"""The Cause: an explanation that was tested, as data."""

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
