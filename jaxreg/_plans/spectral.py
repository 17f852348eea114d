"""The plan whose cost does not grow with the number of steps: every mode of the data in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float64

from jaxreg._optim.settings import Settings
from jaxreg._plans import least_squares
from jaxreg._plans.closed_form import left
from jaxreg._plans.least_squares import Problem, too_large
from jaxreg._statistics import gram_root

# Of the curvature where a mode has none: small enough to move nothing in 2**53 steps.
_NONE = 1e-200
# Numbers of one kind worked out at once, for steps that are asked for.
_AT_ONCE = 1 << 22
_EPSILON = float(np.finfo(np.float64).eps)
# So few numbers are added up one by one: XLA's CPU compiler makes vectors of that, and none of a sum over an axis.
_ONE_BY_ONE = 8


class Modes(NamedTuple):
    """The problem in the basis of its right singular vectors.

    Attributes:
        vectors: shape ``(modes, coefficients)``.
        values: singular values, ``(modes, 1)``.
        targets: the targets' part in each mode, ``(modes, outputs)``.
        rest: of the targets' squared size what no coefficients explain.
        start: coefficients to start from, in the basis.
        outside: what of them no row of the data sees, ``(coefficients, outputs)``.
    """

    vectors: Any
    values: Any
    targets: Any
    rest: Any
    start: Any
    outside: Any


def decompose(problem: Problem) -> Modes:
    """The modes of a problem; of one that is not finite, those of nothing at all."""
    # LAPACK may never come back from what is not finite. The targets, of which a sweep has many over one design, are
    # looked at apart from it: it is decomposed once.
    design = jnp.where(jnp.isfinite(problem.size), problem.design, 0.0)
    seen_targets = jnp.where(jnp.all(jnp.isfinite(problem.targets)), problem.targets, 0.0)
    left_vectors, values, vectors = _of_two(design) if design.shape[1] <= 2 else _singular(design)
    # A mode that is not told from rounding is none: what it would explain of the targets stays, no step takes it away.
    seen = values > 8 * _EPSILON * jnp.max(values)
    left_vectors, values = jnp.where(seen[None], left_vectors, 0.0), jnp.where(seen, values, 0.0)
    targets = left_vectors.T @ seen_targets
    rest = jnp.sum((seen_targets - left_vectors @ targets) ** 2)
    start = vectors @ problem.start
    return Modes(vectors, values[:, None], targets, rest, start, problem.start - vectors.T @ start)


def _singular(design: Float64[Array, "m c"]) -> tuple[Any, Any, Any]:
    """The singular value decomposition; on TPU, whose compiler fails on it in float64, by way of the cross-products.

    There modes below 1e-8 of the largest are lost. Cross-products in float64 of float32 data have lost them already.
    """
    found: tuple[Any, Any, Any] = lax.platform_dependent(
        design, tpu=_of_products, default=lambda a: tuple(jnp.linalg.svd(a, full_matrices=False))
    )
    return found


def _of_products(design: Float64[Array, "m c"]) -> tuple[Any, Any, Any]:
    squares, vectors = jnp.linalg.eigh(design.T @ design)
    count = min(design.shape)
    squares, vectors = squares[::-1][:count], vectors[:, ::-1][:, :count]
    values = jnp.sqrt(jnp.where(squares > len(squares) * _EPSILON * squares[0], squares, 0.0))
    return design @ vectors / jnp.where(values == 0, 1.0, values)[None], values, vectors.T


def _of_two(design: Float64[Array, "m c"]) -> tuple[Any, Any, Any]:
    """The singular value decomposition of one or two columns, for which a call of LAPACK takes longer than the rest.

    One-sided Jacobi (Golub and Van Loan, *Matrix Computations*, 8.6.3): one rotation makes the columns orthogonal, two
    more take away what its rounding leaves where they are almost the same.
    """

    def turned(_: Any, both: Any) -> Any:
        design, vectors = both
        products = design.T @ design
        across = products[0, 1]
        twice = jnp.where(across == 0, jnp.inf, (products[1, 1] - products[0, 0]) / (2 * across))
        tangent = jnp.where(twice < 0, -1.0, 1.0) / (jnp.abs(twice) + jnp.hypot(1.0, twice))
        cosine = 1 / jnp.hypot(1.0, tangent)
        turn = cosine * jnp.stack([jnp.stack([jnp.ones(()), tangent]), jnp.stack([-tangent, jnp.ones(())])])
        return design @ turn, vectors @ turn

    vectors = jnp.eye(design.shape[1])
    if design.shape[1] == 2:
        design, vectors = lax.fori_loop(0, 3, turned, (design, vectors))
    values = jnp.sqrt(jnp.sum(design**2, 0))
    return design / jnp.where(values == 0, 1.0, values)[None], values, vectors.T


class Numbers(NamedTuple):
    """What tells one training from another on the same data, all that :class:`Settings` holds and two more.

    Attributes:
        scale: what the sum of squared errors is multiplied with.
        steps: how many.
    """

    learning_rate: Any
    momentum: Any
    dampening: Any
    weight_decay: Any
    nesterov: Any
    maximize: Any
    scale: Any
    steps: Any


class State(NamedTuple):
    """Coefficients in the basis after some steps, what they leave of the targets, and the part that is not seen."""

    coefficients: Any
    residuals: Any
    outside: Any


def descent(modes: Modes, scale: Any, settings: Settings) -> tuple[Any, Any]:
    """The loss's second derivative along each mode, and where the mode comes to rest; a leading axis for the steps."""
    sign = jnp.where(settings.maximize, -1.0, 1.0)
    values, targets = modes.values[None], modes.targets[None]
    curvature = sign * 2 * scale * values**2 + settings.weight_decay
    curvature = jnp.where(curvature == 0, _NONE, curvature)
    return curvature, sign * 2 * scale * values * targets / curvature


