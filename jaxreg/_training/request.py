"""What was asked of ``fit``, checked and in one place."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxreg import _traced
from jaxreg._errors import ArgumentError
from jaxreg._memory import check_kept
from jaxreg._nn.linear import Linear
from jaxreg._optim import optax_step
from jaxreg._plans.batches import Batches
from jaxreg._plans.stepwise import Data
from jaxreg._statistics.sufficient import SufficientStatistics
from jaxreg._traced import is_tracer
from jaxreg._validation import is_array


@dataclasses.dataclass(eq=False)
class Request:
    """One training.

    Attributes:
        model: the module.
        data: inputs, targets, weights; ``None`` where ``statistics`` stand for them.
        batches: of an epoch; ``None`` for all rows in every step.
        at: the steps whose losses and records are kept; ``None`` for all.
        lowered: whether products are to be made in less than full float32.
    """

    model: Any
    data: Data | None
    statistics: SufficientStatistics | None
    optimizer: Any
    loss: Callable[..., Any]
    epochs: int
    batches: Batches | None
    record: frozenset[str]
    at: np.ndarray[Any, Any] | None
    lowered: bool

    @functools.cached_property
    def is_traced(self) -> bool:
        """Whether it is part of a larger program that JAX traces."""
        if _traced.none_is_going_on():
            return False
        root = None if self.statistics is None else self.statistics.root
        return _traced.reaches(self.data, root, self.split[1:], self.optimizer, self.loss)

    @property
    def draws(self) -> bool:
        """Whether the optimizer draws random numbers."""
        leaves, structure = jax.tree.flatten(self.split[1])
        return optax_step.draws(self.optimizer, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    @functools.cached_property
    def split(self) -> tuple[Any, Any, Any]:
        """The model's graph, its parameters, and the rest of its state. It takes longer than many a training."""
        return nnx.split(self.model, nnx.Param, ...)

    @functools.cached_property
    def layer(self) -> tuple[Any, Any] | None:
        """Kernel and bias of a model that is one linear layer."""
        if type(self.model) not in (Linear, nnx.Linear):
            return None
        return _value(self.model.kernel), _value(self.model.bias) if self.model.use_bias else None

    @functools.cached_property
    def dtype(self) -> Any:
        """Of the parameters."""
        if self.layer is not None and self.layer[1] is None:
            return self.layer[0].dtype
        if self.layer is not None and self.layer[0].dtype == self.layer[1].dtype:
            return self.layer[0].dtype
        return np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(self.layer or self.split[1])))

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of inputs and targets."""
        if self.statistics is not None:
            given = self.statistics
            return (given.rows, given.in_features), (given.rows, given.out_features)
        assert self.data is not None
        return self.data.inputs.shape, self.data.targets.shape

    @property
    def weighs_rows(self) -> bool:
        """Whether the weights, if there are any, are one for each row."""
        weights = None if self.data is None else self.data.weights
        return weights is None or weights.shape == (self.rows,)

    @property
    def fits(self) -> bool:
        """Whether inputs and targets are what a linear layer takes and gives, row by row."""
        (_, *features), (_, *outputs) = self.shapes
        return self.weighs_rows and features == [self.model.in_features] and outputs == [self.model.out_features]

    @property
    def rows(self) -> int:
        """Of the data."""
        return self.shapes[0][0]

    @functools.cached_property
    def weight(self) -> float | None:
        """Sum of the rows' weights."""
        if self.statistics is not None:
            return self.statistics.weight
        weights = None if self.data is None else self.data.weights
        if weights is None:
            return None
        if isinstance(weights, np.ndarray):
            return float(np.sum(weights, dtype=np.float64))
        with jax.enable_x64(True):
            return float(weights.sum(dtype=np.float64))

    @property
    def columns(self) -> int:
        """Coefficients of one output."""
        return math.prod(self.shapes[0][1:]) + 1

    @property
    def outputs(self) -> int:
        """Columns of the targets."""
        return math.prod(self.shapes[1][1:])

    def check_weights(self) -> None:
        """Refuse weights that are nothing in the dtype of the parameters: XLA takes so small numbers for 0.

        Raises:
            ArgumentError: the largest of them is so small.
        """
        weights = None if self.data is None else self.data.weights
        if weights is None or is_tracer(weights):
            return
        most = float(np.max(np.asarray(weights), initial=0))
        least = float(jnp.finfo(self.dtype).tiny)  # type: ignore[no-untyped-call]
        if 0 < most < least:
            raise ArgumentError(
                f"weights are all below {least:.2g}, the smallest number that {self.dtype} holds in full, the largest "
                f"is {most:.2g}; multiply them by a constant: the weighted mean stays as it is"
            )

    def check_room(self, plan: str, steps: int, trainings: int = 1) -> None:
        """Refuse to keep more of the steps than there is room for.

        Raises:
            ArgumentError: there is not; the message says how much it would be, and what to do.
        """
        kept = len(self.at) if self.at is not None and plan == "spectral" else steps
        each = sum(leaf.size for leaf in jax.tree.leaves(self.split[1])) if self.record else 0
        numbers = 1 + len(self.record) * each
        check_kept(trainings * kept * numbers * self.dtype.itemsize, kept, trainings)


def _value(variable: Any) -> Any:
    """What an NNX variable holds; straight out of it where that is a plain array, for the sake of small trainings."""
    raw = variable.get_raw_value()
    return raw if is_array(raw) else variable[...]
