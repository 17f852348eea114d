"""The Finding: what was found for one tensor at one stage, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

STAGES = (
    "initial weights",
    "data",
    "forward",
    "loss",
    "gradient",
    "model state",
    "optimizer state",
    "update",
    "trajectory",
    "final weights",
)
Off = Literal["torch", "jax", "both", "program"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found for one tensor at one stage, over all steps.

    Attributes:
        stage: one of ``STAGES``.
        tensor: which tensor of that stage.
        same_program: whether the two float64 runs agree within their own bound.
        torch_within, jax_within: whether each side's own run is within its bound of the float64 values.
        difference: largest distance of JAX's run from PyTorch's, absolute.
        ulps: the same in units in the last place of the tensor's largest element.
        float64_difference: largest distance of the float64 runs, relative to the tensor's largest element.
        float64_bound: largest distance that rounding explains there, in the same unit.
        jax_error: largest error of JAX's run against float64, in the same unit.
        zero: whether the tensor is zero to rounding: float64 cannot tell any element, on either side and at any step,
            from zero.
        torch_used, jax_used: largest share of its bound that each side's error uses.
        torch_likely, jax_likely: the same of the probabilistic bound, which honest rounding hardly ever exceeds; 0
            where there is none.
        unbounded: the share of the tensor's numbers, over all steps, that rounding in the recording's dtype alone could
            move by more than the tensor's largest: there the float64 runs are the only proof.
        step: the first step at which it does not hold.
        inaccurate: whether it fails for this alone: one side has lost half of the digits that the other keeps.
        message: what is wrong, where it does not hold.
        compared: whether any number was compared. Where both sides have inf or NaN only, nothing was. A step whose
            loss is NaN on both sides is not compared in what follows from the loss.
        finite: whether any number of the sides' own runs is finite. Where none is, and float64 alone was compared,
            ``difference``, ``torch_used`` and ``jax_used`` are 0 and say nothing.

    A tensor's largest element is the largest finite one of PyTorch's float64 run, over all steps. Nothing is relative
    to a tensor that is zero to rounding there or has no finite element: then ``ulps``, ``float64_difference``,
    ``float64_bound`` and ``jax_error`` are ``None``. Of the recording's dtype, ``ulps`` and ``jax_error`` are ``None``
    too where its bound allows zero and the error is as large as the tensor.
    """

    stage: str
    tensor: str
    same_program: bool
    torch_within: bool
    jax_within: bool
    difference: float
    ulps: float | None
    float64_difference: float | None
    float64_bound: float | None
    torch_used: float
    jax_used: float
    step: int | None
    message: str
    torch_likely: float = 0.0
    jax_likely: float = 0.0
    unbounded: float = 0.0
    jax_error: float | None = None
    zero: bool = False
    inaccurate: bool = False
    compared: bool = True
    finite: bool = True

    @property
    def holds(self) -> bool:
        """Whether both sides are the same program here, and each is as accurate as its arithmetic."""
        return self.step is None

    @property
    def off(self) -> Off | None:
        """Which side is off: the program, where it differs in float64; else the side beyond its bound."""
        if self.holds:
            return None
        if not self.same_program:
            return "program"
        if self.torch_within:
            return "jax"
        return "torch" if self.jax_within else "both"


def first_divergence(findings: Sequence[Finding]) -> Finding | None:
    """Return the failing finding at the earliest step, and there at the earliest stage."""
    failing = [finding for finding in findings if not finding.holds]
    return min(failing, key=lambda finding: (finding.step or 0, STAGES.index(finding.stage)), default=None)
