"""Many trainings in one compiled program, each with its own settings, start and targets, over the same inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxreg._optim import optax_step
from jaxreg._plans import after_overflow, compressed, least_squares, spectral
from jaxreg._plans.stepwise import Data, one_step, scan
from jaxreg._statistics import gram_root
from jaxreg._traced import is_tracer
from jaxreg._validation import is_array

Array = np.ndarray[Any, Any]
# Numbers that the trainings worked out side by side may have between them.
_AT_ONCE = 1 << 24


class Trainings(NamedTuple):
    """What the trainings differ in, each with a leading axis for them.

    Attributes:
        params: to start from.
        target: which of the targets.
        values: the optimizer's settings that are numbers, by name.
    """

    params: Any
    target: Any
    values: Any


class Rule(NamedTuple):
    """How a step is made, the same for all: it hashes, and so names a compiled program.

    Attributes:
        graph: of the module.
        loss: of predictions and targets.
        make: makes the optimizer of its settings.
        fixed: settings that are no numbers, pairs of name and value.
        grouped: whether each training has rows of its own.
    """

    graph: Any
    loss: Callable[..., Any]
    make: Callable[..., Any]
    fixed: tuple[tuple[str, Any], ...]
    grouped: bool

    def optimizer(self, values: Any) -> Any:
        """The optimizer of one training."""
        return self.make(**values, **dict(self.fixed))


def spread(tree: Any) -> Any:
    """Leading axes laid over the devices present, where there are several and their number divides the axis."""
    devices = jax.devices()
    if len(devices) == 1 or not all(_is_free(leaf) for leaf in jax.tree.leaves(tree)):
        return tree
    axis: Any = jax.sharding.PartitionSpec("trainings")  # type: ignore[no-untyped-call]
    mesh = jax.make_mesh((len(devices),), ("trainings",), axis_types=(jax.sharding.AxisType.Auto,))
    across = jax.sharding.NamedSharding(mesh, axis)
    return jax.tree.map(lambda leaf: jax.device_put(leaf, across) if leaf.shape[0] % len(devices) == 0 else leaf, tree)


def _is_free(leaf: Any) -> bool:
    """Whether an array may go anywhere: it was not put on a device on purpose, and is no part of another program."""
    return not is_tracer(leaf) and not (is_array(leaf) and leaf.committed)


@functools.partial(jax.jit, static_argnames=("dtype",))
def roots(groups: Data, dtype: str) -> Any:
    """A root of the cross-products of each group's ``[inputs 1 targets]``, to be traced with float64 enabled."""
    return jax.vmap(lambda one: gram_root.rows_or_root(one, dtype))(groups)


