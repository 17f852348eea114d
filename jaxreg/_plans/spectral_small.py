"""The spectral plan of a small problem on a CPU, as programs that run where they are called.

XLA's CPU client runs a program of less than 1,000 operations, those of a loop's body counted once, in the thread that
calls it; any other it hands to a thread of its own, which takes longer than all the work that a line fitted to a
hundred points is. And it takes a program's parts one after another only if there are at most eight of them, or none of
more than 512 bytes; else it shares them out, which takes as long again.
"""

from __future__ import annotations

import functools
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Float64

from jaxreg._nn.linear_params import LayerParams
from jaxreg._plans.closed_form import power
from jaxreg._plans.spectral_basis import descent
from jaxreg._plans.spectral_training import Answer, start_training, unpack
from jaxreg._types import AnyArray, Array, DType, Rows

# Columns, the constant one and the targets with them; numbers of the data; and steps whose losses are kept.
_MAX_COLUMNS, _MAX_NUMBERS, _MAX_STEPS = 3, 4096, 4096
# Losses worked out in one turn of the loop: the doubles that one instruction of a processor takes.
_LOSSES_A_TURN = 8


def serves(
    source: Rows | Float64[AnyArray, "m columns"],
    kernel: Float[AnyArray, "inputs outputs"],
    kept: int,
    *,
    momentum: bool,
    record: frozenset[str],
) -> TypeGuard[Rows]:
    """Return whether this is for a training: few numbers, on a CPU, steps of few operations, only losses to keep."""
    if not isinstance(source, tuple) or momentum or record or kept > _MAX_STEPS:
        return False
    (rows, inputs), outputs = source[0].shape, kernel.shape[1]
    few = inputs + 1 + outputs <= _MAX_COLUMNS and rows * _MAX_COLUMNS <= _MAX_NUMBERS
    return few and jax.default_backend() == "cpu"


def run(
    source: Rows,
    layer: LayerParams,
    numbers: Float64[AnyArray, " numbers"],
    steps: Float64[AnyArray, " steps"] | None,
    *,
    dtype: DType,
    every: int,
) -> Answer:
    """Return what :func:`spectral.run` gives, of the same arguments."""
    root = triangle(source, dtype=dtype)
    course, params, over = _course(root, layer, numbers)
    kept = _losses(course, steps, count=every if steps is None else len(steps), dtype=dtype)
    return Answer(params, kept, None, None, over)


@functools.partial(jax.jit, static_argnames=("dtype",))
def triangle(source: Rows, *, dtype: DType) -> Float64[Array, "columns columns"]:
    """Return the root that :func:`gram_root.gram_root` gives, a triangle, to be traced with float64 enabled.

    Modified Gram and Schmidt, which makes as good a triangle as Householder does (Higham, *Accuracy and Stability of
    Numerical Algorithms*, 19.8). The columns are not kept: a row of them costs less to work out again than to store.
    JAX takes longer to load LAPACK than to compile this.
    """
    inputs, targets, weights = source
    rows, columns = inputs.shape[0], inputs.shape[1] + 1 + targets.shape[1]

    def at(number: Array | int, leaf: AnyArray) -> Array:
        row = lax.dynamic_index_in_dim(leaf, number, keepdims=False)
        return row.astype(dtype).astype(np.float64)

    def with_column(column: Array | int, found: tuple[Array, Array]) -> tuple[Array, Array]:
        shares, squares = found

        def with_row(number: Array | int, total: Array) -> Array:
            left = jnp.concatenate([at(number, inputs), jnp.ones(1), at(number, targets)])
            for k in range(columns - 1):
                left = left - shares[k] * left[k]
            products = left[column] * left if weights is None else at(number, weights) * left[column] * left
            return total + products

        products = lax.fori_loop(0, rows, with_row, jnp.zeros(columns))
        square = products[column]
        after = (jnp.arange(columns) > column) & (square != 0)
        share = jnp.where(after, products / jnp.where(square == 0, 1.0, square), 0.0)
        return shares.at[column].set(share), squares.at[column].set(square)

    start = (jnp.zeros((columns, columns)), jnp.zeros(columns))
    shares, squares = lax.fori_loop(0, columns, with_column, start)
    return jnp.sqrt(squares)[:, None] * (shares + jnp.eye(columns))


@jax.jit
def _course(
    root: Float64[Array, "m columns"], layer: LayerParams, numbers: Float64[AnyArray, " numbers"]
) -> tuple[Float64[Array, " course"], dict[str, Array], Array]:
    """Return what the losses are made of, the last parameters, and whether a loop could overflow on the way.

    The loss before step t is ``rest`` and the sum, over the modes, of ``(size * (1 - rate) ** t - left) ** 2``, or of
    ``(first - size * (1 - (1 - rate) ** t)) ** 2``, which is the same. All of these come in one array: XLA takes longer
    to hand back an array than to work out its numbers.
    """
    outputs = layer.kernel.shape[1]
    training, params, over = start_training(root[:, :-outputs], root[:, -outputs:], layer, numbers, momentum=False)
    basis, (given, settings) = training.basis, unpack(numbers, False)
    curvature, rest_at = descent(basis, given.scale, settings)
    size = jnp.sqrt(given.scale)
    each = jnp.broadcast_arrays(
        settings.learning_rate * curvature[0],
        size * basis.values * (basis.start - rest_at[0]),
        size * basis.targets * settings.weight_decay / curvature[0],
        size * (basis.values * basis.start - basis.targets),
    )
    rest = jnp.where(training.sound, given.scale * basis.rest, jnp.nan)
    return jnp.concatenate([*(jnp.ravel(part) for part in each), rest[None]]), params, over


@functools.partial(jax.jit, static_argnames=("count", "dtype"))
def _losses(
    course: Float64[Array, " course"], at: Float64[AnyArray, " steps"] | None, *, count: int, dtype: DType
) -> Float[Array, " kept"]:
    turns = max(-(-count // _LOSSES_A_TURN), 1)
    padded = None if at is None else jnp.pad(at, (0, turns * _LOSSES_A_TURN - count))
    modes = len(course) // 4

    def turn(number: Array) -> Array:
        begin = number * _LOSSES_A_TURN
        every_one = begin.astype(np.float64) + lax.iota(np.float64, _LOSSES_A_TURN)
        steps = every_one if padded is None else lax.dynamic_slice_in_dim(padded, begin, _LOSSES_A_TURN)
        # Together, so that XLA leaves here what does not change from turn to turn: outside it would be parts by itself.
        steps, here = lax.optimization_barrier((steps, course))  # type: ignore[no-untyped-call]
        total = here[-1]
        for k in range(modes):
            (share, gone), (size, end, first) = power(here[k], steps), (here[modes * n + k] for n in (1, 2, 3))
            # Near the start from the start, as in :func:`spectral_basis.state_after`.
            total = total + jnp.where(gone < 0.5, first - gone * size, share * size - end) ** 2
        return total.astype(dtype)

    return lax.map(turn, jnp.arange(turns)).reshape(turns * _LOSSES_A_TURN)[:count]
