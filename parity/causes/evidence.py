"""What a hypothesis is tested on: the recording, the port, and single steps of the port in float64."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from parity._types import Array, PyTree
from parity.bounds.derive import Bounds
from parity.judging.finding import STAGES, Finding
from parity.porting.parameter_names import Names
from parity.porting.port import Port
from parity.recording.recording import Batch, Recording, Trace
from parity.replay import batches
from parity.replay.batches import Parts
from parity.replay.replay import Replay
from parity.replay.session import Session
from parity.rounding import bound

_logger = logging.getLogger(__name__)
# Steps that a hypothesis about one step is tested on.
_MOST_PROBED_STEPS = 3
# How near, relative to the largest element, two sides are for it to be worth while to derive a bound of their own.
_NEAR_RELATIVE_GAP = 1e-9

# How far rounding can move predictions, loss and gradients.
Limits = tuple[Array, float, dict[str, Array]]
# ``(weights, buffers, batch)``, by PyTorch's names, to predictions, loss and gradients.
Compute = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, jax.Array, dict[str, jax.Array]]]
# The shapes of a batch's arrays, and the rows of its backward passes.
Shapes = tuple[tuple[tuple[int, ...], ...], Parts]


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """One step of a port in float64 from the recorded state: its forward pass, loss and gradient.

    ``limits`` derives how far rounding can move each of them, as predictions, loss and gradients; it takes
    longer than the step itself.
    """

    predictions: list[Array]
    loss: float
    gradients: dict[str, Array]
    limits: Callable[[], Limits] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """A divergence to be explained.

    Attributes:
        session: the port and the recording.
        replay, bounds, findings: what was judged.
        rows: places of the kept steps that hypotheses about single steps are tested on.
    """

    session: Session
    replay: Replay
    bounds: Bounds
    findings: Sequence[Finding]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, session: Session, replay: Replay, bounds: Bounds, findings: Sequence[Finding]) -> Evidence:
        """Gather the evidence: the steps are where the sides first part, the first, and others with other batches."""
        recording = session.recording
        kept = recording.kept
        starts = sorted(f.step or 0 for f in findings if f.step is not None and not f.same_program)
        first = [min(int(np.searchsorted(kept, step)), len(kept) - 1) for step in starts[:1]]
        seen: set[Shapes] = set()
        rows: list[int] = []
        shapes = [_shapes(batch) for batch in recording.batches]
        for row in [*first, *range(len(kept))]:
            shape = shapes[recording.batch_of_step[int(kept[row])]]
            if shape not in seen and len(rows) < _MOST_PROBED_STEPS:
                seen.add(shape)
                rows.append(row)
        more = [row for row in (0, 1, len(kept) - 1) if row < len(kept) and row not in rows]
        rows = (rows + more)[:_MOST_PROBED_STEPS]
        return cls(session, replay, bounds, findings, tuple(dict.fromkeys(rows)))

    @property
    def recording(self) -> Recording:
        """Return the recording."""
        return self.session.recording

    @property
    def port(self) -> Port:
        """Return the port, with nothing but arrays in its trees."""
        return self.session.port

    @property
    def names(self) -> Names:
        """Return how PyTorch's names map onto the port's leaves."""
        return self.session.names

    @property
    def judged(self) -> Array:
        """Return which kept steps' optimizer was replayed."""
        return self.replay.judged if len(self.replay.judged) else np.ones(len(self.recording.kept), bool)

    def failing(self, *stages: str) -> Finding | None:
        """Return the first finding of these stages where the two float64 sides differ, by step and then by stage."""
        bad = [f for f in self.findings if f.stage in stages and not f.holds and not f.same_program]
        return min(bad, key=lambda f: (f.step or 0, STAGES.index(f.stage)), default=None)

    def probe(self, port: Port | None = None, names: Names | None = None) -> list[Probe] | None:
        """Return the port's steps at :attr:`rows`; ``None`` where it does not run that way."""
        try:
            return run(self.session.with_port(port or self.port, names), self.rows)
        except Exception:  # A hypothesis that does not fit the port raises whatever JAX raises of it.
            _logger.debug("The port does not run with this hypothesis.", exc_info=True)
            return None

    def agreement(self, probes: Sequence[Probe] | None, *, factor: float = 1.0) -> float | None:
        """Return how near the probes come to PyTorch's float64 values, relative; ``None`` if further than rounding.

        Args:
            probes: of a port that was changed.
            factor: how much larger than the judged port's values theirs are: rounding is as much larger.
        """
        if probes is None:
            return None
        worst = 0.0
        for row, probe in zip(self.rows, probes, strict=True):
            gap = self._of_row(row, probe, None, factor)
            if gap is None and probe.limits is not None and self._is_near(row, probe):
                # The judged port's bounds are those of the fault. These are the changed port's own.
                gap = self._of_row(row, probe, probe.limits(), factor)
            if gap is None:
                return None
            worst = max(worst, gap)
        return worst

    def _of_row(self, row: int, probe: Probe, limits: Limits | None, factor: float) -> float | None:
        worst = 0.0
        for value, exact, limit in self._pairs(row, probe, limits):
            gap = _gap(value, exact, limit * max(1.0, abs(factor)))
            if gap is None:
                return None
            worst = max(worst, gap)
        return worst

    def _is_near(self, row: int, probe: Probe) -> bool:
        """Return whether it is worth while to derive bounds: all is far nearer than a fault leaves it."""
        # What is zero to rounding, such as the gradient of a bias before a BatchNorm, has no size to be near to.
        pairs = self._pairs(row, probe, None)
        return all(
            _gap(value, exact, limit + _NEAR_RELATIVE_GAP * _size(exact)) is not None for value, exact, limit in pairs
        )

    def _pairs(self, row: int, probe: Probe, limits: Limits | None) -> Iterable[tuple[Array, Array, Array]]:
        exact, judged = self.recording.arbiter_locked, self.bounds.locked64
        flat = [joined(tree) for tree in (probe.predictions, exact.predictions[row], judged.predictions[row])]
        yield flat[0], flat[1], 2 * (flat[2] if limits is None else limits[0])
        limit = 2 * (loss_of(judged, self.recording, row) if limits is None else limits[1])
        numbers = (probe.loss, loss_of(exact, self.recording, row), limit)
        yield np.asarray(numbers[0]), np.asarray(numbers[1]), np.asarray(numbers[2])
        for name in exact.gradients:
            if name in probe.gradients and name not in self.recording.frozen:
                limits_of = judged.gradients[name][row] if limits is None else limits[2][name]
                most = 2 * np.asarray(limits_of, np.float64)
                yield probe.gradients[name], np.asarray(exact.gradients[name][row], np.float64), most


