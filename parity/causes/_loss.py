"""Hypotheses about the loss: a constant factor, shapes that broadcast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.causes._case import Case, Probe, loss_of
from parity.causes._cause import Cause, either, within
from parity.causes._numbers import shortest

Factor = Callable[[Any, Any], float]
_AXES = (
    "take the mean over the axes that PyTorch takes it over: over all elements for MSELoss, over the rows for "
    "CrossEntropyLoss"
)


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """A factor of the loss: what it makes of the shapes of predictions and targets, and how it reads."""

    name: str
    factor: Factor
    times: str
    what: str
    fix: str


def _first(tree: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    return leaves[0] if leaves else np.zeros(())


def _rows(predictions: Any, targets: Any) -> int:
    shape = np.shape(_first(predictions))
    return int(shape[0]) if shape else 1


def _terms(predictions: Any, targets: Any) -> int:
    """How many numbers a loss averages: one an element of its target."""
    return int(np.size(_first(targets))) if jax.tree.leaves(targets) else int(np.size(_first(predictions)))


def _elements(predictions: Any, targets: Any) -> int:
    return int(np.size(_first(predictions)))


def _width(predictions: Any, targets: Any) -> int:
    return _elements(predictions, targets) // max(1, _rows(predictions, targets))


def _last(predictions: Any, targets: Any) -> int:
    shape = np.shape(_first(predictions))
    return int(shape[-1]) if shape else 1


def _scalings() -> Iterator[_Scaling]:
    half = "use jaxreg.mse_loss, or 2 * optax.l2_loss(...)"
    yield _Scaling("half loss", lambda p, t: 2.0, "doubled", "the loss here is half of PyTorch's, as ½·MSE is", half)
    yield _Scaling("doubled loss", lambda p, t: 0.5, "halved", "the loss here is twice PyTorch's", "halve the loss")
    mean = 'take the mean where the sum is taken: jnp.mean(...), or reduction="mean"'
    yield _Scaling(
        "sum for mean",
        lambda p, t: 1 / _terms(p, t),
        "divided by the number of its terms",
        "the loss here is a sum where PyTorch takes the mean",
        mean,
    )
    yield _Scaling(
        "mean for sum",
        lambda p, t: float(_terms(p, t)),
        "multiplied by the number of its terms",
        "the loss here is a mean where PyTorch takes the sum",
        'take the sum where the mean is taken: jnp.sum(...), or reduction="sum"',
    )
    for size, of in ((_rows, "the rows"), (_width, "the outputs of a row"), (_last, "the last axis")):
        yield _Scaling(
            "mean over another axis",
            lambda p, t, size=size: 1 / size(p, t),  # type: ignore[misc]
            f"divided by the number of {of.removeprefix('the ')}",
            f"PyTorch takes a mean over {of} too, and the loss here a sum",
            _AXES,
        )
        yield _Scaling(
            "mean over another axis",
            lambda p, t, size=size: float(size(p, t)),  # type: ignore[misc]
            f"multiplied by the number of {of.removeprefix('the ')}",
            f"the loss here takes a mean over {of} where PyTorch takes none",
            _AXES,
        )


def losses(case: Case) -> list[Cause]:
    """What explains a loss that differs where the predictions agree, or a gradient where the loss agrees too."""
    first = case.failing("forward", "loss", "gradient")
    if first is None or first.stage == "forward":
        return []
    if first.stage == "gradient":
        return _gradient_factor(case)
    return _factors(case) or _broadcast(case) or _any_factor(case)


def _scaled(case: Case, factor: Factor) -> Any:
    def loss(predictions: Any, targets: Any) -> Any:
        return factor(predictions, targets) * case.port.loss(predictions, targets)

    return dataclasses.replace(case.port, loss=loss)


def _at(case: Case, name: str, sentence: str, fix: str, agreement: float) -> Cause:
    first = case.failing("forward", "loss", "gradient")
    if first is None:
        raise AssertionError("a cause is looked for where something differs")
    return Cause(name, sentence, fix, first.stage, first.tensor, first.step or 0, agreement)


def _factors(case: Case) -> list[Cause]:
    probes = case.probe()
    if probes is None:
        return []
    scalings = list(_scalings())
    pairs: list[tuple[_Scaling, ...]] = [(one,) for one in scalings]
    # ½ comes with a sum or a mean often enough: optax.l2_loss(...).sum().
    pairs += [(scalings[0], other) for other in scalings[2:]]
    plain = [_factor_values(case, (one,)) for one in scalings[2:4]] if _is_one_a_row(case) else []
    for length in (1, 2):
        found: list[list[Cause]] = []
        for group in (pair for pair in pairs if len(pair) == length):
            ratios = _factor_values(case, group)
            # A mean over the rows is the mean where there is one number a row.
            if group[-1].name == "mean over another axis" and any(ratios == known for known in plain):
                continue
            if not _plausible(case, probes, ratios) or any(abs(ratio - 1) < 1e-12 for ratio in ratios[:1]):
                continue

            def factor(p: Any, t: Any, group: Any = group) -> float:
                return math.prod(part.factor(p, t) for part in group)

            agreement = case.agreement(case.probe(_scaled(case, factor)), factor=max(map(abs, ratios)))
            if agreement is not None:
                times = " and ".join(part.times for part in group)
                found.append(
                    [
                        _at(
                            case,
                            part.name,
                            f"with the loss {times} the two agree {within(agreement)}: {part.what}",
                            part.fix,
                            agreement,
                        )
                        for part in group
                    ]
                )
        if found:
            return either([one for causes in found for one in causes]) if length == 1 else found[0]
    return []


def _is_one_a_row(case: Case) -> bool:
    place = case.recording.batch_of_step[int(case.recording.kept[case.rows[0]])]
    targets = case.recording.batches[place].targets
    return _terms(None, targets) == _rows(targets, None)


def _factor_values(case: Case, group: tuple[_Scaling, ...]) -> list[float]:
    values = []
    for row in case.rows:
        place = case.recording.batch_of_step[int(case.recording.kept[row])]
        inputs_targets = case.recording.batches[place].passes()
        predictions = case.recording.observed.predictions[row]
        targets = inputs_targets[0][1]
        if len(inputs_targets) > 1:
            parts = case.recording.batches[place].parts
            predictions = jax.tree.map(lambda leaf: leaf[: parts[0]], predictions)  # noqa: B023
        values.append(math.prod(part.factor(predictions, targets) for part in group))
    return values


def _plausible(case: Case, probes: list[Probe], ratios: list[float]) -> bool:
    """Whether the losses' quotient is near enough to try: a replay costs more."""
    for row, probe, ratio in zip(case.rows, probes, ratios, strict=True):
        exact = loss_of(case.recording.arbiter_locked, case.recording, row)
        if not abs(probe.loss * ratio - exact) <= 1e-3 * max(abs(exact), abs(probe.loss * ratio)):
            return False
    return True


