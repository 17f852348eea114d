"""Optimizer state that a port keeps in another convention: PyTorch's times a constant, such as the learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import optax

from parity.bounds import derive
from parity.bounds.derive import Bounds
from parity.judging import judge
from parity.judging.finding import Finding
from parity.porting import optax_state
from parity.recording.recording import Array, Recording, Tree
from parity.replay.replay import Replay, relocked
from parity.replay.session import Session

Factors = Mapping[str, Mapping[str, float]]
# A factor is the ratio of two float64 states, each made by a few roundings: so many units in the last place.
_FACTOR_TOLERANCE = 16 * float(np.finfo(np.float64).eps)


def settled(
    session: Session, replayed: Replay, bounds: Bounds, findings: Sequence[Finding]
) -> tuple[Replay, Bounds, tuple[Finding, ...]]:
    """Return replay, bounds and findings, with the port's optimizer state in PyTorch's convention if all holds so.

    What is trained are weights: where only the optimizer's stages fail, and the port's state after the first step is
    PyTorch's times a number a tensor, its steps are replayed from PyTorch's state times that number. Where everything
    holds then, at every step, the two are the same training. Where anything does not, all stays as it was.
    """
    recording = session.recording
    failing = {finding.stage for finding in findings if not finding.holds}
    unchanged = replayed, bounds, tuple(findings)
    if not failing or not failing <= {"optimizer state", "update"} or len(recording.kept) < 2:
        return unchanged
    factors, spread = _state_factors(recording, replayed)
    if all(factor == 1 for some in factors.values() for factor in some.values()):
        return unchanged
    scaled = adapted(session, factors)
    again = dataclasses.replace(relocked(scaled, replayed), conventions=factors)
    limits = derive.derive(scaled, replayed.free64, doubt=2 * spread + _FACTOR_TOLERANCE)
    found = judge.judge(recording, again, limits)
    return (again, limits, found) if all(finding.holds for finding in found) else unchanged


def adapted(session: Session, factors: Factors) -> Session:
    """Return a session of the same port, with an optimizer that takes and gives its state as PyTorch keeps it."""
    if not factors:
        return session
    port, names, initial = session.port, session.names, session.recording.initial
    trees = {
        key: names.to_port({name: np.full(like.shape, some.get(name, 1.0)) for name, like in initial.items()})
        for key, some in factors.items()
    }
    optimizer = _Scaled(port.optimizer, trees)
    chain = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    return session.with_port(dataclasses.replace(port, optimizer=chain))


def describe(factors: Factors) -> list[str]:
    """Describe each part of the state that is in another convention."""
    sentences = []
    for key, some in factors.items():
        values = sorted({float(f"{factor:.6g}") for factor in some.values()} - {1.0})
        if values:
            times = " or ".join(f"{value:g}" for value in values)
            sentences.append(
                f"The port keeps {key} at {times} times PyTorch's value. Every update agrees, so the training is the "
                "same. The optimizer state of a checkpoint needs that factor."
            )
    return sentences


class _Scaled:
    """An optimizer whose state is PyTorch's: each part of it is the inner one's over a constant."""

    def __init__(self, optimizer: optax.GradientTransformation, factors: Mapping[str, Tree]) -> None:
        self._optimizer, self._factors = optimizer, factors

    def init(self, params: optax.Params) -> optax.OptState:
        return optax_state.scaled(self._optimizer.init(params), params, self._factors, lambda a, b: a / b)

    def update(
        self, updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: object
    ) -> tuple[optax.Updates, optax.OptState]:
        own = optax_state.scaled(state, params, self._factors, lambda a, b: a * b)
        updates, own = self._optimizer.update(updates, own, params, **extra)
        return updates, optax_state.scaled(own, params, self._factors, lambda a, b: a / b)


def _state_factors(recording: Recording, replayed: Replay) -> tuple[dict[str, dict[str, float]], float]:
    """Divide the port's state after the first step by PyTorch's, by key and tensor; return the elements' spread
    from that, relative."""
    found: dict[str, dict[str, float]] = {}
    apart = 0.0
    for key, tensors in recording.arbiter_locked.state.items():
        for name, theirs in tensors.items():
            own = replayed.locked64.state.get(key, {}).get(name)
            if own is not None:
                factor, spread = _factor(np.ravel(own[0]), np.ravel(theirs[0]))
                found.setdefault(key, {})[name] = factor
                apart = max(apart, spread)
    return found, apart


def _factor(own: Array, theirs: Array) -> tuple[float, float]:
    """Return the least-squares ratio and the relative spread of its large elements; ratio 1 for an equal state."""
    size = np.abs(theirs).max(initial=0.0)
    large = np.abs(theirs) > size / 2
    if not size or not np.isfinite(size) or not np.isfinite(own).all():
        return 1.0, 0.0
    scale = theirs / size  # squares of small numbers could vanish
    factor = float(own @ scale / (scale @ scale) / size)
    if factor == 0 or abs(factor - 1) <= _FACTOR_TOLERANCE:
        return 1.0, 0.0
    return factor, float(np.abs(own[large] / theirs[large] / factor - 1).max())
