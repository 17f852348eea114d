"""How far rounding alone can move each value of a training: derived from the port's own program."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np

from parity.bounds import monte_carlo
from parity.bounds.propagation import BoundPropagation
from parity.recording.recording import Array, Trace
from parity.replay.replay import types_of
from parity.replay.session import Session
from parity.rounding import Format

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds in the shape of the traces they hold for: on the distance from the exact value.

    Attributes:
        locked, locked64: of one step from the recorded state, in the recording's dtype and in float64.
        likely: as ``locked``, but what independent roundings exceed once in 1e9 elements at most.
        free, free64: of a training on its own.
        open_from, open_from64: the first step at which rounding alone may move the free training's loss by more than
            the loss itself; ``None`` where there is no such step. From there on the trajectory proves nothing, and the
            locked steps alone do.
        sampled: the fields of ``locked64`` whose worst case says too little, and is capped by samples; and
            ``"trajectory"`` where that of ``free64`` is.
    """

    locked: Trace
    locked64: Trace
    likely: Trace
    free: Trace
    free64: Trace
    open_from: int | None
    open_from64: int | None
    sampled: tuple[str, ...] = ()


@np.errstate(all="ignore")  # a training that is not finite has no bound that is, and that is what comes out
def derive(session: Session, exact: Trace | None = None, *, doubt: float = 0.0) -> Bounds:
    """Return the bounds for a recorded training and its port.

    Every operation of the port's program is followed in float64 with what rounding can do to it, and so is PyTorch's
    own rule for the optimizer's step, which may round elsewhere; the larger bound is taken. Along a free training the
    error is carried from step to step: by the step's own linear map where the step is affine, else entry by entry.

    Args:
        session: the port and the recording.
        exact: the port's training on its own in float64, beside which one can be bounded by sampling where the worst
            case cannot be.
        doubt: how far the optimizer's state may be from exact before and after each step, relative.

    Raises:
        UnsupportedError: the port's program has a primitive whose rounding is not known; it is named.
    """
    recording = session.recording
    own, double = Format.of(recording.dtype.name), Format.of("float64")
    with types_of(np.dtype(np.float64)), jax.default_device(jax.devices("cpu")[0]):
        propagation = BoundPropagation(session, doubt)
        free, open_from = propagation.free(own)
        free, (free64, open_from64) = _compact(free, own), propagation.free(double)
        locked = _compact(propagation.locked(own), own)
        likely = _compact(propagation.locked(own, likely=True), own, like=locked)
        locked64 = propagation.locked(double)
        sampled = monte_carlo.loose(locked64, recording)
        if sampled:
            _logger.debug("Float64's worst case says too little of %s: capped by samples.", ", ".join(sampled))
            locked64 = monte_carlo.cap_by_samples(locked64, session, propagation.arguments(), quick=propagation.quick)
        if exact is not None and open_from64 is not None:
            _logger.debug("Float64's worst case ends at step %d: capped by a perturbed run.", open_from64)
            free64 = monte_carlo.cap_by_perturbed_run(free64, locked64, exact, session)
            sampled = (*sampled, "trajectory")
        return Bounds(
            locked=locked,
            locked64=locked64,
            likely=likely,
            free=free,
            free64=free64,
            open_from=open_from,
            open_from64=open_from64,
            sampled=sampled,
        )


def _compact(trace: Trace, form: Format, like: Trace | None = None) -> Trace:
    """Return the bounds in half the memory, where wide enough. An optimizer has no sums: ``like`` has its own."""

    def up(values: Array) -> Array:
        if form.tiny < np.finfo(np.float32).tiny:
            return values
        with np.errstate(over="ignore"):
            return np.nextafter(values.astype(np.float32), np.float32(np.inf))

    gradients = jax.tree.map(up, trace.gradients)
    state, weights = jax.tree.map(up, (trace.state, trace.weights)) if like is None else (like.state, like.weights)
    return dataclasses.replace(trace, gradients=gradients, state=state, weights=weights)
