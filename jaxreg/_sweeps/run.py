"""Running many trainings at once, each plan in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int32, Int64

from jaxreg._nn.linear_params import LayerParams, like, named, unstack_tree
from jaxreg._optim import optax_step
from jaxreg._optim.settings import Settings, as_in
from jaxreg._optim.sgd import MomentumState, PyTorchSGD, sgd
from jaxreg._plans.overflow_search import find_overflow_step
from jaxreg._plans.request import Request
from jaxreg._plans.solver_device import on_solver_device, to_device_of, to_solver_device
from jaxreg._plans.spectral import LARGEST_COUNT, with_momentum
from jaxreg._plans.training_step import Data
from jaxreg._statistics.gram_root import gram_root
from jaxreg._sweeps import vectorized
from jaxreg._sweeps.vectorized import Rule, Trainings
from jaxreg._types import AnyArray, Array, HostArray, Optimizer, OptState, Params, RestState
from jaxreg._validation import is_number

_Values = Mapping[str, HostArray]


class SweepSpec(NamedTuple):
    """What the trainings of a sweep differ in.

    Attributes:
        settings: the optimizer's, of each.
        make: makes the optimizer of them.
        starts: parameters with a leading axis for the trainings.
        which: the number of each one's targets among ``choices``.
        choices: the targets.
        groups: rows of each training's own, with a leading axis for them; ``None`` where all have the same.
    """

    settings: list[dict[str, object]]
    make: Callable[..., Optimizer]
    starts: Params
    which: Int32[HostArray, " trainings"]
    choices: list[AnyArray]
    groups: Data | None = None


class SweepOutcome(NamedTuple):
    """Parameters, the rest of the model's state and losses, each with a leading axis for the trainings."""

    params: Params
    rest: RestState
    losses: Array


class _Overflows(NamedTuple):
    """The trainings that overflow, by number: from which step on, and what they bring to it."""

    numbers: Int64[HostArray, " n"]
    begin: Int64[HostArray, " n"]
    params: Params
    state: Callable[[Trainings, Rule, HostArray], OptState]


def run(plan: str, request: Request, sweep: SweepSpec) -> SweepOutcome:
    """Make all trainings by the plan of that name, which is one of :data:`RUNNERS`."""
    return RUNNERS[plan](request, sweep)


def _same_program(request: Request, sweep: SweepSpec, among: HostArray) -> Iterator[tuple[HostArray, Rule, _Values]]:
    """Yield trainings whose steps are one program: their numbers, its rule, and the settings that are numbers."""
    names = list(sweep.settings[0])
    numeric = [name for name in names if all(is_number(one[name]) for one in sweep.settings)]
    groups: dict[tuple[tuple[str, object], ...], list[int]] = {}
    for number in among.tolist():
        one = sweep.settings[number]
        groups.setdefault(tuple((n, one[n]) for n in names if n not in numeric), []).append(number)
    for fixed, members in groups.items():
        rule = Rule(request.split[0], request.loss, sweep.make, fixed, sweep.groups is not None)
        values = {n: np.array([sweep.settings[k][n] for k in members], request.dtype) for n in numeric}
        yield np.array(members), rule, values


def _data(request: Request, sweep: SweepSpec) -> Data:
    """Return the data in the dtype of the parameters, with a list of targets; of inputs and weights too for groups."""
    if sweep.groups is not None:
        groups: Data = jax.tree.map(lambda leaf: jnp.asarray(leaf, request.dtype), sweep.groups)
        return groups
    inputs, _, weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, request.dtype), request.data)
    return Data(inputs, jnp.stack([jnp.asarray(y, request.dtype) for y in sweep.choices]), weights)


def _run_stepwise(request: Request, sweep: SweepSpec) -> SweepOutcome:
    count = len(sweep.settings)
    params, rest = sweep.starts, vectorized.repeat(request.split[2], count)
    starts, losses = (params, rest), jnp.zeros((count, len(request.asked)), request.dtype)
    data = _data(request, sweep)
    for members, rule, values in _same_program(request, sweep, np.arange(count)):
        own, own_rest = jax.tree.map(lambda leaf, m=members: leaf[m], starts)
        trainings = vectorized.spread(Trainings(own, sweep.which[members], values))
        state = vectorized.initial_states(trainings, rule)
        done = vectorized.advance(trainings, own_rest, state, data, rule=rule, count=request.epochs)
        ends = optax_step.trained(done[0], done[2])
        params, rest = vectorized.put((params, rest), (ends, done[1]), members)
        losses = losses.at[members].set(done[3][:, request.asked].astype(losses.dtype))
    return SweepOutcome(params, rest, losses)


