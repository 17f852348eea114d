"""Hypotheses about the loss: a constant factor, shapes that broadcast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from parity._types import PyTree
from parity.causes.alternatives import mark_alternatives, within
from parity.causes.decimals import shortest
from parity.causes.evidence import Evidence, Probe, loss_of
from parity.causes.loss_as_recorded import Factor, constant, first, told_by_the_loss
from parity.causes.loss_size import Law, laws
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.porting.port import Port
from parity.recording.recording import MSE

_AXES_FIX = (
    "take the mean over the axes that PyTorch takes it over: over all elements for MSELoss, over the rows for "
    "CrossEntropyLoss"
)


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """A factor of the loss: what it makes of the shapes of predictions and targets, and how it reads.

    A number alone proves nothing: many a constant is 2, or as large as some size. ``law`` is how the port's loss must
    depend on the batch along ``axis``, where the factor is a size; ``reduction`` is what PyTorch's must be, where it is
    known; ``kind`` is the only loss of PyTorch's that it is said of.
    """

    name: str
    factor: Factor
    times: str
    what: str
    fix: str
    law: Law | None = None
    axis: int = 0
    reduction: str | None = None
    kind: str | None = None


def _rows(predictions: PyTree, targets: PyTree) -> int:
    shape = np.shape(first(predictions))
    return int(shape[0]) if shape else 1


def _terms(predictions: PyTree, targets: PyTree) -> int:
    """Return how many numbers a loss averages: one an element of its target."""
    return int(np.size(first(targets))) if jax.tree.leaves(targets) else int(np.size(first(predictions)))


def _elements(predictions: PyTree, targets: PyTree) -> int:
    return int(np.size(first(predictions)))


def _width(predictions: PyTree, targets: PyTree) -> int:
    return _elements(predictions, targets) // max(1, _rows(predictions, targets))


def _last(predictions: PyTree, targets: PyTree) -> int:
    shape = np.shape(first(predictions))
    return int(shape[-1]) if shape else 1


def _scalings() -> Iterator[_Scaling]:
    half = "use jaxreg.mse_loss, or 2 * optax.l2_loss(...)"
    squares = "the loss here is half of PyTorch's, as ½·MSE is"
    yield _Scaling("half loss", lambda p, t: 2.0, "doubled", squares, half, kind=MSE)
    mean = 'take the mean where the sum is taken: jnp.mean(...), or reduction="mean"'
    yield _Scaling(
        "sum for mean",
        lambda p, t: 1 / _terms(p, t),
        "divided by the number of its terms",
        "the loss here is a sum where PyTorch takes the mean",
        mean,
        law="sum",
        reduction="mean",
    )
    yield _Scaling(
        "mean for sum",
        lambda p, t: float(_terms(p, t)),
        "multiplied by the number of its terms",
        "the loss here is a mean where PyTorch takes the sum",
        'take the sum where the mean is taken: jnp.sum(...), or reduction="sum"',
        law="mean",
        reduction="sum",
    )
    for size, of, axis in ((_rows, "the rows", 0), (_width, "the outputs of a row", -1), (_last, "the last axis", -1)):
        yield _Scaling(
            "mean over another axis",
            lambda p, t, size=size: 1 / size(p, t),  # type: ignore[misc]
            f"divided by the number of {of.removeprefix('the ')}",
            f"PyTorch takes a mean over {of} too, and the loss here a sum",
            _AXES_FIX,
            law="sum",
            axis=axis,
            reduction="mean",
        )
        yield _Scaling(
            "mean over another axis",
            lambda p, t, size=size: float(size(p, t)),  # type: ignore[misc]
            f"multiplied by the number of {of.removeprefix('the ')}",
            f"the loss here takes a mean over {of} where PyTorch takes none",
            _AXES_FIX,
            law="mean",
            axis=axis,
            reduction="sum",
        )


def explain_loss(evidence: Evidence) -> list[Cause]:
    """Return what explains a loss that differs where the predictions agree, or a gradient where the loss agrees too."""
    at = evidence.failing("forward", "loss", "gradient")
    if at is None or at.stage == "forward":
        return []
    groups = (_recorded_factors, _factors, _broadcast, _any_factor)
    for group in (_gradient_factor,) if at.stage == "gradient" else groups:
        if found := group(evidence, at):
            return found
    return []


def _scaled(evidence: Evidence, factor: Factor) -> Port:
    def loss(predictions: PyTree, targets: PyTree) -> jax.Array:
        return factor(predictions, targets) * evidence.port.loss(predictions, targets)

    return dataclasses.replace(evidence.port, loss=loss)


def _cause(at: Finding, name: str, sentence: str, fix: str, agreement: float) -> Cause:
    return Cause(name, sentence, fix, at.stage, at.tensor, at.step or 0, agreement)


def _factors(evidence: Evidence, at: Finding) -> list[Cause]:
    probes = evidence.probe()
    if probes is None:
        return []
    scalings = [one for one in _scalings() if _may_be(evidence, one)]
    halves = [one for one in scalings if one.name == "half loss"]
    pairs: list[tuple[_Scaling, ...]] = [(one,) for one in scalings]
    # ½ comes with a sum or a mean often enough: optax.l2_loss(...).sum().
    pairs += [(half, other) for half in halves for other in scalings if other is not half]
    whole = [one for one in scalings if one.name in ("sum for mean", "mean for sum")]
    plain = [_factor_values(evidence, (one,)) for one in whole] if _is_one_a_row(evidence) else []
    for length in (1, 2):
        found: list[list[Cause]] = []
        for group in (pair for pair in pairs if len(pair) == length):
            ratios = _factor_values(evidence, group)
            # A mean over the rows is the mean where there is one number a row.
            if group[-1].name == "mean over another axis" and any(ratios == known for known in plain):
                continue
            if not _plausible(evidence, probes, ratios) or any(abs(ratio - 1) < 1e-12 for ratio in ratios[:1]):
                continue

            def factor(p: PyTree, t: PyTree, group: tuple[_Scaling, ...] = group) -> float:
                return math.prod(float(part.factor(p, t)) for part in group)

            agreement = evidence.agreement(evidence.probe(_scaled(evidence, factor)), factor=max(map(abs, ratios)))
            if agreement is not None:
                times = " and ".join(part.times for part in group)
                found.append(
                    [
                        _cause(
                            at,
                            part.name,
                            f"with the loss {times} the two agree {within(agreement)}: {part.what}",
                            part.fix,
                            agreement,
                        )
                        for part in group
                    ]
                )
                if length == 1:
                    found.append(_mean_of_passes(evidence, at, ratios[0], agreement))
        if found:
            return mark_alternatives([one for causes in found for one in causes]) if length == 1 else found[0]
    return []


def _may_be(evidence: Evidence, scaling: _Scaling) -> bool:
    """Return whether PyTorch's recorded loss, and what the port's makes of parts of a batch, speak for it."""
    loss = evidence.recording.loss
    reduction = loss.settings.get("reduction")
    if scaling.kind is not None and (loss.type != scaling.kind or "scale" in loss.settings):
        return False
    if scaling.law is None:
        return True
    if "scale" in loss.settings:
        return False
    found = laws(evidence, scaling.axis)
    if found is None and scaling.axis != 0:
        # Classes cannot be cut: a loss over them takes labels, which have no such axis, and its mean is over the rows.
        return bool(laws(evidence, 0))
    unlike = reduction and scaling.reduction and reduction != scaling.reduction
    return not unlike and found is not None and scaling.law in found


def _is_one_a_row(evidence: Evidence) -> bool:
    place = evidence.recording.batch_of_step[int(evidence.recording.kept[evidence.rows[0]])]
    targets = evidence.recording.batches[place].targets
    return _terms(None, targets) == _rows(targets, None)


def _factor_values(evidence: Evidence, group: tuple[_Scaling, ...]) -> list[float]:
    pairs = [_predictions_and_targets(evidence, row) for row in evidence.rows]
    return [math.prod(float(part.factor(*pair)) for part in group) for pair in pairs]


def _predictions_and_targets(evidence: Evidence, row: int) -> tuple[PyTree, PyTree]:
    """Return predictions and targets of a step's first backward pass."""
    batch = evidence.recording.batches[evidence.recording.batch_of_step[int(evidence.recording.kept[row])]]
    predictions = evidence.recording.observed.predictions[row]
    if len(batch.passes()) > 1:
        predictions = jax.tree.map(lambda leaf: leaf[: batch.parts[0]], predictions)
    return predictions, batch.passes()[0][1]


