"""Coarse products: whether rounding their operands to a short format explains a side's error, element by element.

The format's rounding is put into every product of the port, in float64, which gives the error that it would make. Where
a side's products are honest, its own error has nothing to do with that one, and is thousands of times smaller.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

import jax
import numpy as np
from scipy import special

from parity._words import count
from parity.causes.evidence import Evidence, joined, run
from parity.causes.model import substitutions as rules
from parity.causes.model.jaxpr_rewrite import rewritten
from parity.judging.cause import Cause
from parity.recording.recording import Array, Trace

_logger = logging.getLogger(__name__)
# The chance of an honest error that points the same way as the predicted one, at which it is named.
_LARGEST_CHANCE = 1e-9
_MOST_STEPS = 3
_STAGES = ("forward", "loss", "gradient")


def _cut(value: jax.Array) -> jax.Array:
    """Round to TF32 by leaving bits away, as hardware that is fed float32 does."""
    bits = jax.lax.bitcast_convert_type(value.astype(np.float32), np.uint32)
    kept = jax.lax.bitcast_convert_type(bits & np.uint32(0xFFFFE000), np.float32)
    return kept.astype(value.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class _Format:
    name: str
    words: str
    rounding: Callable[[jax.Array], jax.Array]
    results: bool = False
    forward_only: bool = False


# The ways that are tried first, and others where none of those explains it.
_FIRST_FORMATS = (
    _Format("TF32 products", "TF32 (10 bits)", rules.rounder(8, 10)),
    _Format("bfloat16 products", "bfloat16 (7 bits)", rules.rounder(8, 7)),
)
_OTHER_FORMATS = (
    _Format("TF32 products", "TF32 (10 bits, cut)", _cut),
    _Format("bfloat16 products", "bfloat16 (7 bits), and its results,", rules.rounder(8, 7), True),
    _Format("float16 products", "float16 (10 bits), and its results,", rules.rounder(5, 10), True),
    _Format("TF32 products", "TF32 (10 bits) in the forward pass", rules.rounder(8, 10), forward_only=True),
    _Format("bfloat16 products", "bfloat16 (7 bits) in the forward pass", rules.rounder(8, 7), forward_only=True),
)
# What a format may leave unexplained for the other ways not to be tried.
_CLEAR_SHARE_LEFT = 0.1


def explain_product_precision(evidence: Evidence) -> list[Cause]:
    """Find coarse products on either side, also where the worst-case bound is too loose to show them."""
    different = evidence.failing(*_STAGES) is not None
    if evidence.recording.dtype != np.float32 or different:
        return []
    rows = tuple(range(min(_MOST_STEPS, len(evidence.recording.kept))))
    sides = {"JAX": evidence.replay.locked, "PyTorch": evidence.recording.observed}
    errors = {side: _errors(evidence, trace, rows) for side, trace in sides.items()}
    if not all(errors.values()):
        return []
    causes = []
    for side, other in (("JAX", "PyTorch"), ("PyTorch", "JAX")):
        if _looks_coarse(evidence, side, errors[side], errors[other], rows):
            causes += list(_named(evidence, side, errors[side], rows))
    return causes


Errors = list[dict[str, Array]]


def _errors(evidence: Evidence, trace: Trace, rows: tuple[int, ...]) -> Errors:
    """Return how far a side's values are from the exact ones, a dict a step; none where they are not finite."""
    exact, kept = evidence.recording.arbiter_locked, []
    for row in rows:
        pair = joined(trace.predictions[row]), joined(exact.predictions[row])
        with np.errstate(invalid="ignore"):
            gaps = {"predictions": pair[0] - pair[1]}
            for name in exact.gradients:
                if name not in evidence.recording.frozen:
                    value = np.asarray(trace.gradients[name][row], np.float64)
                    gaps[name] = (value - np.asarray(exact.gradients[name][row], np.float64)).reshape(-1)
        if not all(np.isfinite(gap).all() for gap in gaps.values()):
            return []
        kept.append(gaps)
    return kept


def _looks_coarse(evidence: Evidence, side: str, own: Errors, other: Errors, rows: tuple[int, ...]) -> bool:
    """Return a cheap sign of coarse products, which only decides whether the dearer test is run."""
    at_fault = ("jax", "both") if side == "JAX" else ("torch", "both")
    if any(f.off in at_fault and f.stage in _STAGES for f in evidence.findings):
        return True
    for row, mine, theirs in zip(rows, own, other, strict=True):
        sizes = {name: _norm(theirs[name]) or 1.0 for name in mine}
        if np.sqrt(np.mean([(_norm(mine[name]) / sizes[name]) ** 2 for name in mine])) > 16:
            return True
        if _norm(mine["predictions"]) > 2.0**-20 * _norm(joined(evidence.recording.arbiter_locked.predictions[row])):
            return True
    return False


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values))