def _root(
    request: Request, sweep: SweepSpec
) -> tuple[Float64[Array, "*groups m inputs_and_one"], Float64[Array, "choices m outputs"]]:
    """Return a root of the cross-products of ``[inputs 1]`` and of all targets, these by target; both by group."""
    if sweep.groups is not None:
        roots = vectorized.roots(sweep.groups, request.dtype.name)
        return roots[:, :, : -request.outputs], roots[:, :, -request.outputs :]
    inputs, _, weights = request.data
    side_by_side = (np if all(isinstance(y, np.ndarray) for y in sweep.choices) else jnp).concatenate(sweep.choices, 1)
    root = gram_root(inputs, side_by_side, weights, dtype=request.dtype)
    own = inputs.shape[1] + 1
    return root[:, :own], jnp.moveaxis(root[:, own:].reshape(root.shape[0], len(sweep.choices), -1), 1, 0)


def _scales(request: Request, sweep: SweepSpec) -> Float64[HostArray, " trainings"]:
    """Return what the sum of squared errors is multiplied with in each training."""
    weights = None if sweep.groups is None else sweep.groups.weights
    if weights is None or request.squared_error != "mean":
        return np.full(len(sweep.settings), request.loss_scale)
    scales: HostArray = 1 / (np.asarray(weights, np.float64).sum(1) * request.outputs)
    return scales


def _settings(request: Request, sweep: SweepSpec) -> Float64[HostArray, "trainings settings"]:
    """Return what :func:`sgd` was given for each training, as a loop in the model's dtype uses it."""
    # The groups have one optimizer between them.
    each = sweep.settings if sweep.groups is None else sweep.settings[:1]
    given = as_in(request.dtype, *np.array([_settings_of(sweep.make, one) for one in each], np.float64).T)
    return np.broadcast_to(np.stack(np.broadcast_arrays(*given), 1), (len(sweep.settings), len(given)))


def _settings_of(make: Callable[..., Optimizer], given: dict[str, object]) -> Settings:
    """Return the settings of an optimizer; of :func:`sgd`'s without making it, since a sweep may have thousands."""
    if make is sgd:
        return Settings(**given)
    made = make(**given)
    if not isinstance(made, PyTorchSGD):
        raise TypeError(f"there is no closed form for {made!r}")
    return made.settings


def _run_spectral(request: Request, sweep: SweepSpec) -> SweepOutcome:
    settings, first = _settings(request, sweep), jax.tree.leaves(sweep.starts)[0]
    steps = np.full((len(sweep.settings), 1), float(request.epochs))
    numbers = np.concatenate([settings, _scales(request, sweep)[:, None], steps], 1)
    leaves = named(sweep.starts)
    starts = LayerParams(leaves["kernel"], leaves.get("bias"))
    with jax.enable_x64(True):
        columns, targets = to_solver_device(_root(request, sweep))
        with on_solver_device():
            starts = to_solver_device(starts)
            items = vectorized.spread((starts, jnp.asarray(sweep.which), jnp.asarray(numbers)))
            at, momentum = jnp.asarray(request.asked, jnp.float64), bool(settings[:, 1].any())
            found, losses, over = vectorized.spectral_batch(columns, targets, *items, at, momentum=momentum)
        gone = np.flatnonzero(np.asarray(over))
        found, losses = to_device_of(first, (found, losses))
        params = like(jax.tree.structure(sweep.starts), found)
        if not gone.size:
            return SweepOutcome(params, vectorized.repeat(request.split[2], len(settings)), losses)
        own = columns if columns.ndim == 2 else columns[gone]
        layers = jax.tree.map(lambda leaf: leaf[gone], starts)
        before = find_overflow_step(own, targets[sweep.which[gone]], layers, numbers[gone])
        step, coefficients, velocity = to_device_of(first, before)

    def rounded(coefficients: Array) -> Params:
        return unstack_tree(coefficients.astype(request.dtype), jax.tree.structure(sweep.starts))

    def state(trainings: Trainings, rule: Rule, places: HostArray) -> OptState:
        count = jnp.asarray(np.minimum(step[places], LARGEST_COUNT), jnp.int32)
        buffer = MomentumState(count, rounded(velocity[places]))
        return with_momentum(vectorized.initial_states(trainings, rule), buffer)

    return _continue(request, sweep, params, losses, _Overflows(gone, step, rounded(coefficients), state))


