"""The plan whose cost does not grow with the number of steps: every mode of the data in closed form."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxreg._nn.linear_params import LayerParams, like, unstack_tree
from jaxreg._optim.settings import as_in
from jaxreg._optim.sgd import MomentumState, PyTorchSGD
from jaxreg._plans import spectral_small
from jaxreg._plans.after_overflow import Overflow, continue_from
from jaxreg._plans.least_squares import gram_source, why_not_linear
from jaxreg._plans.overflow_search import find_overflow_step
from jaxreg._plans.plan import CLOSED_FORM_COST, FLOAT64_COST, SVD_COST, Plan
from jaxreg._plans.request import Request
from jaxreg._plans.solver_device import on_solver_device, to_device_of, to_solver_device
from jaxreg._plans.spectral_training import Answer, solve
from jaxreg._plans.training_step import Data, Outcome
from jaxreg._statistics.gram_root import gram_root, rows_or_root, single_threaded_lapack
from jaxreg._types import AnyArray, Array, DType, HostArray, OptState

# PyTorch counts the updates of a momentum; beyond so many the count makes no difference.
LARGEST_COUNT = 2**30


@functools.partial(jax.jit, static_argnames=("dtype", "every", "momentum", "record"))
def run(
    source: Data | Float64[Array, "m columns"],
    layer: LayerParams,
    numbers: Float64[AnyArray, " numbers"],
    at: Float64[AnyArray, " steps"] | None,
    *,
    dtype: DType,
    every: int,
    momentum: bool,
    record: frozenset[str],
) -> Answer:
    """Solve from the data or from their root; ``every`` is the number of steps where all are asked for."""
    root = rows_or_root(source, dtype) if isinstance(source, tuple) else source
    steps = jnp.arange(every, dtype=np.float64) if at is None else jnp.asarray(at)
    outputs = layer.kernel.shape[1]
    return solve(root[:, :-outputs], root[:, -outputs:], layer, numbers, steps, momentum=momentum, record=record)


class Spectral(Plan):
    """Each step of PyTorch's SGD at constant settings in closed form: for one linear layer, over all rows."""

    name = "spectral"
    keeps_every_step = False

    def why_not(self, request: Request) -> str | None:
        """Return why there is no closed form."""
        why = why_not_linear(request)
        if why is not None:
            return why
        if not request.batches.is_full:
            return "every step must see the whole batch, got batch_size"
        if not isinstance(request.optimizer, PyTorchSGD):
            return "the optimizer must be jaxreg.sgd; 'compressed' takes any"
        if request.constant_sgd is None:
            return "the optimizer's settings must be numbers, not schedules or arrays; 'compressed' takes any"
        return None

    def cost(self, request: Request) -> float:
        """Return the cost of one pass over the data, a decomposition, and the steps whose losses are kept."""
        rows, columns, outputs = request.sizes
        kept = request.steps if request.at is None else len(request.at)
        one_pass = FLOAT64_COST * rows * (columns + outputs) ** 2
        return one_pass + SVD_COST * columns**3 + CLOSED_FORM_COST * request.trainings * kept * columns * outputs

    def run(self, request: Request) -> Outcome:
        """Train in closed form, and on the data from where a loop in the model's dtype could overflow."""
        settings = request.constant_sgd
        if settings is None:
            raise TypeError("the optimizer has no constant settings")
        given = (*as_in(request.dtype, *settings), request.loss_scale, request.epochs)
        numbers = np.array(given, np.float64)
        data = None if request.statistics is not None else request.data
        with jax.enable_x64(True), single_threaded_lapack(data, request.dtype):
            source, layer = gram_source(request), to_solver_device(request.layer)
            with on_solver_device():
                answer = _solve(request, source, layer, numbers)
            answer = to_device_of(request.layer.kernel, answer)
            # NumPy takes the flag out of its array in an eighth of the time that bool() does.
            if data is None or not np.asarray(answer.overflows):
                return Outcome(answer.params, None, answer.losses, answer.gradients, answer.weights)
            overflow = _find_overflow(request, numbers)
        params = like(request.structure, answer.params)
        known = Outcome(params, request.split[2], answer.losses, answer.gradients, answer.weights)
        return continue_from(request, known, overflow)


def _solve(
    request: Request, source: Data | Float64[Array, "m columns"], layer: LayerParams, numbers: HostArray
) -> Answer:
    momentum, at = bool(numbers[1] != 0), request.at
    every = request.epochs if at is None else 0
    steps = None if at is None else at.astype(np.float64)
    kept = every if steps is None else len(steps)
    if spectral_small.serves(source, layer.kernel, kept, momentum=momentum, record=request.record):
        return spectral_small.run(source, layer, numbers, steps, dtype=request.dtype, every=every)
    found: Answer = run(
        source, layer, numbers, steps, dtype=request.dtype, every=every, momentum=momentum, record=request.record
    )
    return found


def _find_overflow(request: Request, numbers: HostArray) -> Overflow:
    """Return where a loop in the model's dtype could overflow."""
    root, outputs = to_solver_device(gram_root(*request.data, dtype=request.dtype)), request.outputs
    with on_solver_device():
        given = (root[:, -outputs:], to_solver_device(request.layer), numbers)
        found = find_overflow_step(root[:, :-outputs], *jax.tree.map(lambda leaf: leaf[None], given))
    steps, now, velocity = to_device_of(request.layer.kernel, found)
    step, structure = int(steps[0]), request.structure
    params = unstack_tree(now[0], structure)
    buffer = MomentumState(jnp.asarray(min(step, LARGEST_COUNT), jnp.int32), unstack_tree(velocity[0], structure))
    return Overflow(step, params, with_momentum(request.optimizer.init(params), buffer))


def with_momentum(state: OptState, buffer: MomentumState) -> OptState:
    """Return an optimizer's state with this one in place of the momentum's."""
    changed: OptState = jax.tree.map(
        lambda part: buffer if isinstance(part, MomentumState) else part,
        state,
        is_leaf=lambda part: isinstance(part, MomentumState),
    )
    return changed
