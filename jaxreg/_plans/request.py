"""One training as it was asked for, checked and in one place; every plan is run from it."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxreg import _traced
from jaxreg._errors import ArgumentError
from jaxreg._memory import check_kept
from jaxreg._nn.linear import Linear
from jaxreg._nn.linear_params import LayerParams
from jaxreg._nn.losses import mse_loss
from jaxreg._optim import optax_step, sgd
from jaxreg._optim.settings import Settings
from jaxreg._plans.batches import Batches
from jaxreg._plans.training_step import Data
from jaxreg._statistics.sufficient import SufficientStatistics
from jaxreg._traced import is_tracer
from jaxreg._types import AnyArray, Array, DType, GraphDef, HostArray, Loss, Optimizer, Params, RestState
from jaxreg._validation import is_array


@dataclasses.dataclass(eq=False)
class Request:
    """One training, or many that differ in settings, start or rows.

    Attributes:
        model: the module.
        source: inputs, targets and weights, or the statistics that stand for them.
        optimizer: an Optax transformation.
        loss: of predictions and targets.
        epochs: passes over the data.
        batches: of an epoch.
        record: what to keep of every step besides its loss.
        at: the steps whose losses and records are kept; ``None`` for all.
        lowered: whether products are to be made in less than full float32.
        trainings: made side by side.
        steps: of the optimizer.
        is_layer: whether the model is one linear layer.
        shapes: of inputs and targets.
        sizes: rows, coefficients of one output, and outputs.
    """

    model: nnx.Module
    source: Data | SufficientStatistics
    optimizer: Optimizer
    loss: Loss
    epochs: int
    batches: Batches
    record: frozenset[str]
    at: HostArray | None
    lowered: bool
    trainings: int = 1
    # Known at once, since every plan asks for them.
    steps: int = dataclasses.field(init=False)
    is_layer: bool = dataclasses.field(init=False)
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = dataclasses.field(init=False)
    sizes: tuple[int, int, int] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.epochs * self.batches.steps
        self.is_layer = type(self.model) in (Linear, nnx.Linear)
        given = self.source
        if isinstance(given, SufficientStatistics):
            self.shapes = (given.rows, given.in_features), (given.rows, given.out_features)
        else:
            self.shapes = given.inputs.shape, given.targets.shape
        (rows, *features), (_, *outputs) = self.shapes
        self.sizes = rows, math.prod(features) + 1, math.prod(outputs)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.sizes[0]

    @property
    def outputs(self) -> int:
        """Return the number of columns of the targets."""
        return self.sizes[2]

    @property
    def statistics(self) -> SufficientStatistics | None:
        """Return the statistics that stand for the data, if they do."""
        return self.source if isinstance(self.source, SufficientStatistics) else None

    @property
    def data(self) -> Data:
        """Return the data.

        Raises:
            TypeError: statistics stand for them; a plan that needs the rows says so in its ``why_not``.
        """
        if isinstance(self.source, SufficientStatistics):
            raise TypeError("statistics stand for the data")
        return self.source

    @property
    def row_weights(self) -> AnyArray | None:
        """Return the weights of the rows, if there are any and the rows are here."""
        return None if isinstance(self.source, SufficientStatistics) else self.source.weights

    @property
    def asked(self) -> HostArray:
        """Return the steps whose losses and records are kept."""
        return np.arange(self.steps) if self.at is None else self.at

    @functools.cached_property
    def is_traced(self) -> bool:
        """Return whether it is part of a larger program that JAX traces."""
        if _traced.none_is_going_on():
            return False
        given = self.source.root if isinstance(self.source, SufficientStatistics) else self.source
        return _traced.reaches(given, self.split[1:], self.optimizer, self.loss)

    @property
    def draws(self) -> bool:
        """Return whether the optimizer draws random numbers."""
        leaves, structure = jax.tree.flatten(self.split[1])
        return optax_step.draws(self.optimizer, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    @functools.cached_property
    def split(self) -> tuple[GraphDef, Params, RestState]:
        """Return the model's graph, its parameters, and the rest of its state. It takes longer than many a training."""
        graph, params, rest = nnx.split(self.model, nnx.Param, ...)
        return graph, params, rest

    @property
    def structure(self) -> jax.tree_util.PyTreeDef:
        """Return the tree structure of the model's parameters."""
        return jax.tree.structure(self.split[1])

    @functools.cached_property
    def layer(self) -> LayerParams:
        """Return kernel and bias of a model that is one linear layer.

        Raises:
            TypeError: it is another; a plan for one linear layer says so in its ``why_not``.
        """
        if not self.is_layer:
            raise TypeError(f"{type(self.model).__name__} is not one linear layer")
        return LayerParams(_value(self.model.kernel), _value(self.model.bias) if self.model.use_bias else None)

    @functools.cached_property
    def dtype(self) -> DType:
        """Return the dtype of the parameters."""
        if not self.is_layer:
            return np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(self.split[1])))
        kernel, bias = self.layer
        same = bias is None or kernel.dtype == bias.dtype
        return kernel.dtype if same else np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(self.layer)))

    @property
    def weighs_rows(self) -> bool:
        """Return whether the weights, if there are any, are one for each row."""
        weights = self.row_weights
        return weights is None or weights.shape == (self.rows,)

    @property
    def fits(self) -> bool:
        """Return whether inputs and targets are what a linear layer takes and gives, row by row."""
        (_, *features), (_, *outputs) = self.shapes
        return self.weighs_rows and features == [self.model.in_features] and outputs == [self.model.out_features]

    @functools.cached_property
    def weight(self) -> float | None:
        """Return the sum of the rows' weights."""
        if isinstance(self.source, SufficientStatistics):
            return self.source.weight
        weights = self.source.weights
        if weights is None:
            return None
        if isinstance(weights, np.ndarray):
            return float(np.sum(weights, dtype=np.float64))
        with jax.enable_x64(True):
            return float(weights.sum(dtype=np.float64))

    @functools.cached_property
    def constant_sgd(self) -> Settings | None:
        """Return the settings of an optimizer that is PyTorch's SGD, all of them numbers; else ``None``."""
        return sgd.constant_settings(self.optimizer)

    @functools.cached_property
    def squared_error(self) -> str | None:
        """Return the reduction of :func:`mse_loss` that the loss is, "mean" or "sum"; ``None`` where it is another."""
        loss = self.loss
        if loss is mse_loss:
            return "mean"
        if not isinstance(loss, functools.partial) or loss.func is not mse_loss or loss.args:
            return None
        reduction = loss.keywords.get("reduction", "mean")
        return reduction if set(loss.keywords) <= {"reduction"} and reduction in ("mean", "sum") else None

    @property
    def loss_scale(self) -> float:
        """Return what the sum of squared errors is multiplied with to give the loss."""
        if self.squared_error != "mean":
            return 1.0
        weight = self.rows if self.weight is None else self.weight
        return 1.0 / (weight * self.outputs)

    def data_on_device(self) -> Data:
        """Return the data on the device, in the dtype of the parameters."""
        inputs, targets, weights = self.data
        held = None if weights is None else _as_dtype(weights, self.dtype)
        return Data(_as_dtype(inputs, self.dtype), _as_dtype(targets, self.dtype), held)

    def check_weights(self) -> None:
        """Refuse weights that are nothing in the dtype of the parameters: XLA takes so small numbers for 0.

        Raises:
            ArgumentError: the largest of them is so small.
        """
        weights = self.row_weights
        if weights is None or is_tracer(weights):
            return
        largest = float(np.max(np.asarray(weights), initial=0))
        least = float(jnp.finfo(self.dtype).tiny)  # type: ignore[no-untyped-call]
        if 0 < largest < least:
            raise ArgumentError(
                f"weights are all below {least:.2g}, the smallest number that {self.dtype} holds in full, the largest "
                f"is {largest:.2g}; multiply them by a constant: the weighted mean stays as it is"
            )

    def check_memory(self, *, keeps_every_step: bool) -> None:
        """Refuse to keep more of the steps than there is memory for.

        Args:
            keeps_every_step: whether steps that nobody asked for take memory too, until the training is over.

        Raises:
            ArgumentError: there is not; the message says how much it would be, and what to do.
        """
        kept = self.steps if keeps_every_step or self.at is None else len(self.at)
        each = sum(leaf.size for leaf in jax.tree.leaves(self.split[1])) if self.record else 0
        numbers = 1 + len(self.record) * each
        check_kept(self.trainings * kept * numbers * self.dtype.itemsize, kept, self.trainings)


def _value(variable: nnx.Param) -> Array:
    """Return what an NNX variable holds; straight out of it where that is a plain array, which is faster."""
    raw = variable.get_raw_value()
    return raw if is_array(raw) else variable[...]


def _as_dtype(leaf: AnyArray, dtype: DType) -> Array:
    """Return an array of that dtype; JAX takes a tenth of a millisecond to see that one is."""
    return leaf if is_array(leaf) and leaf.dtype == dtype else jnp.asarray(leaf, dtype)
