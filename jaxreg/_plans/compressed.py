"""The plan that looks at the data once: every step then costs what the coefficients cost, whatever the rows."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxreg._nn.linear_params import LayerParams, stack_tree, unstack_tree
from jaxreg._optim import optax_step, sgd
from jaxreg._plans.after_overflow import Overflow, continue_from
from jaxreg._plans.least_squares import Problem, gram_source, make_problem, too_large, why_not_linear
from jaxreg._plans.plan import FLOAT64_COST, STEP_COST, Plan
from jaxreg._plans.request import Request
from jaxreg._plans.solver_device import on_solver_device, to_device_of, to_solver_device
from jaxreg._plans.training_step import Data, Kept, Outcome, kept_of, scan, unroll
from jaxreg._statistics.gram_root import traced_gram_root
from jaxreg._types import Array, Number, Optimizer, OptState, Params, TreeDef

# The first step at which a loop could overflow, else the number of steps; and parameters and state before it.
FirstOverflow = tuple[Array, tuple[Params, OptState]]


def steps(
    problem: Problem,
    *,
    optimizer: Optimizer,
    structure: TreeDef,
    epochs: int,
    record: frozenset[str],
    largest: float,
) -> tuple[Params, Kept, FirstOverflow]:
    """Make every step of any Optax optimizer, in float64, on the root of the data's cross-products.

    ``structure`` is that of the model's parameters, for optimizers that look at their names.

    Returns:
        Parameters; losses, gradients and weights of every step; and the first step at which a loop in a dtype with the
        ``largest`` number could overflow (else ``epochs``), with parameters and the optimizer's state before it.
    """

    def objective(trained: Params) -> Array:
        squares = jnp.sum((problem.design @ stack_tree(trained) - problem.targets) ** 2)
        return jnp.asarray(problem.scale * squares)

    def step(
        carry: tuple[Params, OptState, FirstOverflow], number: Array
    ) -> tuple[tuple[Params, OptState, FirstOverflow], Kept]:
        trained, state, (first, before) = carry
        value, gradients = jax.value_and_grad(objective)(trained)
        over = too_large(problem, value / problem.scale, stack_tree(trained), largest)
        first = jnp.minimum(first, jnp.where(over, number, epochs))
        before = jax.tree.map(lambda old, new: jnp.where(number <= first, new, old), before, (trained, state))
        moved, state = optax_step.advance(optimizer, trained, state, gradients, value, objective)
        return (moved, state, (first, before)), kept_of(value, gradients, moved, record)

    start = unstack_tree(problem.start, structure)
    state = optax_step.begin(optimizer, start)
    carry = (start, state, (jnp.asarray(epochs), (start, state)))
    (trained, state, overflow), kept = scan(step, carry, jnp.arange(epochs), unroll=unroll(epochs, problem))
    return optax_step.trained(trained, state), kept, overflow


solve = functools.partial(jax.jit, static_argnames=("optimizer", "structure", "epochs", "record", "largest"))(steps)


@functools.partial(jax.jit, static_argnames=("dtype",))
def _problem(source: Data | Float64[Array, "m columns"], layer: LayerParams, scale: Number, dtype: str) -> Problem:
    root = traced_gram_root(source, dtype) if isinstance(source, tuple) else source
    outputs = layer.kernel.shape[1]
    return make_problem(root[:, :-outputs], root[:, -outputs:], layer, scale)


class Compressed(Plan):
    """All steps of any optimizer on the root of the data's cross-products, in float64: for one linear layer."""

    name = "compressed"

    def why_not(self, request: Request) -> str | None:
        """Return why the data cannot be summed up."""
        return why_not_linear(request)

    def cost(self, request: Request) -> float:
        """Return the cost of one pass over the data and of steps on a small matrix."""
        rows, columns, outputs = request.sizes
        one_pass = FLOAT64_COST * rows * (columns + outputs) ** 2
        step = STEP_COST + request.trainings * FLOAT64_COST * 2 * columns**2 * outputs
        return one_pass + request.steps * step

    def run(self, request: Request) -> Outcome:
        """Train on the small matrix, and on the data from where a loop in the model's dtype could overflow."""
        with jax.enable_x64(True):
            source, layer = gram_source(request), to_solver_device(request.layer)
            with on_solver_device():
                found = solve(
                    _problem(source, layer, request.loss_scale, request.dtype.name),
                    optimizer=sgd.rounded(request.optimizer, request.dtype),
                    structure=request.structure,
                    epochs=request.epochs,
                    record=request.record,
                    largest=float(np.finfo(request.dtype).max),
                )
            params, kept, (step, before) = to_device_of(request.layer.kernel, found)
            kept_only = Outcome(params, None, *kept).at(request.at)
            rounded = jax.tree.map(lambda leaf: leaf.astype(request.dtype), kept_only)
            outcome: Outcome = rounded._replace(rest=request.split[2])
            first = int(step)
        if first == request.epochs or request.statistics is not None:
            return outcome
        return continue_from(request, outcome, Overflow(first, *before))
