"""Hypotheses about the optimizer, each put into PyTorch's own rule and held against the port's steps."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np

from parity._types import Array
from parity.causes.alternatives import mark_alternatives, within
from parity.causes.decimals import digits
from parity.causes.evidence import Evidence
from parity.causes.optimizer import learning_rate
from parity.causes.optimizer.course import course
from parity.causes.optimizer.faults import Variant, epsilon_outside, variants
from parity.causes.optimizer.fit_setting import Change, estimate
from parity.causes.optimizer.library_defaults import OPTAX_NAMES, library_defaults
from parity.causes.optimizer.steps import Columns, columns, near
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.optimizers.clipping import NORM_EPSILON
from parity.optimizers.rule import OptimizerRule, Setting, changed

_logger = logging.getLogger(__name__)
_USUAL_EPSILONS = tuple(10.0**power for power in range(-12, 0))
_USUAL_SHARES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
_USUAL_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)


def explain_optimizer(evidence: Evidence) -> list[Cause]:
    """Return what explains an update or an optimizer state that differs where the gradients are the same."""
    first = evidence.failing("optimizer state", "update")
    steps = None if first is None else columns(evidence.recording, evidence.replay, first.step or 0)
    if first is None or steps is None:
        if first is not None:
            _logger.debug("No hypothesis about the optimizer: its rule is not known, or no step was kept.")
        return []
    own = course(steps.rule, steps.fed)
    # The reference is PyTorch's rule only if it does what PyTorch did; and then it must not explain the port too.
    if not near(steps.torch, own.weights.value, own.weights.slack) or steps.explained(own):
        _logger.debug("No hypothesis about the optimizer: PyTorch's rule gives not its steps, or gives the port's too.")
        return []
    for group in (_switches, _by_tensor, _rates_of, _numbers):
        found = mark_alternatives(list(group(steps, first, evidence)))
        if found:
            return found
    return []


def _cause(first: Finding, variant: Variant, agreement: float) -> Cause:
    sentence = f"with PyTorch's rule changed so that {variant.what}, it gives the port's steps {within(agreement)}"
    return Cause(variant.name, sentence, variant.fix, first.stage, first.tensor, first.step or 0, agreement)


def _switches(steps: Columns, first: Finding, evidence: Evidence) -> Iterator[Cause]:
    for variant in (*variants(steps), *library_defaults(steps)):
        made = course(variant.rule, steps.fed)
        if steps.explained(made):
            yield _cause(first, variant, steps.agreement(made))


def _by_tensor(steps: Columns, first: Finding, evidence: Evidence) -> Iterator[Cause]:
    """Try faults of some parameters alone: each is PyTorch's, or the faulty one."""
    rule = steps.rule
    decay = np.asarray(rule.weight_decay)
    faults = {
        "frozen parameter": (dataclasses.replace(rule, frozen=True), "does not move", "give it to the optimizer"),
        "decay skipped on some parameters": (
            dataclasses.replace(rule, weight_decay=np.zeros_like(decay)),
            "is not decayed",
            "decay all parameters as PyTorch does: leave the mask out",
        ),
        "decay on all parameters": (
            dataclasses.replace(rule, weight_decay=np.full_like(decay, decay.max(initial=0.0))),
            "is decayed, and PyTorch does not decay it",
            "give the decay a mask: optax.add_decayed_weights(decay, mask=...)",
        ),
    }
    own = _explained_columns(steps, rule)
    for name, (faulty, what, fix) in faults.items():
        other = _explained_columns(steps, faulty)
        guilty = [number for number in range(len(steps.names)) if not own[steps.owner == number].all()]
        if not guilty or not all(other[steps.owner == number].all() for number in guilty):
            continue
        if name != "frozen parameter" and len(guilty) == len(steps.names) and not (decay == 0).any():
            continue
        named = ", ".join(steps.names[number] for number in guilty)
        mixed = _mixed(rule, faulty, np.isin(steps.owner, guilty))
        agreement = steps.agreement(course(mixed, steps.fed))
        sentence = f"{named} {what} in the port: with PyTorch's rule so changed, it gives the port's steps "
        sentence += within(agreement)
        yield Cause(name, sentence, fix, first.stage, first.tensor, first.step or 0, agreement)


def _mixed(rule: OptimizerRule, faulty: OptimizerRule, where: Array) -> OptimizerRule:
    decay = np.where(where, faulty.weight_decay, rule.weight_decay)
    return dataclasses.replace(rule, weight_decay=decay, frozen=np.where(where, faulty.frozen, rule.frozen))


def _explained_columns(steps: Columns, rule: OptimizerRule) -> Array:
    made = course(rule, steps.fed).weights
    with np.errstate(invalid="ignore"):
        return (np.abs(steps.jax - made.value) <= made.slack).all(0)


def _rates_of(steps: Columns, first: Finding, evidence: Evidence) -> Iterator[Cause]:
    for variant, made in learning_rate.explanations(steps, evidence.recording):
        yield _cause(first, variant, steps.agreement(made))


# -- faults with a number in them