def _any_factor(case: Case) -> list[Cause]:
    """A factor that is none of the usual ones; it is said, since it may be one of the program's own."""
    probes = case.probe()
    if probes is None or not probes[0].loss:
        return []
    exact = loss_of(case.recording.arbiter_locked, case.recording, case.rows[0])
    raw = exact / probes[0].loss
    if not _plausible(case, probes, [raw] * len(probes)) or abs(raw - 1) < 1e-12:
        return []
    for ratio in (shortest(raw, 1e-13 * abs(raw)), raw):
        agreement = case.agreement(case.probe(_scaled(case, _constant(ratio))), factor=ratio)
        if agreement is None:
            continue
        inverse = shortest(1 / ratio, 1e-13 / abs(ratio))
        terms = max(_terms_seen(case))
        if any(value == round(value) > 2 and terms % round(value) == 0 for value in (ratio, inverse)):
            sentence = f"with the loss multiplied by {ratio:.9g} the two agree {within(agreement)}: some of its "
            sentence += f"{terms} terms are added up on one side where the other takes their mean"
            return [_at(case, "mean over another axis", sentence, _AXES, agreement)]
        sentence = f"with the loss multiplied by {ratio:.12g} the two agree {within(agreement)}: it is scaled"
        return [_at(case, "scaled loss", sentence, f"multiply the loss by {ratio:.12g}", agreement)]
    return []


def _constant(ratio: float) -> Factor:
    return lambda predictions, targets: ratio


def _terms_seen(case: Case) -> list[int]:
    places = [case.recording.batch_of_step[int(case.recording.kept[row])] for row in case.rows]
    return [_terms(None, case.recording.batches[place].targets) for place in places]


def _gradient_factor(case: Case) -> list[Cause]:
    """The loss has its right value, and a multiple of its gradient."""
    probes = case.probe()
    if probes is None:
        return []
    made, exact = [], []
    for row, probe in zip(case.rows, probes, strict=True):
        for name, values in case.recording.arbiter_locked.gradients.items():
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
        agreement = case.agreement(fixed, factor=ratio)
        if agreement is None or ratio in (0.0, 1.0):
            continue
        sentence = f"with every gradient multiplied by {ratio:.12g} the two agree {within(agreement)}, and the loss "
        sentence += "does as it is: its value is right, and its gradient "
        sentence += "half of PyTorch's, as that of ½·MSE is" if ratio == 2 else "scaled"
        name = "half loss" if ratio == 2 else "scaled gradient"
        return [_at(case, name, sentence, "differentiate the very loss that is reported", agreement)]
    return []


def _broadcast(case: Case) -> list[Cause]:
    """(n, 1) against (n,): the difference becomes n by n, on either side."""

    def flat(predictions: Any, targets: Any) -> Any:
        return case.port.loss(jnp.reshape(predictions, -1), jnp.reshape(targets, -1))

    def flattened(predictions: Any, targets: Any) -> Any:
        return case.port.loss(jnp.reshape(predictions, -1), targets)

    def shaped(predictions: Any, targets: Any) -> Any:
        return case.port.loss(jnp.reshape(predictions, jnp.shape(targets)), targets)

    def squared(predictions: Any, targets: Any) -> Any:
        square = (predictions.size, targets.size)
        across = jnp.broadcast_to(jnp.reshape(predictions, (-1, 1)), square)
        return case.port.loss(across, jnp.broadcast_to(jnp.reshape(targets, (1, -1)), square))

    for loss, where in ((shaped, "here"), (flattened, "here"), (flat, "here"), (squared, "in PyTorch")):
        agreement = case.agreement(case.probe(dataclasses.replace(case.port, loss=loss)))
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
        return [_at(case, "broadcast loss", sentence, fix, agreement)]
    return []
