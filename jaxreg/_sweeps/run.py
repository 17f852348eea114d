"""Running many trainings by the plan that was chosen for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxreg._optim import optax_step
from jaxreg._optim.settings import Settings, as_in
from jaxreg._optim.sgd import MomentumState, sgd
from jaxreg._plans import overflow_search
from jaxreg._plans.stepwise import Data
from jaxreg._statistics import gram_root
from jaxreg._sweeps import vectorized
from jaxreg._sweeps.vectorized import Rule, Trainings
from jaxreg._training import plan_choice, tpu_offload
from jaxreg._training.request import Request
from jaxreg._validation import is_number

Array = np.ndarray[Any, Any]


class Many(NamedTuple):
    """What the trainings of a sweep differ in.

    Attributes:
        settings: the optimizer's, of each.
        make: makes the optimizer of them.
        starts: parameters with a leading axis for the trainings.
        which: the number of each one's targets among ``choices``.
        choices: the targets.
        groups: rows of each training's own, with a leading axis for them; ``None`` where all have the same.
    """

    settings: list[dict[str, Any]]
    make: Callable[..., Any]
    starts: Any
    which: Array
    choices: list[Any]
    groups: Data | None = None


class _Ends(NamedTuple):
    """The trainings that overflow, by number: from which step on, and what they bring to it."""

    numbers: Array
    begin: Array
    params: Any
    state: Callable[[Trainings, Rule, Array], Any]


def run(plan: str, request: Request, many: Many) -> tuple[Any, Any, Any]:
    """Parameters, the rest of the model's state and losses, each with a leading axis for the trainings."""
    if plan == "stepwise":
        return _stepwise(request, many)
    params, losses, ends = (_spectral if plan == "spectral" else _compressed)(request, many)
    rest = vectorized.repeated(request.split[2], len(many.settings))
    if ends is not None:
        params, losses = _followed(request, many, params, losses, ends)
    return params, rest, losses


def _groups(many: Many, request: Request, among: Array, dtype: Any) -> Iterator[tuple[Array, Rule, Any]]:
    """Trainings whose steps are one program: their numbers, the program's rule, and settings that are numbers."""
    names = list(many.settings[0])
    numeric = [name for name in names if all(is_number(one[name]) for one in many.settings)]
    groups: dict[Any, list[int]] = {}
    for number in among.tolist():
        one = many.settings[number]
        groups.setdefault(tuple((n, one[n]) for n in names if n not in numeric), []).append(number)
    for fixed, members in groups.items():
        rule = Rule(request.split[0], request.loss, many.make, fixed, many.groups is not None)
        yield np.array(members), rule, {n: np.array([many.settings[k][n] for k in members], dtype) for n in numeric}


def _data(request: Request, many: Many) -> Data:
    """The data in the dtype of the parameters, with a list of targets; of inputs and weights too for groups."""
    if many.groups is not None:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, request.dtype), many.groups)
    assert request.data is not None
    inputs, _, weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, request.dtype), request.data)
    return Data(inputs, jnp.stack([jnp.asarray(y, request.dtype) for y in many.choices]), weights)


def _stepwise(request: Request, many: Many) -> tuple[Any, Any, Any]:
    rest = vectorized.repeated(request.split[2], len(many.settings))
    params, losses = many.starts, jnp.zeros((len(many.settings), len(_at(request))), request.dtype)
    data = _data(request, many)
    for members, rule, values in _groups(many, request, np.arange(len(many.settings)), request.dtype):
        own, own_rest = jax.tree.map(lambda leaf, m=members: leaf[m], (many.starts, rest))
        trainings = vectorized.spread(Trainings(own, many.which[members], values))
        state = vectorized.started(trainings, rule)
        done = vectorized.advance(trainings, own_rest, state, data, rule=rule, count=request.epochs)
        ends = optax_step.trained(done[0], done[2])
        params, rest = vectorized.put((params, rest), (ends, done[1]), members)
        losses = losses.at[members].set(done[3][:, _at(request)].astype(losses.dtype))
    return params, rest, losses


def _at(request: Request) -> Array:
    assert request.at is not None
    return request.at


def _named(params: Any) -> dict[str, Any]:
    """A linear layer's parameters by name; its leaves come in the order of their names."""
    *bias, kernel = jax.tree.leaves(params)
    return {"kernel": kernel, **({"bias": bias[0]} if bias else {})}


def _like(tree: Any, params: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(params))


def _root(request: Request, many: Many) -> tuple[Any, Any]:
    """A root of the cross-products of ``[inputs 1]`` and of all targets, these by target; for groups both by group."""
    if many.groups is not None:
        root = vectorized.roots(many.groups, request.dtype.name)
        return root[:, :, : -request.outputs], root[:, :, -request.outputs :]
    assert request.data is not None
    inputs, _, weights = request.data
    beside = np.concatenate if all(isinstance(y, np.ndarray) for y in many.choices) else jnp.concatenate
    root = gram_root.root(inputs, beside(many.choices, 1), weights, dtype=request.dtype)
    own = inputs.shape[1] + 1
    return root[:, :own], jnp.moveaxis(root[:, own:].reshape(root.shape[0], len(many.choices), -1), 1, 0)


def _scales(request: Request, many: Many) -> Array:
    """What the sum of squared errors is multiplied with in each training."""
    weights = None if many.groups is None else many.groups.weights
    if weights is None or not plan_choice.is_mean(request):
        return np.full(len(many.settings), plan_choice.scale(request))
    return 1 / (np.asarray(weights, np.float64).sum(1) * request.outputs)