def _named(evidence: Evidence, side: str, errors: Errors, rows: tuple[int, ...]) -> Iterator[Cause]:
    try:
        exact = _evaluated(evidence, None, rows)
        tried = [(form, _explained(errors, _gaps(_evaluated(evidence, form, rows), exact))) for form in _FIRST_FORMATS]
        if min(left for _, (left, *_) in tried) > _CLEAR_SHARE_LEFT:
            tried += [
                (form, _explained(errors, _gaps(_evaluated(evidence, form, rows), exact))) for form in _OTHER_FORMATS
            ]
    except Exception:  # a model that this walk cannot follow is not explained
        _logger.debug("The port does not run with coarse products: %s's are not looked at.", side, exc_info=True)
        return
    form, (left, chance, tensor) = min(tried, key=lambda one: one[1][0])
    if left > 0.5 or chance > _LARGEST_CHANCE:
        return
    rivals = {other.name for other, (rest, *_) in tried if rest <= 4 * left and rest < 0.5} - {form.name}
    first = next((f for f in evidence.findings if not f.holds and f.stage in _STAGES), None)
    sentence = (
        f"rounding the operands of every product to {form.words} explains {1 - left:.4%} of {side}'s float32 error"
    )
    sentence += f" over {count(len(rows), 'step')}; by chance that much is met with p < {max(chance, 1e-300):.0e}"
    stage = "forward" if tensor == "predictions" else "gradient"
    step = int(evidence.recording.kept[rows[0]])
    if first is not None:
        stage, tensor, step = first.stage, first.tensor, first.step or 0
    yield Cause(form.name, sentence, _FIXES[side], stage, tensor, step, left, tuple(sorted(rivals)))


_FIXES = {
    "JAX": 'ask for float32 products: jax.config.update("jax_default_matmul_precision", "highest")',
    "PyTorch": 'ask PyTorch for float32 products: torch.set_float32_matmul_precision("highest"), and '
    "torch.backends.cudnn.allow_tf32 = False",
}


def _evaluated(evidence: Evidence, form: _Format | None, rows: tuple[int, ...]) -> Errors:
    """Return predictions and gradients in float64, with every product's operands rounded to a format."""
    port, wrap = evidence.port, lambda compute: compute
    if form is not None:
        rule = rules.Coarse(form.rounding, form.results)
        if form.forward_only:
            port = dataclasses.replace(port, apply=rewritten(port.apply, rule), loss=rewritten(port.loss, rule))
        else:
            wrap = lambda compute: rewritten(compute, rule)  # noqa: E731
    probes = run(evidence.session.with_port(port), rows, wrap)
    return [
        {
            "predictions": probe.predictions[0],
            **{name: values.reshape(-1) for name, values in probe.gradients.items()},
        }
        for probe in probes
    ]


def _gaps(coarse: Errors, exact: Errors) -> Errors:
    return [{name: row[name] - other[name] for name in row} for row, other in zip(coarse, exact, strict=True)]


def _explained(errors: Errors, predicted: Errors) -> tuple[float, float, str]:
    """Return the share of the error not explained, the chance of that if honest, and the clearest tensor.

    An honest error is taken to point anywhere in as many directions as there are independent numbers: the chance that
    it lies as near to a given direction is a share of a sphere's surface.
    """
    left, size, along, numbers, clearest = 0.0, 0.0, 0.0, 0.0, ("predictions", np.inf)
    for name in errors[0]:
        r, p = (np.stack([row[name] for row in side]) for side in (errors, predicted))
        unit = _norm(p)
        if not unit or not np.isfinite(unit):
            continue
        # Every tensor counts alike, whatever its scale.
        own = float(((r - p) ** 2).sum()) / unit**2
        left, size, along = left + own, size + float((r**2).sum()) / unit**2, along + float((r * p).sum()) / unit**2
        numbers += np.count_nonzero(np.abs(p).max(0)) * _independent(p)
        share = own / max(float((r**2).sum()) / unit**2, 1e-300)
        clearest = min(clearest, (name, share), key=lambda pair: pair[1])
    tensors = sum(1 for name in errors[0] if any(row[name].any() for row in predicted))
    if not size or not tensors or numbers < 2 or along <= 0:
        return np.inf, 1.0, "predictions"
    cosine = min(1.0, along**2 / (size * tensors))
    chance = 0.5 * float(special.betainc((numbers - 1) / 2, 0.5, 1 - cosine))
    return left / size, chance, clearest[0]


def _independent(rows: Array) -> float:
    """Return how many steps' worth of independent errors: one where all are the same, all where none is alike."""
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(sizes > 0, sizes, 1.0)
    gram = unit @ unit.T
    return float(np.trace(gram) ** 2 / max((gram**2).sum(), 1e-300))