def joined(tree: PyTree) -> Array:
    """Return all floating numbers of a tree in one row, float64."""
    leaves = [np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def _size(exact: Array) -> float:
    return float(np.abs(exact).max(initial=0.0)) or 1.0


def _gap(value: Array, exact: Array, bound: Array) -> float | None:
    if np.shape(value) != np.shape(exact) or not (np.isfinite(value) & np.isfinite(exact)).all():
        return None
    gap = np.abs(value - exact)
    # A bound that says nothing cannot confirm anything either.
    if not (gap <= bound).all() or not np.isfinite(bound).all():
        return None
    if (np.abs(exact) <= bound).all():
        return 0.0  # zero to rounding: nothing is relative to it
    return float(gap.max(initial=0.0) / np.abs(exact).max(initial=0.0))


def _shapes(batch: Batch) -> Shapes:
    return tuple(np.shape(leaf) for leaf in jax.tree.leaves((batch.inputs, batch.targets))), batch.parts


def loss_of(trace: Trace, recording: Recording, row: int) -> float:
    """Return a kept step's loss in a trace that has those of all steps, or of the kept ones."""
    return float(trace.losses[row if len(trace.losses) == len(recording.kept) else int(recording.kept[row])])


def objective(session: Session, parts: Parts) -> Compute:
    """Return the function from weights, buffers and a batch to predictions, loss and gradients."""

    def compute(weights: PyTree, buffers: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array, dict[str, jax.Array]]:
        state, names = session.model_state(buffers, weights), session.names
        made = session.step.forward_backward(names.to_port(weights), state, batch, parts)
        return made.predictions, made.loss, names.from_port(made.gradients)

    return compute


def run(
    session: Session,
    rows: Sequence[int],
    wrap: Callable[[Compute], Compute] = lambda compute: compute,
) -> list[Probe]:
    """Run single steps of a port, in float64 and on the CPU; ``wrap`` may change the whole computation of a step."""
    wide, recording, probes = np.dtype(np.float64), session.recording, []
    before, buffers = recording.weights_before(), recording.buffers_before()
    compiled: dict[Parts, Compute] = {}
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        for row in rows:
            batch = recording.batches[recording.batch_of_step[int(recording.kept[row])]]
            if batch.parts not in compiled:
                compiled[batch.parts] = jax.jit(wrap(objective(session, batch.parts)))
            given = [
                batches.cast({name: values[row] for name, values in side.items()}, wide) for side in (before, buffers)
            ]
            arguments = (*given, batches.cast((batch.inputs, batch.targets), wide))
            made, value, gradients = compiled[batch.parts](*arguments)
            named = {name: np.asarray(leaf) for name, leaf in gradients.items()}
            limits = functools.partial(_limits, objective(session, batch.parts), arguments)
            probes.append(Probe([joined(made)], float(value), named, limits))
    return probes


def _limits(compute: Compute, arguments: tuple[PyTree, ...]) -> Limits:
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        _, (made, value, gradients) = bound(compute, precision="float64", narrow=False)(*arguments)
        return joined(made), float(value), {name: np.asarray(leaf) for name, leaf in gradients.items()}