def _settings(request: Request, many: Many) -> Float64[Array, "trainings settings"]:
    """What :func:`sgd` was given for each training, as a loop in the model's dtype uses it."""
    # The groups have one optimizer between them.
    each = many.settings if many.groups is None else many.settings[:1]
    of: Any = Settings if many.make is sgd else lambda **one: many.make(**one).settings
    given = as_in(request.dtype, *np.array([of(**one) for one in each], np.float64).T)
    return np.broadcast_to(np.stack(np.broadcast_arrays(*given), 1), (len(many.settings), len(given)))


def _spectral(request: Request, many: Many) -> tuple[Any, Any, _Ends | None]:
    settings = _settings(request, many)
    steps = np.full((len(many.settings), 1), float(request.epochs))
    numbers, starts = np.concatenate([settings, _scales(request, many)[:, None], steps], 1), _named(many.starts)
    with jax.enable_x64(True):
        columns, targets = tpu_offload.brought(_root(request, many))
        with tpu_offload.working():
            starts = tpu_offload.brought(starts)
            items = vectorized.spread((starts, jnp.asarray(many.which), jnp.asarray(numbers)))
            at = jnp.asarray(_at(request), np.float64)
            params, losses, over = vectorized.by_modes(
                columns, targets, *items, at, momentum=bool(settings[:, 1].any())
            )
        gone = np.flatnonzero(np.asarray(over))
        params, losses = tpu_offload.returned((params, losses), jax.tree.leaves(many.starts)[0])
        if not gone.size:
            return _like(many.starts, params), losses, None
        few = jax.tree.map(lambda leaf: leaf[gone], starts)
        own = columns if columns.ndim == 2 else columns[gone]
        found = overflow_search.search(own, targets[many.which[gone]], few["kernel"], few.get("bias"), numbers[gone])
        found = tpu_offload.returned(found, jax.tree.leaves(many.starts)[0])

    def state(trainings: Trainings, rule: Rule, places: Array) -> Any:
        velocity = _coefficients(found.velocity[places], many.starts, request.dtype)
        buffer = MomentumState(np.minimum(found.step[places], 2**30).astype(np.int32), velocity)
        return jax.tree.map(
            lambda part: buffer if isinstance(part, MomentumState) else part,
            vectorized.started(trainings, rule),
            is_leaf=lambda part: isinstance(part, MomentumState),
        )

    before = _coefficients(found.coefficients, many.starts, request.dtype)
    return _like(many.starts, params), losses, _Ends(gone, found.step, before, state)


def _coefficients(found: Any, starts: Any, dtype: Any) -> Any:
    """Parameters like ``starts`` of coefficients, kernel over bias."""
    kernel = len(jax.tree.leaves(starts)) == 1
    parts = [found] if kernel else [found[:, -1], found[:, :-1]]
    return _like(starts, [part.astype(dtype) for part in parts])


def _compressed(request: Request, many: Many) -> tuple[Any, Any, _Ends | None]:
    params, losses = many.starts, jnp.zeros((len(many.settings), len(_at(request))), request.dtype)
    steps, before, states = np.zeros(len(many.settings), np.int64), many.starts, {}
    with jax.enable_x64(True):
        columns, targets = tpu_offload.brought(_root(request, many))
        for members, rule, values in _groups(many, request, np.arange(len(many.settings)), request.dtype):
            values = {name: leaf.astype(np.float64) for name, leaf in values.items()}
            start = _named(jax.tree.map(lambda leaf, m=members: leaf[m], many.starts))
            with tpu_offload.working():
                trainings = vectorized.spread(Trainings(tpu_offload.brought(start), many.which[members], values))
                done = vectorized.by_reduction(
                    columns,
                    targets,
                    trainings,
                    _scales(request, many),
                    _at(request),
                    rule=rule,
                    structure=jax.tree.structure(request.split[1]),
                    epochs=request.epochs,
                    dtype=request.dtype,
                )
            found, kept, (step, (then, state)) = tpu_offload.returned(done, jax.tree.leaves(many.starts)[0])
            params, before = vectorized.put((params, before), (found, then), members)
            losses, steps[members] = losses.at[members].set(kept), np.asarray(step)
            states[rule] = dict(zip(members.tolist(), range(len(members)), strict=True)), state
    gone = np.flatnonzero(steps < request.epochs)
    if not gone.size:
        return params, losses, None

    def state_of(trainings: Trainings, rule: Rule, places: Array) -> Any:
        where, state = states[rule]
        rows = np.array([where[number] for number in gone[places].tolist()])
        shapes = jax.eval_shape(lambda: vectorized.started(trainings, rule))
        return jax.tree.map(lambda leaf, shape: jnp.asarray(leaf[rows], shape.dtype), state, shapes)

    return params, losses, _Ends(gone, steps[gone], jax.tree.map(lambda leaf: leaf[gone], before), state_of)


def _followed(request: Request, many: Many, params: Any, losses: Any, ends: _Ends) -> tuple[Any, Any]:
    """Parameters and losses with what a loop in the model's dtype does from where it could overflow."""
    losses, asked = np.array(losses), _at(request)
    each, back = np.unique(asked, return_inverse=True)
    data, rest = _data(request, many), request.split[2]
    for members, rule, values in _groups(many, request, ends.numbers, request.dtype):
        places = np.searchsorted(ends.numbers, members)
        begin = ends.begin[places]
        own = jax.tree.map(lambda leaf, p=places: jnp.asarray(leaf[p], request.dtype), ends.params)
        trainings = Trainings(own, many.which[members], values)
        state, others = ends.state(trainings, rule, places), vectorized.repeated(rest, len(members))
        last, later = vectorized.to_the_end(trainings, others, state, begin, request.epochs, data, rule, each)
        params = vectorized.put(params, last, members)
        losses[members] = np.where(asked[None] < begin[:, None], losses[members], later[:, back])
    return params, jnp.asarray(losses)
