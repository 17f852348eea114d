"""The operation at which a port loses accuracy: the difference of two numbers that are nearly equal."""

from __future__ import annotations

import functools
import logging
import math

import jax
import numpy as np

from parity.causes.evidence import Evidence
from parity.causes.model.jaxpr_rewrite import Frame, Substitution, rewritten
from parity.judging.cause import Cause
from parity.replay import batches
from parity.rounding.jaxprs import Atom, Equation

_logger = logging.getLogger(__name__)
_FAST_VARIANCE_FIX = "take the variance in two passes, mean((x - mean(x))**2); in Flax, use_fast_variance=False"


class _Differences(Substitution):
    """The subtraction that cancels the most; how much, and whether a square is taken from a mean of squares."""

    touches = ("sub",)

    def __init__(self) -> None:
        self.worst, self.largest, self.fast = 1.0, 1.0, False

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name != "sub" or any(isinstance(value, jax.core.Tracer) for value in values):
            return None
        a, b = (np.asarray(value) for value in values)
        if a.dtype.kind != "f":
            return None
        left = np.abs(a - b)
        known = left > 0
        # Typical, not largest: two numbers may meet by chance, and where all nearly do something is magnified.
        ratios = np.maximum(np.abs(a), np.abs(b))[known] / left[known]
        typical = float(np.median(ratios)) if ratios.size else 1.0
        if typical > self.worst:
            self.worst, self.largest = typical, float(ratios.max())
            self.fast = _is_square(frame, equation.invars[1])
        return None


def _is_square(frame: Frame, atom: Atom) -> bool:
    made = frame.equation(atom, placed=True)
    if made is None:
        return False
    equation = made[1]
    name = equation.primitive.name
    alike = name == "mul" and equation.invars[0] is equation.invars[1]
    return name == "square" or alike or (name == "integer_pow" and equation.params["y"] == 2)


def explain_cancellation(evidence: Evidence) -> list[Cause]:
    """Find the cancelling difference of a port that loses accuracy, if it magnifies rounding by as much."""
    at = next((finding for finding in evidence.findings if finding.inaccurate and finding.off == "jax"), None)
    if at is None or at.jax_error is None:
        return []
    rule = _Differences()
    try:
        _run(evidence, rule, whole=at.stage != "forward")
    except Exception:  # a port that runs compiled only has no numbers to look at
        _logger.debug("The port does not run operation by operation: no cancellation is looked for.", exc_info=True)
        return []
    unit = float(np.finfo(evidence.recording.dtype).eps) / 2
    # Each of the two numbers is rounded once at least; the difference is off by that, so many times as large.
    if 2 * unit * rule.largest < at.jax_error:
        return []
    # Predictions come near their targets, and a loss and its gradient take the difference on both sides.
    if at.stage != "forward" and not rule.fast:
        return []
    name = "fast variance" if rule.fast else "cancellation"
    lost = math.log10(rule.worst)
    what = "mean(x²) − mean(x)²" if rule.fast else "two nearly equal numbers"
    sentence = f"the port takes the difference of {what}: {lost:.1f} decimal digits cancel there, and rounding grows "
    sentence += f"{rule.worst:.2g} times"
    fix = _FAST_VARIANCE_FIX if rule.fast else "write it so that nearly equal numbers are not subtracted"
    return [Cause(name, sentence, fix, at.stage, at.tensor, at.step or 0, at.jax_error)]


def _run(evidence: Evidence, rule: Substitution, *, whole: bool) -> None:
    """Run the port's forward pass at the first step looked at, or the whole step, operation by operation in float64."""
    wide, row, recording = np.dtype(np.float64), evidence.rows[0], evidence.recording
    batch = recording.batches[recording.batch_of_step[int(recording.kept[row])]]
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        sides = (recording.weights_before(), recording.buffers_before())
        weights, buffers = (batches.cast({name: values[row] for name, values in side.items()}, wide) for side in sides)
        state = evidence.session.model_state(buffers, weights)
        params, fed = evidence.names.to_port(weights), batches.cast(batch.passes()[0], wide)
        if not whole:
            rewritten(evidence.port.apply, rule)(params, state, fed[0])
            return
        step = functools.partial(evidence.session.step.forward_backward, parts=batch.parts[:1])
        rewritten(lambda *given: step(*given), rule)(params, state, fed)
