"""The compressed plan in batches of the rows' own order: each batch is looked at once, in whatever many epochs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float64

from jaxreg._memory import short_of
from jaxreg._nn.linear_params import LayerParams, stack_tree, unstack_tree
from jaxreg._optim import optax_step, sgd
from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._plans.least_squares import start, why_not_linear, within
from jaxreg._plans.minibatch import Minibatch
from jaxreg._plans.plan import FLOAT64_COST, LOAD_COST, MULTIPLY_COST, SETUP_COST, STEP_COST, Plan
from jaxreg._plans.request import Request
from jaxreg._plans.solver_device import on_solver_device, to_device_of, to_solver_device
from jaxreg._plans.training_step import Kept, Outcome, kept_of, scan, unroll
from jaxreg._statistics.gram_root import products_of_batches, row_sharding
from jaxreg._types import AnyArray, Array, Optimizer, OptState, Params, TreeDef


@functools.partial(jax.jit, static_argnames=("optimizer", "structure", "steps", "record", "mean", "dtype"))
def solve(
    products: Float64[AnyArray, "batches columns columns"],
    layer: LayerParams,
    *,
    optimizer: Optimizer,
    structure: TreeDef,
    steps: int,
    record: frozenset[str],
    mean: bool,
    dtype: str,
) -> tuple[Params, Kept, Bool[Array, ""]]:
    r"""Make every step of any Optax optimizer, in float64, on the cross-products of its batch.

    With :math:`G = Z^T Z` of a batch :math:`Z = [X\ 1\ Y]` and :math:`V = [W; -I]`, the errors' sum of squares is
    :math:`\mathrm{tr}(V^T G V)`, and its gradient twice the first rows of :math:`G V`.

    Args:
        products: :math:`G` of each batch.
        layer: to start from.
        optimizer: with settings as in the dtype of the results.
        structure: of the model's parameters, for optimizers that look at their names.
        steps: how many.
        record: what to keep of each besides its loss.
        mean: whether the loss is the mean of squares, else their sum.
        dtype: of the results.

    Returns:
        Parameters; losses, gradients and weights of every step; and whether a loop in that dtype could overflow.
    """
    outputs, largest = layer.kernel.shape[1], float(np.finfo(dtype).max)
    counted = products[:, -outputs - 1, -outputs - 1]
    scale = 1 / (counted * outputs) if mean else jnp.ones_like(counted)
    if layer.bias is None:
        products = jnp.delete(jnp.delete(products, -outputs - 1, 1), -outputs - 1, 2)
    fixed = -jnp.eye(outputs)

    def step(carry: tuple[Params, OptState, Array], number: Array) -> tuple[tuple[Params, OptState, Array], Kept]:
        trained, state, reach = carry
        at = lax.rem(number, len(products))
        crossed = lax.dynamic_index_in_dim(products, at, keepdims=False)

        def errors(trained: Params) -> tuple[Array, Array]:
            against = jnp.concatenate([stack_tree(trained), fixed])
            seen = crossed @ against
            return seen, jnp.maximum(jnp.sum(against * seen), 0.0)

        seen, squares = errors(trained)
        gradients = unstack_tree(2 * scale[at] * seen[:-outputs], structure)
        moved, state = optax_step.advance(
            optimizer, trained, state, gradients, scale[at] * squares, lambda other: scale[at] * errors(other)[1]
        )
        reach = jnp.maximum(reach, jnp.sum(stack_tree(trained) ** 2))
        return (moved, state, reach), kept_of(squares, gradients, moved, record)

    first = unstack_tree(start(layer), structure)
    (trained, state, reach), (squares, *traced) = scan(
        step,
        (first, optax_step.begin(optimizer, first), jnp.zeros(())),
        jnp.arange(steps),
        unroll=unroll(steps, products[0]),
    )
    # Of the largest of each, wherever it was: it is asked once, and one that could overflow is run again.
    columns = products.shape[1]
    size = jnp.sqrt(jnp.max(jnp.sum(products.reshape(-1, columns**2)[:, :: columns + 1], 1)))
    over = ~within(size, jnp.max(squares, initial=0.0), reach, largest)
    losses = squares * scale[lax.rem(jnp.arange(steps), len(products))]
    params, kept = jax.tree.map(
        lambda leaf: leaf.astype(dtype), (optax_step.trained(trained, state), (losses, *traced))
    )
    return params, kept, over


class CompressedMinibatch(Plan):
    """All steps of any optimizer on the cross-products of their batches, in float64: for one linear layer."""

    name = "compressed"
    for_batches = True

    def why_not(self, request: Request) -> str | None:
        """Return why the data, or their batches, cannot be summed up."""
        return why_not_linear(request) or _why_not_batches(request)

    def cost(self, request: Request) -> float:
        """Return the cost of one pass over the batches and of steps on a small matrix."""
        rows, columns, outputs = request.sizes
        width = columns + outputs
        one_pass = SETUP_COST + rows * width * (LOAD_COST + MULTIPLY_COST * width)
        return one_pass + request.steps * (STEP_COST + FLOAT64_COST * columns**2 * outputs)

    def run(self, request: Request) -> Outcome:
        """Train on the small matrices; on the batches themselves where a loop in the model's dtype could overflow."""
        batches, layer = request.batches, request.layer
        rows = batches.whole * batches.size + batches.last
        with jax.enable_x64(True):
            made = products_of_batches(*request.data, dtype=request.dtype, size=batches.size, rows=rows)
            with on_solver_device():
                found = solve(
                    to_solver_device(made),
                    to_solver_device(layer),
                    optimizer=sgd.rounded(request.optimizer, request.dtype),
                    structure=_structure(request),
                    steps=request.steps,
                    record=request.record,
                    mean=request.squared_error == "mean",
                    dtype=request.dtype.name,
                )
            params, kept, overflows = to_device_of(layer.kernel, found)
        if np.asarray(overflows):
            return Minibatch().run(request)
        return Outcome(params, None, *kept).at(request.at)


def _structure(request: Request) -> TreeDef:
    """Return the structure of the parameters; PyTorch's SGD treats all alike, and to split a model takes long."""
    if not isinstance(request.optimizer, PyTorchSGD):
        return request.structure
    return jax.tree.structure({"kernel": 0} if request.layer.bias is None else {"bias": 0, "kernel": 0})


def _why_not_batches(request: Request) -> str | None:
    """Return why batches cannot be summed up before the training; ``None`` where they can."""
    batches = request.batches
    if request.statistics is not None:
        return "statistics are of all rows at once, got batch_size"
    if batches.shuffle is not None:
        return "batches must be the same in every epoch, got shuffle"
    if request.dtype != np.float32:
        return (
            f"batches of {request.dtype} would lose accuracy in their cross-products; only those of float32 have room"
        )
    if not batches.steps:
        return "drop_last leaves no batch"
    least = request.sizes[1] + request.outputs
    if batches.size < least:
        return (
            "batches so small are faster to read directly than through their Gram matrix: "
            f"at least {least} rows, got {batches.size}"
        )
    if row_sharding(request.data.inputs) is not None:
        return "rows lie on several devices, and batches across them"
    size = 8 * batches.steps * least**2
    free = short_of(size)
    if free is not None:
        return f"cross-products of all batches would take {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
    return None