@dataclasses.dataclass(frozen=True, eq=False)
class _Unknown:
    """A setting whose value is looked for: PyTorch's own, and how the fault reads with both."""

    name: str
    setting: str
    change: Change
    starts: tuple[float, ...]
    own: Setting


def _unknowns(steps: Columns) -> Iterator[_Unknown]:
    rule = steps.rule

    def setting(
        name: str, field: str, starts: tuple[float, ...], base: OptimizerRule = rule, said: str = ""
    ) -> _Unknown:
        own = getattr(rule, field)
        known = np.unique(np.asarray(own))
        return _Unknown(
            name,
            said or field,
            lambda value: changed(base, field, _in_place(own, value)),
            (*map(float, known), *(1.001 * float(v) for v in known), *starts),
            own,
        )

    yield setting("decay", "weight_decay", _USUAL_DECAYS)
    if steps.kind == "SGD":
        yield setting("momentum", "momentum", _USUAL_SHARES)
        if np.any(rule.momentum):
            yield setting("dampening", "dampening", _USUAL_SHARES)
    elif steps.kind in ("Adam", "AdamW", "RAdam"):
        yield setting("beta1", "beta1", _USUAL_SHARES)
        yield setting("beta2", "beta2", _USUAL_SHARES)
    elif steps.kind == "RMSprop":
        yield setting("alpha", "alpha", _USUAL_SHARES)
        yield setting("momentum", "momentum", _USUAL_SHARES)
    if steps.kind != "SGD":
        yield setting("epsilon", "eps", _USUAL_EPSILONS)
        inside = dataclasses.replace(rule, eps_place="inside")
        yield setting("epsilon inside the root", "eps", _USUAL_EPSILONS, inside, "eps under the root")
        if steps.kind in ("RMSprop", "Adagrad"):
            yield setting("initial accumulator", "initial_accumulator", (0.1, 1.0), said="the initial accumulator")
        if steps.kind == "Adagrad":
            yield setting("learning rate decay", "lr_decay", (1e-3, 1e-2, 0.1), said="lr_decay")
    sizes = tuple(float(np.quantile(steps.fed.norms, share)) * 0.9 for share in (0, 0.25, 0.5, 0.75, 1))
    sizes += (1.0, 0.5, 0.1)
    for epsilon in (0.0, NORM_EPSILON):  # Optax adds nothing to the norm, PyTorch a millionth
        of_norm = lambda value, epsilon=epsilon: dataclasses.replace(rule, clip_norm=abs(value), clip_epsilon=epsilon)  # noqa: E731
        yield _Unknown("gradient clipping", "the largest norm", of_norm, sizes, np.inf)
    largest = np.abs(steps.fed.gradients).max(1)
    values = tuple(float(np.quantile(largest, share)) * part for share in (0, 1) for part in (0.9, 0.5, 0.1))
    of_value = lambda value: dataclasses.replace(rule, clip_value=abs(value))  # noqa: E731
    yield _Unknown("gradient clipping", "the largest value", of_value, (*values, 1.0, 0.5, 0.1), np.inf)


def _in_place(own: Setting, value: float) -> Array:
    """Return the value in place of PyTorch's own; where that is off for some columns, they stay off."""
    array = np.asarray(own, np.float64)
    return np.where(array != 0, value, 0.0) if array.any() else np.full(array.shape, value)


def _fix(setting: str, own: str, decay_form: str) -> str:
    """Say what to write in the port, by Optax's names: few of its optimizers have a decay, and none dampening."""
    if setting == "weight_decay" and decay_form == "l2":
        return f"put optax.add_decayed_weights({own}) first in the chain, or use jaxreg.sgd(..., weight_decay={own})"
    if setting == "dampening":
        return f"use jaxreg.sgd(..., dampening={own}): Optax has none"
    name = OPTAX_NAMES.get(setting, setting)
    return f"set {name} to {own}" + (f" (PyTorch's {setting})" if name != setting else "")


def _numbers(steps: Columns, first: Finding, evidence: Evidence) -> Iterator[Cause]:
    if steps.jax.size < 2:  # one number is met by any rule with one unknown
        return
    for unknown in _unknowns(steps):
        found = estimate(steps, unknown.change, unknown.starts)
        if found is None:
            continue
        said = digits(found.value, found.slack)
        if unknown.name == "gradient clipping":
            what = f"the port clips its gradients, {unknown.setting} being {said}"
            fix = "leave the clipping out, or clip in PyTorch too: torch.nn.utils.clip_grad_norm_"
            if np.isfinite(steps.rule.clip_norm) or np.isfinite(steps.rule.clip_value):
                fix = f"clip to {min(steps.rule.clip_norm, steps.rule.clip_value):g}, as PyTorch does"
        else:
            own = ", ".join(f"{value:g}" for value in np.unique(np.asarray(unknown.own)))
            what = f"{unknown.setting} is {said} in place of {own}"
            fix = _fix(unknown.setting, own, steps.rule.decay_form)
        if unknown.name == "epsilon inside the root":
            fix = epsilon_outside(steps.kind)
        yield _cause(first, Variant(unknown.name, steps.rule, what, fix), steps.agreement(found.course))