def _plausible(evidence: Evidence, probes: list[Probe], ratios: list[float]) -> bool:
    """Return whether the losses' quotient is near enough to try: a replay costs more."""
    for row, probe, ratio in zip(evidence.rows, probes, ratios, strict=True):
        exact = loss_of(evidence.recording.arbiter_locked, evidence.recording, row)
        if not abs(probe.loss * ratio - exact) <= 1e-3 * max(abs(exact), abs(probe.loss * ratio)):
            return False
    return True


def _recorded_factors(evidence: Evidence, at: Finding) -> list[Cause]:
    """Try the factors that PyTorch's own loss tells of, such as targets left out and weights of classes."""
    probes = evidence.probe()
    if probes is None:
        return []
    for name, factor, what, fix in told_by_the_loss(evidence.recording):
        ratios = [float(factor(*_predictions_and_targets(evidence, row))) for row in evidence.rows]
        if not _plausible(evidence, probes, ratios) or all(abs(ratio - 1) < 1e-12 for ratio in ratios):
            continue
        agreement = evidence.agreement(evidence.probe(_scaled(evidence, factor)), factor=max(map(abs, ratios)))
        if agreement is not None:
            return [_cause(at, name, f"{what}; so scaled, the two agree {within(agreement)}", fix, agreement)]
    return []


