"""The faults that people put into optimizers, each as a change of PyTorch's rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from parity.causes.optimizer.steps import Columns
from parity.optimizers.rule import OptimizerRule, Setting


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """One fault: its stable name, the rule with it, how it reads, and what to write instead."""

    name: str
    rule: OptimizerRule
    what: str
    fix: str


# What PyTorch does, which no transformation of Optax's does.
_CLIP_BY_NORM_FIX = "scale the gradients by min(1, {:g} / (norm + 1e-6)): optax.clip_by_global_norm has no epsilon"


def variants(columns: Columns) -> Iterator[Variant]:
    """Yield all faults without a number in them, the simplest first."""
    yield from _gradients(columns)
    yield from _clips(columns)
    yield from _FAULTS_BY_KIND.get(columns.kind, _adam)(columns)
    yield from _decay(columns)


def _gradients(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    yield Variant(
        "maximize missed",
        dataclasses.replace(rule, maximize=~np.asarray(rule.maximize)),
        "the port steps in the opposite direction" if np.any(rule.maximize) else "the port maximizes",
        "negate the gradient as PyTorch does: jaxreg.sgd(..., maximize=True)"
        if np.any(rule.maximize)
        else "let the optimizer descend: maximize=False",
    )
    yield Variant(
        "gradients not zeroed",
        dataclasses.replace(rule, gradient="added up"),
        "the port adds the gradients of all steps before to each step's own",
        "give the optimizer each step's own gradient",
    )
    for form in ("stale", "stale at first"):
        yield Variant(
            "stale gradient",
            dataclasses.replace(rule, gradient=form),
            "the port uses the gradient of the step before",
            "take the gradient at the weights that it is about to change",
        )


def _clips(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    if np.isfinite(rule.clip_norm):
        yield Variant(
            "epsilon of the clipped norm",
            dataclasses.replace(rule, clip_epsilon=0.0),
            "gradients are divided by their norm, to which PyTorch adds 1e-6",
            _CLIP_BY_NORM_FIX.format(rule.clip_norm),
        )
    for own, other, has, wanted in (
        ("clip_norm", "clip_value", "each number by itself", _CLIP_BY_NORM_FIX),
        ("clip_value", "clip_norm", "by their norm", "use optax.clip({:g})"),
    ):
        limit = getattr(rule, own)
        if np.isfinite(limit):
            yield Variant(
                "gradient clipping",
                dataclasses.replace(rule, **{own: np.inf, other: limit}, clip_epsilon=0.0),
                f"the port clips the gradients {has}, which PyTorch does not",
                wanted.format(limit),
            )
    if np.isfinite(rule.clip_norm) or np.isfinite(rule.clip_value):
        yield Variant(
            "gradient clipping missing",
            dataclasses.replace(rule, clip_norm=np.inf, clip_value=np.inf),
            "the gradients are not clipped",
            _CLIP_BY_NORM_FIX.format(rule.clip_norm)
            if np.isfinite(rule.clip_norm)
            else f"put optax.clip({rule.clip_value:g}) first in the chain",
        )


def _sgd(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    heavy, damped = bool(np.any(rule.momentum)), bool(np.any(rule.dampening))
    if not heavy:
        return
    if rule.nesterov:
        yield _nesterov_missing(rule)
        for form in ("mixed", "after", "twice", "larger"):
            yield Variant(
                "Nesterov in another form",
                dataclasses.replace(rule, nesterov=form),
                "the port looks ahead in another way than PyTorch's g + momentum * b",
                "use jaxreg.sgd(..., nesterov=True)",
            )
    else:
        yield Variant(
            "Nesterov added",
            dataclasses.replace(rule, nesterov="torch"),
            "the port uses Nesterov's momentum and PyTorch does not",
            "leave nesterov=True out",
        )
    if damped:
        yield Variant(
            "dampening missing",
            dataclasses.replace(rule, dampening=0.0),
            "the port's momentum takes the whole gradient in, PyTorch's a share of it",
            f"use jaxreg.sgd(..., dampening={shown(rule.dampening)}): Optax has none",
        )
        yield Variant(
            "dampening on the first step",
            dataclasses.replace(rule, first_damped=True),
            "the port damps the first gradient too, which PyTorch takes whole",
            "use jaxreg.sgd, whose first step is PyTorch's",
        )
    for first in (False, True):
        yield Variant(
            "dampening added",
            dataclasses.replace(rule, dampening=rule.momentum, first_damped=first),
            "the port's velocity is a moving average, with (1 - momentum) of each gradient",
            "use optax.trace or jaxreg.sgd, not optax.ema",
        )
    for sign in (1, -1):
        yield Variant(
            "learning rate inside the velocity",
            dataclasses.replace(rule, rate_inside=sign),
            "the port's velocity has the learning rate in it, so that a change of the rate acts late",
            "multiply by the learning rate after the momentum, as jaxreg.sgd does",
        )


def _nesterov_missing(rule: OptimizerRule) -> Variant:
    return Variant(
        "Nesterov missing",
        dataclasses.replace(rule, nesterov=""),
        "the port's momentum does not look ahead as PyTorch's does",
        "set nesterov=True",
    )


def _adam(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    for corrected, of in (
        ((False, False), ""),
        ((True, False), " of the second moment"),
        ((False, True), " of the first"),
    ):
        yield Variant(
            "bias correction missing",
            dataclasses.replace(rule, corrected=corrected),
            f"the port leaves the bias correction{of} out",
            "divide the moments by 1 - beta**step, as optax.scale_by_adam does",
        )
    yield _epsilon_inside(columns)
    yield Variant(
        "epsilon",
        dataclasses.replace(rule, eps_place="before"),
        "the port adds epsilon before the bias is corrected",
        "add epsilon to the root of the corrected second moment",
    )
    yield Variant(
        "AMSGrad missing" if rule.amsgrad else "AMSGrad added",
        dataclasses.replace(rule, amsgrad=not rule.amsgrad),
        "one side uses the largest second moment so far, and the other the last",
        "use optax.amsgrad" if rule.amsgrad else "use optax.adam",
    )
    yield Variant(
        "Nesterov added",
        dataclasses.replace(rule, nesterov="torch"),
        "the port is NAdam where PyTorch's is Adam",
        "leave nesterov=True out",
    )


# How Optax is told to add epsilon after the root.
_EPSILON_OUTSIDE_FIXES = {
    "RMSprop": "set eps_in_sqrt=False",
    "Adagrad": "optax.adagrad always has eps under the root: write the update out, with sqrt(sum) + eps below",
}


def epsilon_outside(kind: str) -> str:
    """Return the fix for an epsilon under the root."""
    return _EPSILON_OUTSIDE_FIXES.get(kind, "use eps in place of eps_root")


def _epsilon_inside(columns: Columns) -> Variant:
    return Variant(
        "epsilon inside the root",
        dataclasses.replace(columns.rule, eps_place="inside"),
        "the port adds epsilon under the root, PyTorch after it",
        epsilon_outside(columns.kind),
    )


def _radam(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    yield Variant(
        "epsilon after the bias correction",
        dataclasses.replace(rule, eps_place="outside"),
        "the port adds epsilon after the bias of the second moment is corrected, PyTorch before it",
        "no setting of optax.radam does this: write its update out, with (sqrt(nu) + eps) / sqrt(1 - b2**step) below",
    )
    for place in ("outside", "before"):
        yield Variant(
            "RAdam missing",
            dataclasses.replace(rule, rectified=False, eps_place=place),
            "the port is Adam where PyTorch's is RAdam",
            "use optax.radam, whose epsilon is added after the bias correction",
        )


def _rmsprop(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    yield _epsilon_inside(columns)
    yield Variant(
        "bias correction added",
        dataclasses.replace(rule, corrected=(False, True)),
        "the port corrects the bias of the squares, and PyTorch does not",
        "leave bias_correction=True out",
    )
    yield Variant(
        "centered missing" if rule.centered else "centered added",
        dataclasses.replace(rule, centered=not rule.centered),
        "one side subtracts the squared mean gradient, the other does not",
        f"set centered={rule.centered}",
    )
    if np.any(rule.momentum):
        inside = "learning rate inside the velocity"
        for place, name in (("outside", inside), ("inside", f"epsilon inside the root, {inside}")):
            for sign in (1, -1):
                yield Variant(
                    name,
                    dataclasses.replace(rule, rate_inside=sign, eps_place=place),
                    "the port's velocity has the learning rate in it, so that a change of the rate acts late"
                    + (", and epsilon is under the root" if place == "inside" else ""),
                    "scale by the rate last: optax.chain(optax.scale_by_rms(..., eps_in_sqrt=False), optax.trace(...), "
                    "optax.scale_by_learning_rate(...))",
                )
        yield Variant(
            "Nesterov added",
            dataclasses.replace(rule, nesterov="torch"),
            "the port uses Nesterov's momentum and PyTorch does not",
            "leave nesterov=True out",
        )


def _adagrad(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    yield _epsilon_inside(columns)
    yield Variant(
        "initial accumulator",
        dataclasses.replace(rule, initial_accumulator=0.1),
        "the port's sum of squares starts from 0.1, Optax's own default",
        f"set initial_accumulator_value={shown(rule.initial_accumulator)}",
    )
    if np.any(rule.lr_decay):
        yield Variant(
            "learning rate decay missing",
            dataclasses.replace(rule, lr_decay=0.0),
            "the port leaves out lr_decay",
            f"divide the learning rate by 1 + {shown(rule.lr_decay)} * step",
        )


_FAULTS_BY_KIND = {"SGD": _sgd, "RAdam": _radam, "RMSprop": _rmsprop, "Adagrad": _adagrad}


def _decay(columns: Columns) -> Iterator[Variant]:
    rule = columns.rule
    decay = np.asarray(rule.weight_decay)
    if not decay.any():
        return
    if rule.decay_form == "l2":
        for form in ("decoupled", "whole"):
            yield Variant(
                "decoupled decay" if columns.kind == "SGD" else "decoupled decay for L2",
                dataclasses.replace(rule, decay_form=form),
                "the port takes the decay off the weights, PyTorch adds it to the gradient before everything else",
                "put optax.add_decayed_weights first in the chain"
                + (", or use jaxreg.sgd(..., weight_decay=...)" if columns.kind == "SGD" else ""),
            )
    else:
        yield Variant(
            "L2 for decoupled decay",
            dataclasses.replace(rule, decay_form="l2"),
            "the port adds the decay to the gradient, PyTorch takes it off the weights",
            "use optax.adamw(..., weight_decay=...)",
        )
        yield Variant(
            "decay",
            dataclasses.replace(rule, decay_form="whole"),
            "the port's decay is not multiplied by the learning rate",
            "put optax.add_decayed_weights before optax.scale_by_learning_rate",
        )
    yield Variant(
        "decay",
        dataclasses.replace(rule, weight_decay=np.zeros_like(decay)),
        "the port has no weight decay",
        f"use optax.adamw(..., weight_decay={shown(decay)})"
        if rule.decay_form == "decoupled"
        else f"put optax.add_decayed_weights({shown(decay)}) first in the chain"
        + (f", or use jaxreg.sgd(..., weight_decay={shown(decay)})" if columns.kind == "SGD" else ""),
    )
    if (decay > 0).all() or (decay == 0).any():
        skipped = np.where(columns.wide, decay, 0.0)
        if columns.wide.any() and (skipped != decay).any() and skipped.any():
            yield Variant(
                "decay skipped on some parameters",
                dataclasses.replace(rule, weight_decay=skipped),
                "the port decays none of the parameters with one axis, biases and scales",
                "decay all parameters as PyTorch does: leave the mask out",
            )
    if (decay == 0).any():
        yield Variant(
            "decay mask inverted",
            dataclasses.replace(rule, weight_decay=np.where(decay == 0, decay.max(), 0.0)),
            "the port decays just the parameters that PyTorch leaves undecayed",
            "turn the mask of the decay round: True where PyTorch decays",
        )
        yield Variant(
            "decay on all parameters",
            dataclasses.replace(rule, weight_decay=np.full_like(decay, decay.max())),
            "the port decays parameters that PyTorch leaves undecayed",
            "give the decay a mask: optax.add_decayed_weights(decay, mask=...)",
        )


def shown(values: Setting) -> str:
    some = np.unique(np.asarray(values))
    return f"{some[some != 0][0] if (some != 0).any() else 0.0:g}"
