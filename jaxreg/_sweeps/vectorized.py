"""Many trainings in one compiled program, each with its own settings, start and targets, over the same inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Float64, Int32, Int64

from jaxreg._nn.linear_params import LayerParams, named
from jaxreg._optim import optax_step
from jaxreg._plans import compressed
from jaxreg._plans.after_overflow import CALL_STEPS, AskedSteps, count_from, nothing_seen, run_block, run_blocks
from jaxreg._plans.compressed import FirstOverflow
from jaxreg._plans.least_squares import make_problem
from jaxreg._plans.spectral_training import solve
from jaxreg._plans.training_step import Carry, Data, Kept, one_step, scan
from jaxreg._statistics.gram_root import rows_or_root
from jaxreg._traced import is_tracer
from jaxreg._types import (
    AnyArray,
    Array,
    DType,
    GraphDef,
    HostArray,
    Loss,
    Optimizer,
    OptState,
    Params,
    PyTree,
    RestState,
    TreeDef,
)
from jaxreg._validation import is_array

_Tree = TypeVar("_Tree")
# Numbers that the trainings worked out side by side may have between them.
_NUMBERS_AT_ONCE = 1 << 24


class Trainings(NamedTuple):
    """What the trainings differ in, each with a leading axis for them.

    Attributes:
        params: to start from.
        target: which of the targets.
        values: the optimizer's settings that are numbers, by name.
    """

    params: Params
    target: Int32[AnyArray, "*trainings"]
    values: Mapping[str, AnyArray]


class Rule(NamedTuple):
    """How a step is made, the same for all: it hashes, and so names a compiled program.

    Attributes:
        graph: of the module.
        loss: of predictions and targets.
        make: makes the optimizer of its settings.
        fixed: settings that are no numbers, pairs of name and value.
        grouped: whether each training has rows of its own.
    """

    graph: GraphDef
    loss: Loss
    make: Callable[..., Optimizer]
    fixed: tuple[tuple[str, object], ...]
    grouped: bool

    def optimizer(self, values: Mapping[str, AnyArray]) -> Optimizer:
        """Return the optimizer of one training."""
        return self.make(**values, **dict(self.fixed))


def spread(tree: _Tree) -> _Tree:
    """Return a tree with its leading axes laid over the devices, where their number divides the axis."""
    devices = jax.devices()
    if len(devices) == 1 or not all(_is_free(leaf) for leaf in jax.tree.leaves(tree)):
        return tree
    axis: jax.sharding.PartitionSpec = jax.sharding.PartitionSpec("trainings")  # type: ignore[no-untyped-call]
    mesh = jax.make_mesh((len(devices),), ("trainings",), axis_types=(jax.sharding.AxisType.Auto,))
    across = jax.sharding.NamedSharding(mesh, axis)
    laid: _Tree = jax.tree.map(
        lambda leaf: jax.device_put(leaf, across) if leaf.shape[0] % len(devices) == 0 else leaf, tree
    )
    return laid


def _is_free(leaf: AnyArray) -> bool:
    """Return whether an array may go anywhere: nobody put it on a device, and it is no part of another program."""
    return not is_tracer(leaf) and not (is_array(leaf) and leaf.committed)


@functools.partial(jax.jit, static_argnames=("dtype",))
def roots(groups: Data, dtype: str) -> Float64[Array, "groups m columns"]:
    """Return a root of the cross-products of each group's ``[inputs 1 targets]``, to be traced with float64 enabled."""
    return jax.vmap(lambda one: rows_or_root(one, dtype))(groups)


@functools.partial(jax.jit, static_argnames=("momentum",))
def spectral_batch(
    columns: Float64[Array, "*groups m inputs_and_one"],
    targets: Float64[Array, "choices m outputs"],
    layers: LayerParams,
    which: Int32[Array, " trainings"],
    numbers: Float64[Array, "trainings numbers"],
    at: Float64[Array, " steps"],
    *,
    momentum: bool,
) -> tuple[Params, Float[Array, "trainings steps"], Bool[Array, " trainings"]]:
    """Make trainings in closed form. ``numbers`` are :class:`TrainingNumbers`; ``which`` says which targets are meant.

    ``columns`` are those of all, or have a leading axis like ``targets``.

    Returns:
        Parameters, losses, and whether a loop in the model's dtype could overflow.
    """

    def one(item: tuple[LayerParams, Array, Array]) -> tuple[Params, Array, Array]:
        layer, which, numbers = item
        own = columns if columns.ndim == 2 else columns[which]
        answer = solve(own, targets[which], layer, numbers, at, momentum=momentum, record=frozenset())
        return answer.params, answer.losses, answer.overflows

    each = max(at.size, 3) * targets[0].size
    items = (layers, which, numbers)
    if each * which.shape[0] <= _NUMBERS_AT_ONCE:
        return jax.vmap(one)(items)
    found: tuple[Params, Array, Array] = lax.map(one, items, batch_size=max(_NUMBERS_AT_ONCE // each, 1))
    return found


@functools.partial(jax.jit, static_argnames=("rule", "structure", "epochs", "dtype"))
def compressed_batch(
    columns: Float64[Array, "*groups m inputs_and_one"],
    targets: Float64[Array, "choices m outputs"],
    trainings: Trainings,
    scale: Float64[AnyArray, " scales"],
    at: Int64[AnyArray, " steps"],
    *,
    rule: Rule,
    structure: TreeDef,
    epochs: int,
    dtype: DType,
) -> tuple[Params, Float[Array, "trainings steps"], FirstOverflow]:
    """Make trainings on the data's root: parameters, losses, and where a loop in the model's dtype could overflow."""

    def one(training: Trainings) -> tuple[tuple[Params, Array], FirstOverflow]:
        leaves = named(training.params)
        layer = LayerParams(leaves["kernel"], leaves.get("bias"))
        own = columns if columns.ndim == 2 else columns[training.target]
        problem = make_problem(own, targets[training.target], layer, scale[training.target])
        params, (losses, *_), overflow = compressed.steps(
            problem,
            optimizer=rule.optimizer(training.values),
            structure=structure,
            epochs=epochs,
            record=frozenset(),
            largest=float(np.finfo(dtype).max),
        )
        rounded: tuple[Params, Array] = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, losses[at]))
        return rounded, overflow

    (params, losses), overflow = jax.vmap(one)(trainings)
    return params, losses, overflow