def _any_factor(evidence: Evidence, at: Finding) -> list[Cause]:
    """Look for a factor that is none of the usual ones; it may be one of the program's own."""
    probes = evidence.probe()
    if probes is None or not probes[0].loss:
        return []
    exact = loss_of(evidence.recording.arbiter_locked, evidence.recording, evidence.rows[0])
    raw = exact / probes[0].loss
    if not _plausible(evidence, probes, [raw] * len(probes)) or abs(raw - 1) < 1e-12:
        return []
    for ratio in (shortest(raw, 1e-13 * abs(raw)), raw):
        agreement = evidence.agreement(evidence.probe(_scaled(evidence, constant(ratio))), factor=ratio)
        if agreement is None:
            continue
        sentence = f"with the loss multiplied by {ratio:.12g} the two agree {within(agreement)}: it is scaled"
        known = _mean_of_passes(evidence, at, ratio, agreement)
        return known or [_cause(at, "scaled loss", sentence, f"multiply the loss by {ratio:.12g}", agreement)]
    return []


def _mean_of_passes(evidence: Evidence, at: Finding, ratio: float, agreement: float) -> list[Cause]:
    """Return the cause, if the factor is the number of backward passes that each step adds up."""
    if {len(batch.parts) for batch in evidence.recording.batches} != {ratio} or ratio == 1:
        return []
    sentence = (
        f"with the loss multiplied by {ratio:g} the two agree {within(agreement)}: PyTorch adds up the gradients "
    )
    sentence += f"of {ratio:g} backward passes a step, and the port takes their mean"
    return [_cause(at, "scaled loss", sentence, f"multiply the loss by {ratio:g}", agreement)]


def _gradient_factor(evidence: Evidence, at: Finding) -> list[Cause]:
    """Look for a factor of the gradient alone, where the loss has its right value."""
    probes = evidence.probe()
    if probes is None:
        return []
    made, exact = [], []
    for row, probe in zip(evidence.rows, probes, strict=True):
        for name, values in evidence.recording.arbiter_locked.gradients.items():
            made.append(probe.gradients[name].reshape(-1))
            exact.append(np.asarray(values[row], np.float64).reshape(-1))
    x, y = np.concatenate(made), np.concatenate(exact)
    if len(x) < 2 or not (x @ x):
        return []
    raw = float(x @ y / (x @ x))
    for ratio in (shortest(raw, 1e-13 * abs(raw)), raw):
        fixed = [
            dataclasses.replace(probe, gradients={name: ratio * values for name, values in probe.gradients.items()})
            for probe in probes
        ]
        agreement = evidence.agreement(fixed, factor=ratio)
        # Nearer to 1 than float32 can tell, it is a constant that one side rounds, and no factor.
        if agreement is None or ratio == 0 or abs(ratio - 1) < float(np.finfo(np.float32).eps):
            continue
        sentence = f"with every gradient multiplied by {ratio:.12g} the two agree {within(agreement)}, and the loss "
        sentence += "does as it is: its value is right, and its gradient "
        squares = ratio == 2 and evidence.recording.loss.type == MSE
        sentence += "half of PyTorch's, as that of ½·MSE is" if squares else "scaled"
        name = "half loss" if squares else "scaled gradient"
        return [_cause(at, name, sentence, "differentiate the very loss that is reported", agreement)]
    return []


def _broadcast(evidence: Evidence, at: Finding) -> list[Cause]:
    """Look for (n, 1) against (n,), whose difference becomes n by n, on either side."""

    def flat(predictions: PyTree, targets: PyTree) -> jax.Array:
        return evidence.port.loss(jnp.reshape(predictions, -1), jnp.reshape(targets, -1))

    def flattened(predictions: PyTree, targets: PyTree) -> jax.Array:
        return evidence.port.loss(jnp.reshape(predictions, -1), targets)

    def shaped(predictions: PyTree, targets: PyTree) -> jax.Array:
        return evidence.port.loss(jnp.reshape(predictions, jnp.shape(targets)), targets)

    def squared(predictions: PyTree, targets: PyTree) -> jax.Array:
        square = (predictions.size, targets.size)
        across = jnp.broadcast_to(jnp.reshape(predictions, (-1, 1)), square)
        return evidence.port.loss(across, jnp.broadcast_to(jnp.reshape(targets, (1, -1)), square))

    for loss, where in ((shaped, "here"), (flattened, "here"), (flat, "here"), (squared, "in PyTorch")):
        agreement = evidence.agreement(evidence.probe(dataclasses.replace(evidence.port, loss=loss)))
        if agreement is None:
            continue
        if where == "here":
            sentence = f"with predictions and targets of one shape the two agree {within(agreement)}: their "
            sentence += "difference broadcasts here, every prediction against every target"
            fix = "give the loss equal shapes: predictions.reshape(targets.shape), or use jaxreg.mse_loss, which checks"
        else:
            sentence = f"with every prediction held against every target the two agree {within(agreement)}: "
            sentence += "PyTorch's loss broadcasts, and the one here does not"
            fix = "in the PyTorch program, give the loss equal shapes: loss_fn(model(x), y.reshape(-1, 1))"
        return [_cause(at, "broadcast loss", sentence, fix, agreement)]
    return []