@functools.partial(jax.jit, static_argnames=("momentum",))
def by_modes(
    columns: Any, targets: Any, params: Any, which: Any, numbers: Any, at: Any, *, momentum: bool
) -> tuple[Any, Any, Any]:
    """The spectral plan. ``numbers`` are those of :class:`spectral.Numbers`; ``which`` says which targets are meant.

    ``columns`` are those of all, or have a leading axis like ``targets``.

    Returns:
        Parameters, losses, and whether a loop in the model's dtype could overflow.
    """

    def one(item: Any) -> Any:
        params, which, numbers = item
        kernel, bias = params["kernel"], params.get("bias")
        own = columns if columns.ndim == 2 else columns[which]
        answer = spectral.answer(own, targets[which], kernel, bias, numbers, at, momentum=momentum, record=frozenset())
        return answer.params, answer.losses, answer.overflows

    each = max(at.size, 3) * targets[0].size
    items = (params, which, numbers)
    if each * which.shape[0] <= _AT_ONCE:
        return jax.vmap(one)(items)
    return lax.map(one, items, batch_size=max(_AT_ONCE // each, 1))


@functools.partial(jax.jit, static_argnames=("rule", "structure", "epochs", "dtype"))
def by_reduction(
    columns: Any,
    targets: Any,
    trainings: Trainings,
    scale: Any,
    at: Any,
    *,
    rule: Rule,
    structure: Any,
    epochs: int,
    dtype: Any,
) -> tuple[Any, Any, Any]:
    """The compressed plan: parameters, losses, and where a loop in the model's dtype could overflow."""

    def one(training: Trainings) -> Any:
        kernel, bias = training.params["kernel"], training.params.get("bias")
        own = columns if columns.ndim == 2 else columns[training.target]
        problem = least_squares.problem(own, targets[training.target], kernel, bias, scale[training.target])
        params, (losses, *_), overflow = compressed.steps(
            problem,
            optimizer=rule.optimizer(training.values),
            structure=structure,
            epochs=epochs,
            record=frozenset(),
            largest=float(np.finfo(dtype).max),
        )
        return jax.tree.map(lambda leaf: leaf.astype(dtype), (params, losses[at])), overflow

    (params, losses), overflow = jax.vmap(one)(trainings)
    return params, losses, overflow


@functools.partial(jax.jit, static_argnames=("rule",))
def started(trainings: Trainings, rule: Rule) -> Any:
    """The optimizers' states before the first step."""
    return jax.vmap(lambda t: optax_step.begin(rule.optimizer(t.values), t.params))(trainings)


def _step_of(training: Trainings, data: Data, rule: Rule) -> Callable[[Any], Any]:
    """One training's step: of what the last one left, what it leaves itself, and what is kept of it."""
    step = one_step(rule.graph, rule.optimizer(training.values), rule.loss, frozenset())
    given = {name: leaf for name, leaf in data._asdict().items() if leaf is not None}
    apart = rule.grouped
    own = Data(*(leaf if name != "targets" and not apart else leaf[training.target] for name, leaf in given.items()))
    return lambda carry: step(carry, own)


@functools.partial(jax.jit, static_argnames=("rule", "count"))
def advance(
    trainings: Trainings, rest: Any, state: Any, data: Data, *, rule: Rule, count: int
) -> tuple[Any, Any, Any, Any]:
    """``count`` steps of the loop.

    ``data`` has a list of targets; of inputs and weights too, where they are not the same for all.

    Returns:
        Parameters, the rest of the models' state, the optimizers' states, and the losses before each step.
    """

    def one(training: Trainings, rest: Any, state: Any) -> Any:
        step = _step_of(training, data, rule)

        def body(carry: Any, _: Any) -> Any:
            after, (value, *_) = step(carry)
            return after, value

        carry, losses = scan(body, (training.params, rest, state), length=count)
        return *carry, losses

    return jax.vmap(one)(trainings, rest, state)


@functools.partial(jax.jit, static_argnames=("rule",))
def _onwards(
    trainings: Trainings, carry: Any, kept: after_overflow.Kept, left: Any, data: Data, *, rule: Rule
) -> tuple[Any, after_overflow.Kept, Any]:
    def one(training: Trainings, carry: Any, kept: after_overflow.Kept, left: Any, number: Any) -> Any:
        return after_overflow.block(_step_of(training, data, rule), carry, kept, number, left)

    def all_(carry: Any, kept: after_overflow.Kept, number: Any) -> Any:
        return jax.vmap(one, (0, 0, 0, 0, None))(trainings, carry, kept, left, number)

    return after_overflow.through(all_, carry, kept, left)


def to_the_end(
    trainings: Trainings, rest: Any, state: Any, begin: Array, epochs: int, data: Data, rule: Rule, asked: Array
) -> tuple[Any, Array]:
    """The end of trainings that overflow, each from its step ``begin`` on, in the model's own dtype.

    Returns:
        Parameters, and the losses before the steps ``asked``, which ascend; NaN where a training did not come to them.
    """
    carry = (trainings.params, rest, state)
    one = jax.tree.map(lambda leaf: leaf[0], (trainings, carry))
    shapes = jax.eval_shape(lambda training, carry: _step_of(training, data, rule)(carry)[1], *one)
    seen = after_overflow.nothing_seen(shapes, (len(begin), len(asked)))
    done, left = 0, epochs - begin
    while (left > 0).any():
        near, place = (
            np.stack(each) for each in zip(*(after_overflow.relative(asked, b + done) for b in begin), strict=True)
        )
        some = np.clip(left, 0, after_overflow.CALL).astype(np.int32)
        carry, (_, _, seen), lost = _onwards(
            trainings, carry, after_overflow.Kept(near, place, seen), some, data, rule=rule
        )
        done, left = done + after_overflow.CALL, np.where(np.asarray(lost), 0, left - some)
    return optax_step.trained(carry[0], carry[2]), np.asarray(seen[0])[:, : len(asked)]


def put(all_: Any, some: Any, where: Array) -> Any:
    """``all_`` with the leaves of ``some``, which come in the same order, put in at these places."""
    leaves = [
        jnp.asarray(old).at[where].set(jnp.asarray(new, old.dtype))
        for old, new in zip(jax.tree.leaves(all_), jax.tree.leaves(some), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(all_), leaves)


def repeated(tree: Any, count: int) -> Any:
    """Every leaf ``count`` times over, along a new leading axis."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape)), tree)
