"""What was asked of ``fit``, checked and in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxreg._batches import Batches
from jaxreg._plans.stepwise import Data
from jaxreg._statistics import SufficientStatistics


@dataclasses.dataclass(frozen=True)
class Request:
    """One training.

    Attributes:
        model: the module, and its split into ``graph``, ``params`` and ``rest``.
        data: inputs, targets, weights, in the dtype of the parameters; ``None`` where ``statistics`` stand for them.
        batches: of an epoch; ``None`` for all rows in every step.
        at: the steps whose losses and records are kept; ``None`` for all.
        lowered: whether products are to be made in less than full float32.
    """

    model: Any
    graph: Any
    params: Any
    rest: Any
    data: Data | None
    statistics: SufficientStatistics | None
    optimizer: Any
    loss: Callable[..., Any]
    epochs: int
    batches: Batches | None
    record: frozenset[str]
    at: np.ndarray[Any, Any] | None
    lowered: bool

    @property
    def dtype(self) -> Any:
        """Of the parameters."""
        return np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(self.params)))

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of inputs and targets."""
        if self.statistics is not None:
            given = self.statistics
            return (given.rows, given.in_features), (given.rows, given.out_features)
        assert self.data is not None
        return tuple(np.shape(self.data.inputs)), tuple(np.shape(self.data.targets))

    @property
    def fits(self) -> bool:
        """Whether inputs and targets are what a linear layer takes and gives, row by row."""
        rows = self.shapes[0][0]
        weights = None if self.data is None else self.data.weights
        of_rows = weights is None or tuple(np.shape(weights)) == (rows,)
        wanted = ((rows, self.model.in_features), (rows, self.model.out_features))
        return of_rows and self.shapes == wanted

    @property
    def rows(self) -> int:
        """Of the data."""
        return self.shapes[0][0]

    @property
    def weight(self) -> float | None:
        """Sum of the rows' weights."""
        if self.statistics is not None:
            return self.statistics.weight
        assert self.data is not None
        return None if self.data.weights is None else float(np.sum(np.asarray(self.data.weights, np.float64)))

    @property
    def columns(self) -> int:
        """Coefficients of one output."""
        return int(np.prod(self.shapes[0][1:])) + 1

    @property
    def outputs(self) -> int:
        """Columns of the targets."""
        return int(np.prod(self.shapes[1][1:]))
