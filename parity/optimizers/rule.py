"""An optimizer as data: PyTorch's settings, and the switches that turn it into what faulty ports compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from parity._types import Array
from parity.optimizers.clipping import NORM_EPSILON
from parity.recording.clipping import Clipping

# One number for all elements, or one for each.
Setting: TypeAlias = float | Array
KINDS = ("SGD", "Adam", "AdamW", "RAdam", "RMSprop", "Adagrad")
# Those whose steps are known; of the last two no fault is.
PORTED_KINDS = (*KINDS, "Adamax", "Adadelta")
_STATE_OF_KIND = {"Adagrad": ("sum",), "Adamax": ("exp_avg", "exp_inf"), "Adadelta": ("square_avg", "acc_delta")}
# Settings that may differ from element to element.
_BY_ELEMENT = (
    *("weight_decay", "maximize", "momentum", "dampening", "beta1", "beta2", "alpha", "eps", "lr_decay"),
    "initial_accumulator",
)


@dataclasses.dataclass(frozen=True, eq=False)
class OptimizerRule:
    """An optimizer's settings, each one number or one for each of ``p`` elements, and its switches.

    Attributes:
        kind: PyTorch's name of its class, one of :data:`PORTED_KINDS`.
        rates: learning rates, shape ``(steps,)`` or ``(steps, p)``.
        decay_form: ``"l2"`` into the gradient, ``"decoupled"`` times the learning rate, ``"whole"`` without it.
        first_damped: whether SGD's dampening is there in the first step too.
        nesterov: ``""`` for none, ``"torch"``, or another form.
        rate_inside: 0 where the learning rate is not in the velocity, 1 where it is, -1 where it is negative there.
        eps_place: ``"outside"`` the root, ``"inside"`` it, ``"before"`` the bias is corrected.
        corrected: which of Adam's two moments are corrected for their bias.
        rectified: whether RAdam's step is.
        initial_accumulator: what the squares' accumulator starts from.
        gradient: ``""`` as fed, ``"added up"``, ``"stale"`` by a step and at first none, ``"stale at first"`` its own.
        clip_norm, clip_value: what gradients are clipped to; ``clip_epsilon`` is added to the norm.
        frozen: elements that do not move.
    """

    kind: str
    rates: Array
    weight_decay: Setting = 0.0
    decay_form: str = "l2"
    maximize: bool | Array = False
    momentum: Setting = 0.0
    dampening: Setting = 0.0
    first_damped: bool = False
    nesterov: str = ""
    rate_inside: int = 0
    beta1: Setting = 0.9
    beta2: Setting = 0.999
    alpha: Setting = 0.99
    eps: Setting = 1e-8
    eps_place: str = "outside"
    corrected: tuple[bool, bool] = (True, True)
    amsgrad: bool = False
    rectified: bool = True
    centered: bool = False
    lr_decay: Setting = 0.0
    initial_accumulator: Setting = 0.0
    gradient: str = ""
    clip_norm: float = np.inf
    clip_epsilon: float = NORM_EPSILON
    clip_value: float = np.inf
    frozen: bool | Array = False

    @property
    def state_keys(self) -> tuple[str, ...]:
        """Return PyTorch's keys of the state that it keeps."""
        if self.kind == "SGD":
            return ("momentum_buffer",) if np.any(self.momentum) else ()
        if self.kind == "RMSprop":
            more = (("grad_avg", self.centered), ("momentum_buffer", np.any(self.momentum)))
            return ("square_avg", *(key for key, wanted in more if wanted))
        if self.kind in _STATE_OF_KIND:
            return _STATE_OF_KIND[self.kind]
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if self.amsgrad and self.kind != "RAdam" else ()))


def of_torch(kind: str, settings: Mapping[str, Any], rates: Array, clipping: Clipping | None = None) -> OptimizerRule:
    """Return the rule of one of PyTorch's optimizers.

    Args:
        kind: the name of its class.
        settings: its settings by PyTorch's names.
        rates: the learning rate of each step.
        clipping: how gradients are clipped before, as a recording keeps it.
    """

    def number(name: str, default: float = 0.0) -> float:
        value = settings.get(name, default)
        return float(value) if isinstance(value, bool | int | float) else 0.0

    clipping = clipping or {}
    beta1, beta2 = settings.get("betas") or (settings.get("beta1", 0.9), settings.get("beta2", 0.999))
    return OptimizerRule(
        kind=kind,
        rates=rates,
        weight_decay=number("weight_decay"),
        decay_form="decoupled" if kind == "AdamW" or settings.get("decoupled_weight_decay") else "l2",
        maximize=bool(settings.get("maximize")),
        momentum=number("momentum"),
        dampening=number("dampening"),
        nesterov="torch" if settings.get("nesterov") else "",
        beta1=float(beta1),
        beta2=float(beta2),
        alpha=number("rho" if kind == "Adadelta" else "alpha", 0.99),
        eps=number("eps"),
        eps_place="before" if kind == "RAdam" else "outside",
        amsgrad=bool(settings.get("amsgrad")),
        centered=bool(settings.get("centered")),
        lr_decay=number("lr_decay"),
        initial_accumulator=number("initial_accumulator_value"),
        clip_norm=clipping.get("max_norm", np.inf) if clipping.get("norm_type", 2.0) == 2 else np.inf,
        clip_value=clipping.get("clip_value", np.inf),
    )


def changed(rule: OptimizerRule, field: str, value: Setting) -> OptimizerRule:
    """Return the rule with another value of a setting, given by its name."""
    fields: dict[str, Any] = {field: value}
    return dataclasses.replace(rule, **fields)


def spread(rules: Sequence[OptimizerRule], owner: Array, rates: Array) -> OptimizerRule:
    """Return one rule for the elements of several parameters; its switches are those of the first.

    Args:
        rules: of each parameter.
        owner: which parameter each element is of, shape ``(p,)``.
        rates: learning rates, shape ``(steps, p)``.
    """
    columns: dict[str, Any] = {name: np.array([getattr(rule, name) for rule in rules])[owner] for name in _BY_ELEMENT}
    return dataclasses.replace(rules[0], rates=rates, **columns)
