"""What float64's roundings do to a step of a deep model, from samples, where their worst case says nothing any more.

The worst case is carried from operation to operation as if every rounding pointed the same way: after a few layers of
sums over hundreds of terms it exceeds the values themselves, even in float64, whose actual errors are 1e12 times
smaller. A wrong program would then pass for a rounded one. So where the worst case is that loose, the step is run with
errors drawn at random in every operation, and two float64 programs have to agree within a multiple of what that does.
Likewise for a training on its own: where its worst case ends, it is run again with weights and gradients a little off.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parity._types import PyTree, Scalar
from parity.recording.recording import Array, Recording, Trace
from parity.replay import scan_loop
from parity.replay.batches import Parts
from parity.replay.locked_inputs import StepArguments
from parity.replay.session import Session
from parity.rounding import drawn

# Relative to a tensor's largest element at any step: a worst case beyond this would let a wrong constant pass.
LOOSE_RELATIVE_BOUND = 2.0**-30
_SAMPLE_COUNT = 3
# Errors are drawn this large, so that float64's own do not blur them, and scaled down to its unit roundoff: a step's
# response to them is linear.
_DRAWN_UNIT_ROUNDOFF, _FLOAT64_UNIT_ROUNDOFF = 2.0**-40, 2.0**-53
# A normal number is beyond 6.7 deviations once in 5e10, and three are all within 6.7 / _SAFETY_FACTOR of zero, where
# they would say too little, once in 5e8: even a single number, such as the loss, raises a false alarm no more often.
_SAFETY_FACTOR = 4096.0
_TRACE_FIELDS = ("predictions", "losses", "gradients", "buffers")


def loose(bounds: Trace, recording: Recording) -> tuple[str, ...]:
    """Return the fields of a locked trace some of whose worst cases say too little."""
    return tuple(field for field in _TRACE_FIELDS if _is_loose(getattr(bounds, field), _exact(recording, field)))


def _exact(recording: Recording, field: str) -> PyTree:
    values = getattr(recording.arbiter_locked, field)
    return values[recording.kept] if field == "losses" else values


def _is_loose(bounds: PyTree, exact: PyTree) -> bool:
    """Return whether a worst case is large beside what its tensor ever is, not only once it has converged."""
    pairs = zip(_by_tensor(bounds), _by_tensor(exact), strict=True)
    return any(max(map(_largest, worst)) > LOOSE_RELATIVE_BOUND * max(map(_largest, values)) for worst, values in pairs)


def _by_tensor(values: PyTree) -> list[list[Array]]:
    """Return each tensor with its values at all steps; predictions are a tree a step, all else has an axis for them."""
    if isinstance(values, tuple):
        return [list(leaves) for leaves in zip(*map(jax.tree.leaves, values), strict=True)]
    return [[np.asarray(leaf)] for leaf in jax.tree.leaves(values)]


def _largest(values: Array) -> float:
    return float(np.max(np.abs(values), initial=0.0, where=~np.isnan(values)))


def cap_by_samples(bounds: Trace, session: Session, arguments: Iterable[StepArguments], *, quick: bool) -> Trace:
    """Return the bounds on locked float64 steps, none larger than what samples show.

    Args:
        bounds: the worst case.
        session: the port and the recording.
        arguments: of every kept step, as :func:`parity.replay.locked_inputs.arguments` gives them.
        quick: whether there is so little to compute that it is compiled to slower code in less time.
    """

    def step(parts: Parts, weights: PyTree, buffers: PyTree, batch: PyTree) -> PyTree:
        state = session.model_state(buffers, weights)
        made = session.step.forward_backward(session.names.to_port(weights), state, batch, parts)
        named = session.names.from_port(made.gradients), session.named_buffers(made.model)
        return made.predictions, made.loss, *named

    def once(unit: Scalar, seed: Scalar, given: PyTree, parts: Parts) -> PyTree:
        return drawn(functools.partial(step, parts), unit=unit, seed=seed)(*given)

    compiled = jax.jit(once, static_argnums=3, compiler_options=scan_loop.quick_options() if quick else None)
    rows = [
        _spread(lambda unit, seed: compiled(unit, seed, (start.weights, start.buffers, batch), parts))  # noqa: B023
        for _, start, batch, parts in arguments
    ]
    predictions, losses, gradients, model = zip(*rows, strict=True)
    return dataclasses.replace(
        bounds,
        predictions=tuple(jax.tree.map(_capped, bounds.predictions[row], predictions[row]) for row in range(len(rows))),
        losses=np.minimum(bounds.losses, np.array(losses)),
        gradients={name: _capped(bound, [row[name] for row in gradients]) for name, bound in bounds.gradients.items()},
        buffers={name: _capped(bound, [row[name] for row in model]) for name, bound in bounds.buffers.items()},
    )


def _spread(run: Callable[[float, int], PyTree]) -> PyTree:
    """Return the most that samples move any element of each tensor, times what makes that a bound."""
    exact = run(0.0, 0)
    samples = [run(_DRAWN_UNIT_ROUNDOFF, seed) for seed in range(1, 1 + _SAMPLE_COUNT)]
    share = _SAFETY_FACTOR * _FLOAT64_UNIT_ROUNDOFF / _DRAWN_UNIT_ROUNDOFF

    def most(value: jax.Array, *others: jax.Array) -> float:
        gaps = [float(jnp.abs(other - value).max(initial=0.0)) for other in others]
        # What is not finite is not sampled.
        return share * max(gaps) if np.isfinite(gaps).all() else np.inf

    return jax.tree.map(most, exact, *samples)


def _capped(bounds: Array, limits: PyTree) -> Array:
    limit = np.asarray(limits, np.float64)
    return np.minimum(bounds, limit.reshape(limit.shape + (1,) * (bounds.ndim - limit.ndim)))


def cap_by_perturbed_run(bounds: Trace, locked: Trace, exact: Trace, session: Session) -> Trace:
    """Return the bounds on a float64 training on its own, none larger than what a shadow of it shows.

    Args:
        bounds: the worst case.
        locked: the bounds on locked float64 steps, by which the shadow's gradients are moved.
        exact: the training.
        session: the port and the recording.
    """
    port, names = session.port, session.names
    rng = np.random.default_rng(0)

    def moved(name: str, values: PyTree) -> Array:
        first = np.asarray(values, np.float64)
        size = max(_largest(first), _largest(exact.weights[name]))
        return first + _DRAWN_UNIT_ROUNDOFF * size * rng.choice([-1.0, 1.0], first.shape)

    weights = {name: moved(name, values) for name, values in names.from_port(port.params).items()}
    noise = {name: _largest(values) for name, values in locked.gradients.items()}
    # In the shadow errors are as many times larger as what comes of them is made smaller again.
    times = _SAFETY_FACTOR * _FLOAT64_UNIT_ROUNDOFF / _DRAWN_UNIT_ROUNDOFF
    sizes = {name: np.full(values.shape, noise[name] / times) for name, values in weights.items()}
    shadow = dataclasses.replace(
        port, params=names.to_port(weights), optimizer=_noisy(port.optimizer, names.to_port(sizes))
    )
    other, _ = scan_loop.free(session.with_port(shadow), np.dtype(float))

    def reach(one: Array, two: Array, worst: Array, own: float = 0.0) -> Array:
        with np.errstate(invalid="ignore"):
            gaps = np.abs(one - two).reshape(len(one), -1).max(1, initial=0.0)
        # What a training was once moved by may come back.
        furthest = np.maximum.accumulate(np.where(np.isfinite(gaps), gaps, np.inf)) * times
        return _capped(worst, furthest + own)

    def all_of(field: str, own: dict[str, float]) -> dict[str, Array]:
        ours, theirs, worst = (getattr(trace, field) for trace in (exact, other, bounds))
        return {name: reach(ours[name], theirs[name], worst[name], own.get(name, 0.0)) for name in worst}

    return dataclasses.replace(
        bounds,
        losses=reach(exact.losses, other.losses, bounds.losses, _largest(locked.losses)),
        gradients=all_of("gradients", noise),
        weights=all_of("weights", {}),
    )


def _noisy(optimizer: optax.GradientTransformation, sizes: PyTree) -> optax.GradientTransformation:
    """Return the optimizer, fed gradients that are off by ``sizes``, up or down as it falls at each step."""

    def update(gradients: PyTree, state: PyTree, params: PyTree = None) -> PyTree:
        inner, step = state
        leaves: list[Any]
        tree: PyTree
        leaves, tree = jax.tree.flatten(gradients)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), len(leaves))
        off = [
            leaf + size * jax.random.rademacher(key, leaf.shape, leaf.dtype)
            for leaf, size, key in zip(leaves, jax.tree.leaves(sizes), keys, strict=True)
        ]
        moved, inner = optimizer.update(tree.unflatten(off), inner, params)
        return moved, (inner, step + 1)

    return optax.GradientTransformation(lambda params: (optimizer.init(params), jnp.zeros((), np.int32)), update)
