"""What a plan is: a way to execute a training, which says whether it can serve one, what that costs, and runs it.

A new plan is one file with a subclass of :class:`Plan`, and one line in :data:`jaxreg._plans.registry.PLANS`.
"""

from __future__ import annotations

import abc
from typing import ClassVar

from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Outcome

# Costs are estimates, in multiplications of float32 numbers: what else could be done in the same time.
# The upkeep of one step of a compiled loop, whatever the step does.
STEP_COST = 2000.0
# A multiplication of float64 numbers.
FLOAT64_COST = 2.0
# A singular value decomposition of a small matrix, for each number in the cube of its columns.
SVD_COST = 20.0
# One step in closed form, for each coefficient.
CLOSED_FORM_COST = 30.0
# The cross-products of batches: to load a number, to multiply it with another of its row, and to set up.
LOAD_COST, MULTIPLY_COST, SETUP_COST = 2.0, 0.1, 2e6


class Plan(abc.ABC):
    """A way to execute a training.

    Attributes:
        name: what the user calls it. Two plans may share a name where one is for batches and one is not.
        for_batches: which of the plans of one name is meant for a training in batches.
        keeps_every_step: whether losses and records of all steps are held in memory, or only of those asked for.
    """

    name: ClassVar[str]
    for_batches: ClassVar[bool] = False
    keeps_every_step: ClassVar[bool] = True

    @abc.abstractmethod
    def why_not(self, request: Request) -> str | None:
        """Return why this plan cannot serve the training; ``None`` where it can."""

    @abc.abstractmethod
    def cost(self, request: Request) -> float:
        """Return the estimated cost, in multiplications of float32 numbers; also of a training it cannot serve."""

    @abc.abstractmethod
    def run(self, request: Request) -> Outcome:
        """Train. :meth:`why_not` gave ``None`` for this request."""
