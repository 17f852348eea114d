"""One training in closed form: from the data's root, the start and a few numbers to all that was asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Float64

from jaxreg._nn.linear_params import LayerParams, unstack
from jaxreg._optim.settings import Settings
from jaxreg._plans.least_squares import Problem, is_finite, make_problem, too_large
from jaxreg._plans.spectral_basis import SpectralBasis, coefficients_of, decompose, squares_of, state_after
from jaxreg._types import AnyArray, Array, DType

# Numbers of one kind worked out at once, for steps that are asked for.
_NUMBERS_AT_ONCE = 1 << 22
_Tree = TypeVar("_Tree")
# Of each step asked for: loss, gradients, weights; by name, or `None` for what nobody asked for.
_Kept = tuple[Array, dict[str, Array] | None, dict[str, Array] | None]


class TrainingNumbers(NamedTuple):
    """What tells one training from another on the same data, all that :class:`Settings` holds and two more.

    Attributes:
        scale: what the sum of squared errors is multiplied with.
        steps: how many.
    """

    learning_rate: Array
    momentum: Array
    dampening: Array
    weight_decay: Array
    nesterov: Array
    maximize: Array
    scale: Array
    steps: Array


class Answer(NamedTuple):
    """What was found, in the model's dtype.

    Attributes:
        params: kernel and bias, by name, after the last step.
        losses: before each of the steps asked for.
        gradients: at those steps, ``None`` where not asked for.
        weights: after those steps, ``None`` where not asked for.
        overflows: whether a loop in that dtype could overflow.
    """

    params: dict[str, Array]
    losses: Float[Array, " steps"]
    gradients: dict[str, Array] | None
    weights: dict[str, Array] | None
    overflows: Bool[Array, ""]


class Training(NamedTuple):
    """A training in closed form: what each of its steps is worked out from.

    Attributes:
        basis: of its data.
        numbers: :class:`TrainingNumbers` in one array.
        sound: whether the data were finite; all is NaN that comes of others.
    """

    basis: SpectralBasis
    numbers: Float64[AnyArray, " numbers"]
    sound: Bool[Array, ""]

    def rounded(self, tree: _Tree, dtype: DType) -> _Tree:
        """Return what was worked out in float64 in the model's dtype."""
        found: _Tree = jax.tree.map(lambda leaf: jnp.where(self.sound, leaf, jnp.nan).astype(dtype), tree)
        return found


def unpack(numbers: Float64[AnyArray, " numbers"], momentum: bool) -> tuple[TrainingNumbers, Settings]:
    """Return the numbers of a training, and of them the optimizer's settings."""
    held = jnp.asarray(numbers)
    given = TrainingNumbers(*(held[..., k] for k in range(len(TrainingNumbers._fields))))
    settings = Settings(*given[:6])
    return given, settings if momentum else settings._replace(momentum=None)


def open_problem(
    columns: Float64[Array, "m inputs_and_one"],
    targets: Float64[Array, "m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, " numbers"],
    momentum: bool = True,
) -> tuple[TrainingNumbers, Settings, Problem, SpectralBasis]:
    """Return what the arguments of :func:`solve` say, and the problem and its basis that they make."""
    given, settings = unpack(numbers, momentum)
    problem = make_problem(columns, targets, layer, given.scale)
    return given, settings, problem, decompose(problem)


def start_training(
    columns: Float64[Array, "m inputs_and_one"],
    targets: Float64[Array, "m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, " numbers"],
    *,
    momentum: bool,
) -> tuple[Training, dict[str, Array], Bool[Array, ""]]:
    """Return a training, its parameters after the last step, and whether a loop in their dtype could overflow.

    The arguments are those of :func:`solve`.
    """
    given, settings, problem, basis = open_problem(columns, targets, layer, numbers, momentum)
    training = Training(basis, numbers, is_finite(problem))
    ends = jnp.stack([given.steps, given.steps + 1, jnp.zeros(())])
    state = state_after(basis, problem.scale, ends, settings)
    final = coefficients_of(basis, state)
    largest = float(np.finfo(layer.kernel.dtype).max)
    over = jnp.any(too_large(problem, squares_of(basis, state), final, largest))
    return training, training.rounded(_by_name(final[0], layer), layer.kernel.dtype), over


def solve(
    columns: Float64[Array, "m inputs_and_one"],
    targets: Float64[Array, "m outputs"],
    layer: LayerParams,
    numbers: Float64[AnyArray, " numbers"],
    at: Float64[Array, " steps"],
    *,
    momentum: bool,
    record: frozenset[str],
) -> Answer:
    """Make one training, from a root of the data's cross-products; it can be mapped over any of its arguments.

    Args:
        columns: of a root of the cross-products of ``[inputs 1 targets]``, those of ``[inputs 1]``.
        targets: its other columns.
        layer: to start from.
        numbers: :class:`TrainingNumbers` in one array.
        at: the steps to keep something of.
        momentum: whether there is one; without, less is to be done.
        record: what to keep of those steps besides the losses: "gradients", "weights".
    """
    training, params, over = start_training(columns, targets, layer, numbers, momentum=momentum)
    given, settings = unpack(numbers, momentum)
    basis, scale = training.basis, given.scale

    def kept(steps: Float64[Array, " steps"]) -> _Kept:
        state = state_after(basis, scale, steps, settings)
        gradients = weights = None
        if "gradients" in record:
            towards = jnp.einsum("mc,smo->sco", basis.vectors, basis.values[None] * state.residuals)
            gradients = _by_name(2 * scale * towards, layer)
        if "weights" in record:
            weights = _by_name(coefficients_of(basis, state_after(basis, scale, steps + 1, settings)), layer)
        return scale * squares_of(basis, state), gradients, weights

    found = kept(at) if at.size * basis.targets.size <= _NUMBERS_AT_ONCE else _in_parts(kept, at, basis.targets.size)
    losses, gradients, weights = training.rounded(found, layer.kernel.dtype)
    return Answer(params, losses, gradients, weights, over)


def _by_name(coefficients: Float64[Array, "*steps c o"], layer: LayerParams) -> dict[str, Array]:
    return unstack(coefficients, has_bias=layer.bias is not None)


def _in_parts(kept: Callable[[Array], _Kept], at: Float64[Array, " steps"], size: int) -> _Kept:
    """Return ``kept`` for all of ``at``, with no more numbers at once than there is memory for."""
    one = lambda step: jax.tree.map(lambda leaf: leaf[0], kept(step[None]))  # noqa: E731
    found: _Kept = lax.map(one, at, batch_size=max(_NUMBERS_AT_ONCE // size, 1))
    return found