def after(modes: Modes, scale: Any, steps: Float64[Any, n], settings: Settings) -> State:
    """The state after each of these numbers of steps, with a leading axis for them."""
    steps = steps[:, None, None]
    values, targets, start = modes.values[None], modes.targets[None], modes.start[None]
    curvature, rest_at = descent(modes, scale, settings)
    distance = start - rest_at
    share, gone = left(curvature, steps, settings)
    # Near the start from the start, near the end from the end: neither is lost in the other.
    coefficients = jnp.where(gone < 0.5, start - gone * distance, rest_at + share * distance)
    residuals = jnp.where(
        gone < 0.5,
        values * start - targets - gone * (values * distance),
        share * (values * distance) - targets * settings.weight_decay / curvature,
    )
    unseen, _ = left(
        jnp.where(settings.weight_decay == 0, _NONE, settings.weight_decay) * jnp.ones((1, 1, 1)), steps, settings
    )
    return State(coefficients, residuals, unseen * modes.outside[None])


def coefficients_of(modes: Modes, state: State) -> Any:
    """Coefficients in the problem's own columns."""
    return jnp.einsum("mc,smo->sco", modes.vectors, state.coefficients) + state.outside


def squares_of(modes: Modes, state: State) -> Any:
    """The sum of squared errors."""
    each = state.residuals**2
    count = each.shape[-2] * each.shape[-1]
    if count > _ONE_BY_ONE:
        return jnp.sum(each, (-2, -1)) + modes.rest
    flat = each.reshape(*each.shape[:-2], count)
    return sum((flat[..., k] for k in range(count)), modes.rest)


class Answer(NamedTuple):
    """What was found, in the model's dtype.

    Attributes:
        params: kernel and bias, by name, after the last step.
        losses: before each of the steps asked for.
        gradients: at those steps, ``None`` where not asked for.
        weights: after those steps, ``None`` where not asked for.
        overflows: whether a loop in that dtype could overflow.
    """

    params: Any
    losses: Any
    gradients: Any
    weights: Any
    overflows: Any


def answer(
    columns: Any,
    targets: Any,
    kernel: Any,
    bias: Any,
    numbers: Any,
    at: Any,
    *,
    momentum: bool,
    record: frozenset[str],
) -> Answer:
    """One training, from a root of the data's cross-products; it can be mapped over any of its arguments.

    Args:
        columns: of a root of the cross-products of ``[inputs 1 targets]``, those of ``[inputs 1]``, float64.
        targets: its other columns.
        kernel: to start from, and ``bias``, which may be ``None``.
        numbers: :class:`Numbers` in one array, float64.
        at: the steps to keep something of, float64.
        momentum: whether there is one; without, less is to be done.
        record: what to keep of those steps besides the losses: "gradients", "weights".
    """
    training, params, over = begun(columns, targets, kernel, bias, numbers, momentum=momentum)
    given, settings = taken(numbers, momentum)
    modes, scale = training.modes, given.scale

    def kept(steps: Any) -> Any:
        state = after(modes, scale, steps, settings)
        gradients = weights = None
        if "gradients" in record:
            towards = jnp.einsum("mc,smo->sco", modes.vectors, modes.values[None] * state.residuals)
            gradients = _named(2 * scale * towards, bias)
        if "weights" in record:
            weights = _named(coefficients_of(modes, after(modes, scale, steps + 1, settings)), bias)
        return scale * squares_of(modes, state), gradients, weights

    found = kept(at) if at.size * modes.targets.size <= _AT_ONCE else _in_parts(kept, at, modes.targets.size)
    losses, gradients, weights = training.rounded(found, kernel.dtype)
    return Answer(params, losses, gradients, weights, over)