@functools.partial(jax.jit, static_argnames=("rule",))
def initial_states(trainings: Trainings, rule: Rule) -> OptState:
    """Return the optimizers' states before the first step."""
    return jax.vmap(lambda t: optax_step.begin(rule.optimizer(t.values), t.params))(trainings)


def _step_of(training: Trainings, data: Data, rule: Rule) -> Callable[[Carry], tuple[Carry, Kept]]:
    """Return one training's step: of what the last one left, what it leaves itself, and what is kept of it."""
    step = one_step(rule.graph, rule.optimizer(training.values), rule.loss, frozenset())
    inputs, targets, weights = data
    if rule.grouped:
        inputs, weights = inputs[training.target], None if weights is None else weights[training.target]
    own = Data(inputs, targets[training.target], weights)
    return lambda carry: step(carry, own)


@functools.partial(jax.jit, static_argnames=("rule", "count"))
def advance(
    trainings: Trainings, rest: RestState, state: OptState, data: Data, *, rule: Rule, count: int
) -> tuple[Params, RestState, OptState, Float[Array, "trainings steps"]]:
    """Make ``count`` steps of the loop.

    ``data`` has a list of targets; of inputs and weights too, where they are not the same for all.

    Returns:
        Parameters, the rest of the models' state, the optimizers' states, and the losses before each step.
    """

    def one(training: Trainings, rest: RestState, state: OptState) -> tuple[Params, RestState, OptState, Array]:
        step = _step_of(training, data, rule)

        def body(carry: Carry, _: None) -> tuple[Carry, Array]:
            after, kept = step(carry)
            return after, kept[0]

        carry, losses = scan(body, (training.params, rest, state), length=count)
        return *carry, losses

    return jax.vmap(one)(trainings, rest, state)


@functools.partial(jax.jit, static_argnames=("rule",))
def _run_call(
    trainings: Trainings, carry: Carry, kept: AskedSteps, left: Int32[AnyArray, " n"], data: Data, *, rule: Rule
) -> tuple[Carry, AskedSteps, Bool[Array, " n"]]:
    def one(
        training: Trainings, carry: Carry, kept: AskedSteps, left: AnyArray, number: Array
    ) -> tuple[Carry, AskedSteps, Array]:
        return run_block(_step_of(training, data, rule), carry, kept, number, left)

    def all_(carry: Carry, kept: AskedSteps, number: Array) -> tuple[Carry, AskedSteps, Array]:
        return jax.vmap(one, (0, 0, 0, 0, None))(trainings, carry, kept, left, number)

    return run_blocks(all_, carry, kept, left)


def run_after_overflow(
    trainings: Trainings,
    rest: RestState,
    state: OptState,
    begin: Int64[HostArray, " trainings"],
    epochs: int,
    data: Data,
    rule: Rule,
    asked: Int64[HostArray, " steps"],
) -> tuple[Params, Float[HostArray, "trainings steps"]]:
    """Make the end of trainings that overflow, each from its step ``begin`` on, in the model's own dtype.

    Returns:
        Parameters, and the losses before the steps ``asked``, which ascend; NaN where a training did not come to them.
    """
    carry: Carry = (trainings.params, rest, state)
    first = jax.tree.map(lambda leaf: leaf[0], (trainings, carry))
    shapes = jax.eval_shape(lambda training, carry: _step_of(training, data, rule)(carry)[1], *first)
    seen = nothing_seen(shapes, (len(begin), len(asked)))
    done, left = 0, epochs - begin
    while (left > 0).any():
        near, place = (
            np.stack(each) for each in zip(*(count_from(asked, first + done) for first in begin.tolist()), strict=True)
        )
        some = np.clip(left, 0, CALL_STEPS).astype(np.int32)
        carry, (_, _, seen), lost = _run_call(trainings, carry, AskedSteps(near, place, seen), some, data, rule=rule)
        done, left = done + CALL_STEPS, np.where(np.asarray(lost), 0, left - some)
    return optax_step.trained(carry[0], carry[2]), np.asarray(seen[0])[:, : len(asked)]


def put(all_: _Tree, some: PyTree, where: HostArray) -> _Tree:
    """Return ``all_`` with the leaves of ``some``, which come in the same order, put in at these places."""
    leaves = [
        jnp.asarray(old).at[where].set(jnp.asarray(new, old.dtype))
        for old, new in zip(jax.tree.leaves(all_), jax.tree.leaves(some), strict=True)
    ]
    changed: _Tree = jax.tree.unflatten(jax.tree.structure(all_), leaves)
    return changed


def repeat(tree: _Tree, count: int) -> _Tree:
    """Return every leaf ``count`` times over, along a new leading axis."""
    repeated: _Tree = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), tree)
    return repeated
