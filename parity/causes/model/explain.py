"""Hypotheses about the model: weights the wrong way round, small constants, random parts, casts, statistics."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from parity._types import PyTree
from parity.causes.alternatives import mark_alternatives, within
from parity.causes.evidence import Evidence, Probe
from parity.causes.model import substitutions as rules
from parity.causes.model.jaxpr_rewrite import Substitution, rewritten
from parity.judging.cause import Cause
from parity.porting import parameter_names
from parity.porting.port import Port

_USUAL_EPSILONS = (1e-5, 1e-6, 1e-3, 1e-12, 1e-8, 1e-7, 1e-4)
# Places at which a gradient is stopped that are tried one by one.
_MOST_STOPPED_PLACES = 8
_CAUSE_NAMES = {
    "float32": "float64 cut to float32",
    "bfloat16": "bfloat16 products",
    "float16": "float16 products",
    "tensorfloat32": "TF32 products",
}


def explain_model(evidence: Evidence) -> list[Cause]:
    """Return what explains a forward pass that differs, or a gradient that does where the loss agrees."""
    first = evidence.failing("forward", "loss", "gradient")
    if first is None:
        return []
    groups = {
        "forward": (_transposed, _gelu, _epsilons, _dropout, _casts, _statistics),
        "loss": (_casts,),
        "gradient": (_stopped, _casts),
    }
    for group in groups[first.stage]:
        found = mark_alternatives(list(group(evidence)))
        if found:
            return [dataclasses.replace(c, stage=first.stage, tensor=first.tensor, step=first.step or 0) for c in found]
    return []


def _cause(name: str, sentence: str, fix: str, agreement: float) -> Cause:
    return Cause(name, sentence, fix, "", "", 0, agreement)


class _NothingToReplaceError(Exception):
    """The rule answered for no equation: there is no use in compiling what is left."""


def _with(port: Port, rule: Substitution) -> Port:
    """Return the port with the rule in both its model and its loss."""
    loss = rewritten(port.loss, rule)

    def applied(predictions: PyTree, targets: PyTree) -> jax.Array:
        value = loss(predictions, targets)
        if not rule.count:
            raise _NothingToReplaceError
        return value

    return dataclasses.replace(port, apply=rewritten(port.apply, rule), loss=applied)


def _transposed(evidence: Evidence) -> Iterator[Cause]:
    """Try one square weight transposed, or all of them together."""
    square = [
        name for name, values in evidence.recording.initial.items() if values.ndim == 2 and len(set(values.shape)) == 1
    ]
    tried: list[tuple[str, ...]] = [(name,) for name in square if values_matter(evidence, name)]
    if len(square) > 1:
        tried.append(tuple(square))
    for chosen in tried:
        agreement = evidence.agreement(evidence.probe(names=turned(evidence.names, chosen)))
        if agreement is not None:
            which = ", ".join(chosen)
            sentence = f"with {which} transposed the two agree {within(agreement)}: the port takes it the wrong way "
            sentence += "round, which a square weight lets pass"
            fix = 'PyTorch keeps (out, in), Flax (in, out): write "kernel.T" in names, or x @ weight.T in apply'
            yield _cause("transposed weight", sentence, fix, agreement)


def values_matter(evidence: Evidence, name: str) -> bool:
    """Return whether a weight is other than its own transpose."""
    values = evidence.recording.initial[name]
    return not np.array_equal(values, values.T)


def turned(names: parameter_names.Names, chosen: tuple[str, ...]) -> Any:
    """Return the same mapping with some weights the other way round."""

    class Turned:
        buffers = names.buffers

        def to_port(self, weights: PyTree, *rest: PyTree) -> PyTree:
            return names.to_port({name: v.T if name in chosen else v for name, v in weights.items()}, *rest)

        def from_port(self, params: PyTree, *rest: PyTree) -> PyTree:
            return {name: v.T if name in chosen else v for name, v in names.from_port(params, *rest).items()}

    return Turned()


def _gelu(evidence: Evidence) -> Iterator[Cause]:
    for rule, here, fix in (
        (rules.ExactGelu(), "by tanh", "jax.nn.gelu(x, approximate=False)"),
        (rules.TanhGelu(), "by erf", "jax.nn.gelu(x, approximate=True)"),
    ):
        agreement = evidence.agreement(evidence.probe(_with(evidence.port, rule)))
        if agreement is not None:
            other = "erf" if here == "by tanh" else "tanh"
            sentence = f"with GELU by {other} the two agree {within(agreement)}: the port's is {here}"
            yield _cause("GELU approximation", sentence, f"write {fix}", agreement)


def _epsilons(evidence: Evidence) -> Iterator[Cause]:
    seen = rules.Epsilon()
    evidence.probe(_with(evidence.port, seen))
    own = float(np.finfo(evidence.recording.dtype).eps)  # torch.nn.RMSNorm's default
    for old in seen.found:
        for new in (*_USUAL_EPSILONS, own):
            if abs(new - old) <= 1e-6 * old:
                continue
            agreement = evidence.agreement(evidence.probe(_with(evidence.port, rules.Epsilon(old, new))))
            if agreement is not None:
                layer = _normalization(evidence)
                sentence = f"with an epsilon of {new:.9g} for {old:.9g} the two agree {within(agreement)}: the port's "
                sentence += "normalisation has another one than PyTorch's"
                flax = {"BatchNorm": 1e-5}.get(layer, 1e-6)
                default = f"; flax.nnx.{layer} has {flax:g} by default" if math.isclose(old, flax, rel_tol=1e-6) else ""
                default = "" if layer == "normalization" else default
                yield _cause(f"{layer} epsilon", sentence, f"set epsilon={new:.9g}{default}", agreement)
                return


def _normalization(evidence: Evidence) -> str:
    """Return the one kind of normalization that PyTorch's model has, by Flax's name, if there is just one."""
    layers = str(evidence.recording.environment.get("layers", "")).split(", ")
    kinds = {re.sub(r"\d+d$", "", layer) for layer in layers if "Norm" in layer}
    kinds |= {"LayerNorm"} if any("Transformer" in layer for layer in layers) else set()
    return kinds.pop() if len(kinds) == 1 else "normalization"


def _dropout(evidence: Evidence) -> Iterator[Cause]:
    rule = rules.NoDropout()
    agreement = evidence.agreement(evidence.probe(_with(evidence.port, rule)))
    if agreement is not None:
        sentence = f"with nothing dropped the two agree {within(agreement)}: the port drops at random, and PyTorch "
        sentence += "does not"
        fix = "switch it off: model.eval() in Flax NNX, deterministic=True in Linen"
        yield _cause("dropout left on", sentence, fix, agreement)


def _casts(evidence: Evidence) -> Iterator[Cause]:
    rule = rules.Wide()
    agreement = evidence.agreement(evidence.probe(_with(evidence.port, rule)))
    if agreement is None or not rule.found:
        return
    narrowest = next(name for name in ("bfloat16", "float16", "tensorfloat32", "float32") if name in rule.found)
    sentence = f"without the port's casts to {narrowest} the two agree {within(agreement)}: it computes in "
    sentence += f"{narrowest} even where it is given float64"
    yield _cause(_CAUSE_NAMES[narrowest], sentence, "let dtypes follow the inputs: no astype, no dtype=...", agreement)


def _statistics(evidence: Evidence) -> Iterator[Cause]:
    if evidence.port.state is None:
        return
    first = len(jax.tree.leaves(evidence.port.params))
    rule = rules.BatchStatistics(first, first + len(jax.tree.leaves(evidence.port.state)))
    agreement = evidence.agreement(evidence.probe(_with(evidence.port, rule)))
    if agreement is not None:
        sentence = f"with the batch's own mean and variance the two agree {within(agreement)}: the port normalises "
        sentence += "by running statistics, as in evaluation, while PyTorch trains"
        fix = "train it in training mode: model.train(), or use_running_average=False"
        yield _cause("BatchNorm in eval mode", sentence, fix, agreement)


def _stopped(evidence: Evidence) -> Iterator[Cause]:
    """Try all stopped gradients, or one of them: those that a library stops for good reason change nothing."""
    probes, fixed = evidence.probe(), evidence.probe(_with(evidence.port, rules.Differentiated()))
    agreement = evidence.agreement(fixed)
    if agreement is None:
        fixed, agreement = _stopped_once(evidence)
    if agreement is None or probes is None or fixed is None:
        return
    fix = "take stop_gradient out of apply and loss"
    sentence = f"with jax.lax.stop_gradient left out the two agree {within(agreement)}: "
    still = [name for name in probes[0].gradients if not any(probe.gradients[name].any() for probe in probes)]
    if still:
        yield _cause("frozen parameter", f"{sentence}no gradient reaches {', '.join(still)}", fix, agreement)
        return
    less = [f.tensor for f in evidence.findings if f.stage == "gradient" and not f.same_program]
    yield _cause("stop_gradient", f"{sentence}a part of the gradient of {', '.join(less)} is stopped", fix, agreement)


def _stopped_once(evidence: Evidence) -> tuple[list[Probe] | None, float | None]:
    """Return the probes with one place of the model differentiated, at which the two agree."""

    def without(place: int | None) -> tuple[list[Probe] | None, int]:
        rule = rules.Differentiated(place)
        apply = rewritten(evidence.port.apply, rule)
        return evidence.probe(dataclasses.replace(evidence.port, apply=apply)), rule.found

    found = without(None)[1]
    for place in range(min(found, _MOST_STOPPED_PLACES) if found > 1 else 0):
        fixed = without(place)[0]
        agreement = evidence.agreement(fixed)
        if agreement is not None:
            return fixed, agreement
    return None, None