class Training(NamedTuple):
    """A training in closed form: what each of its steps is worked out from.

    Attributes:
        modes: of its data.
        numbers: :class:`Numbers` in one array.
        sound: whether the data were finite; all is NaN that comes of others.
    """

    modes: Modes
    numbers: Any
    sound: Any

    def rounded(self, tree: Any, dtype: Any) -> Any:
        """What was worked out in float64, as it is handed back."""
        return jax.tree.map(lambda leaf: jnp.where(self.sound, leaf, jnp.nan).astype(dtype), tree)

    def losses(self, steps: Any, *, momentum: bool) -> Any:
        """Before each of the steps."""
        given, settings = taken(self.numbers, momentum)
        return given.scale * squares_of(self.modes, after(self.modes, given.scale, steps, settings))


def begun(
    columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, *, momentum: bool
) -> tuple[Training, Any, Any]:
    """A training, its parameters after the last step, and whether a loop in their dtype could overflow on the way.

    The arguments are those of :func:`answer`.
    """
    given, settings, problem, modes = opened(columns, targets, kernel, bias, numbers, momentum)
    training = Training(modes, numbers, least_squares.is_finite(problem))
    ends = jnp.stack([given.steps, given.steps + 1, jnp.zeros(())])
    state = after(modes, problem.scale, ends, settings)
    final = coefficients_of(modes, state)
    largest = float(np.finfo(kernel.dtype).max)
    over = jnp.any(too_large(problem, squares_of(modes, state), final, largest))
    return training, training.rounded(_named(final[0], bias), kernel.dtype), over


def opened(
    columns: Any, targets: Any, kernel: Any, bias: Any, numbers: Any, momentum: bool = True
) -> tuple[Numbers, Settings, Problem, Modes]:
    """What the arguments of :func:`answer` say, and the problem and its modes that they make."""
    given, settings = taken(numbers, momentum)
    problem = least_squares.problem(columns, targets, kernel, bias, given.scale)
    return given, settings, problem, decompose(problem)


def taken(numbers: Any, momentum: bool) -> tuple[Numbers, Settings]:
    """The numbers of a training, and of them the optimizer's settings."""
    given = Numbers(*(numbers[..., k] for k in range(len(Numbers._fields))))
    return given, Settings(*given[:6])._replace(**({} if momentum else {"momentum": None}))


def _named(coefficients: Any, bias: Any) -> dict[str, Any]:
    if bias is None:
        return {"kernel": coefficients}
    return {"bias": coefficients[..., -1, :], "kernel": coefficients[..., :-1, :]}


def _in_parts(kept: Callable[[Any], Any], at: Any, size: int) -> Any:
    """``kept`` for all of ``at``, with no more numbers at once than there is room for."""
    one = lambda step: jax.tree.map(lambda leaf: leaf[0], kept(step[None]))  # noqa: E731
    return lax.map(one, at, batch_size=max(_AT_ONCE // size, 1))


@functools.partial(jax.jit, static_argnames=("dtype", "every", "momentum", "record"))
def run(
    source: Any,
    kernel: Any,
    bias: Any,
    numbers: Any,
    at: Any,
    *,
    dtype: Any,
    every: int | None,
    momentum: bool,
    record: frozenset[str],
) -> Answer:
    """:func:`answer` from the data or from its root; ``every`` is the number of steps where all are asked for."""
    root = gram_root.rows_or_root(source, dtype) if isinstance(source, tuple) else source
    at = jnp.arange(every, dtype=np.float64) if at is None else at
    columns, targets = root[:, : -kernel.shape[1]], root[:, -kernel.shape[1] :]
    return answer(columns, targets, kernel, bias, numbers, at, momentum=momentum, record=record)