def _run_compressed(request: Request, sweep: SweepSpec) -> SweepOutcome:
    count, first = len(sweep.settings), jax.tree.leaves(sweep.starts)[0]
    params, losses = sweep.starts, jnp.zeros((count, len(request.asked)), request.dtype)
    steps, before = np.zeros(count, np.int64), sweep.starts
    states: dict[Rule, tuple[dict[int, int], OptState]] = {}
    with jax.enable_x64(True):
        columns, targets = to_solver_device(_root(request, sweep))
        for members, rule, values in _same_program(request, sweep, np.arange(count)):
            wide = {name: leaf.astype(np.float64) for name, leaf in values.items()}
            start = named(jax.tree.map(lambda leaf, m=members: leaf[m], sweep.starts))
            with on_solver_device():
                done = vectorized.compressed_batch(
                    columns,
                    targets,
                    vectorized.spread(Trainings(to_solver_device(start), sweep.which[members], wide)),
                    _scales(request, sweep),
                    request.asked,
                    rule=rule,
                    structure=request.structure,
                    epochs=request.epochs,
                    dtype=request.dtype,
                )
            found, kept, (step, (then, state)) = to_device_of(first, done)
            params, before = vectorized.put((params, before), (found, then), members)
            losses, steps[members] = losses.at[members].set(kept), np.asarray(step)
            states[rule] = dict(zip(members.tolist(), range(len(members)), strict=True)), state
    gone = np.flatnonzero(steps < request.epochs)
    if not gone.size:
        return SweepOutcome(params, vectorized.repeat(request.split[2], count), losses)

    def state_of(trainings: Trainings, rule: Rule, places: HostArray) -> OptState:
        where, state = states[rule]
        rows = np.array([where[number] for number in gone[places].tolist()])
        shapes = jax.eval_shape(lambda: vectorized.initial_states(trainings, rule))
        found: OptState = jax.tree.map(lambda leaf, shape: jnp.asarray(leaf[rows], shape.dtype), state, shapes)
        return found

    starts = jax.tree.map(lambda leaf: leaf[gone], before)
    return _continue(request, sweep, params, losses, _Overflows(gone, steps[gone], starts, state_of))


def _continue(request: Request, sweep: SweepSpec, params: Params, losses: Array, overflows: _Overflows) -> SweepOutcome:
    """Return the outcome with what a loop in the model's dtype does from where it could overflow."""
    changed, asked = np.array(losses), request.asked
    each, back = np.unique(asked, return_inverse=True)
    data, rest = _data(request, sweep), request.split[2]
    for members, rule, values in _same_program(request, sweep, overflows.numbers):
        places = np.searchsorted(overflows.numbers, members)
        begin = overflows.begin[places]
        own = jax.tree.map(lambda leaf, p=places: jnp.asarray(leaf[p], request.dtype), overflows.params)
        trainings = Trainings(own, sweep.which[members], values)
        state, others = overflows.state(trainings, rule, places), vectorized.repeat(rest, len(members))
        last, later = vectorized.run_after_overflow(trainings, others, state, begin, request.epochs, data, rule, each)
        params = vectorized.put(params, last, members)
        changed[members] = np.where(asked[None] < begin[:, None], changed[members], later[:, back])
    return SweepOutcome(params, vectorized.repeat(rest, len(sweep.settings)), jnp.asarray(changed))


# How each plan makes many trainings at once, by its name; other plans make one at a time, and no sweep takes them.
RUNNERS: Mapping[str, Callable[[Request, SweepSpec], SweepOutcome]] = {
    "stepwise": _run_stepwise,
    "compressed": _run_compressed,
    "spectral": _run_spectral,
}
