"""What rounding can do to SGD's state and weights: in one step, and carried along a whole training.

For a linear model with MSE the gradient is an affine function of the weights, so an error is carried from step to step
by a fixed matrix. It is followed in that matrix's own modes, where each is multiplied by one factor a step: entry by
entry the factors' absolute values would grow where the errors in truth die out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer

from parity._carried import by_modes, by_norms
from parity._linear_bounds import Format
from parity._recording import Array

Columns = Float64[np.ndarray, " p"]


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """SGD's constant settings, one for each column of the weights; frozen columns are not trained."""

    momentum: Columns
    dampening: Columns
    weight_decay: Columns
    nesterov: Bool[np.ndarray, " p"]
    maximize: Bool[np.ndarray, " p"]
    frozen: Bool[np.ndarray, " p"]

    @classmethod
    def of(cls, settings: Sequence[Mapping[str, Any] | None]) -> Rule:
        """The rule of columns with the recorded settings of ``torch.optim.SGD``; ``None`` where one is frozen."""
        rest = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
        known = [rest if column is None else column for column in settings]
        numbers = {name: np.array([float(column[name]) for column in known]) for name in list(rest)[:3]}
        switches = {name: np.array([bool(column[name]) for column in known]) for name in list(rest)[3:]}
        return cls(**numbers, **switches, frozen=np.array([column is None for column in settings]))

    @property
    def heavy(self) -> Bool[np.ndarray, " p"]:
        """Which columns have a momentum."""
        return self.momentum != 0

    @property
    def share(self) -> Columns:
        """The share of a gradient that momentum takes in."""
        return np.abs(1 - self.dampening)

    def of_columns(self, chosen: Any) -> Rule:
        """The rule of some of the columns."""
        return Rule(**{field.name: getattr(self, field.name)[chosen] for field in dataclasses.fields(self)})

    def uniform(self) -> bool:
        """Whether all columns are trained alike."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return not self.frozen.any() and all((value == value[0]).all() for value in values)


class Rounded(NamedTuple):
    """Roundings of the steps themselves, leading axis the steps: of the decayed gradient, the buffer, the weights."""

    gradient: Array
    buffer: Array
    weights: Array


def step_roundings(
    rule: Rule,
    rates: Float64[np.ndarray, "steps p"],
    gradient: Float64[np.ndarray, "steps o p"],
    buffer: Float64[np.ndarray, "steps o p"],
    before: Float64[np.ndarray, "steps o p"],
    after: Float64[np.ndarray, "steps o p"],
    form: Format,
) -> Rounded:
    """Roundings that the steps commit, given what they were given; ``buffer`` is the one after each step."""
    u, gamma2, rate = form.unit, form.gamma(2), rates[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        decayed = np.where(rule.maximize, -1.0, 1.0) * gradient + rule.weight_decay * before
        off_gradient = (gamma2 * rule.weight_decay * np.abs(before) + u * np.abs(decayed)) * (rule.weight_decay != 0)
        previous = np.concatenate([np.zeros_like(buffer[:1]), buffer[:-1]])
        products = rule.momentum * np.abs(previous) + rule.share * np.abs(decayed)
        off_buffer = (gamma2 * products + u * np.abs(buffer) + 8 * form.tiny) * rule.heavy
        off_buffer[0] = 0.0  # the first buffer is the gradient itself
        ahead = decayed + rule.momentum * buffer
        off_ahead = gamma2 * rule.momentum * np.abs(buffer) + u * np.abs(ahead) + off_gradient
        direction = _choose(rule, ahead, buffer, decayed)
        off_direction = _choose(rule, off_ahead, np.zeros_like(buffer), off_gradient)
        off_weights = rate * ((1 + gamma2) * off_direction + gamma2 * np.abs(direction)) + u * np.abs(after)
    moving = ~rule.frozen
    return Rounded(off_gradient * moving, off_buffer, (off_weights + form.tiny * (8 + rate)) * moving)


def _choose(rule: Rule, ahead: Array, buffer: Array, plain: Array) -> Array:
    """Column by column, what stands for the direction with Nesterov's momentum, with momentum, and without."""
    return np.where(rule.heavy, np.where(rule.nesterov, ahead, buffer), plain)


def locked_bounds(rule: Rule, rates: Array, rounded: Rounded, form: Format) -> tuple[Array, Array]:
    """Bounds on buffer and weights where every step is fed exact gradients and starts from exact weights."""
    slack = 1 + 8 * form.unit
    buffer = np.zeros_like(rounded.buffer)
    carried = np.zeros_like(rounded.buffer[0])
    for step in range(len(rates)):
        fresh = rounded.gradient[step] * (1.0 if step == 0 else rule.share)
        carried = slack * (rule.momentum * carried + fresh + rounded.buffer[step]) * rule.heavy
        buffer[step] = carried
    through = _choose(rule, rule.momentum * buffer, buffer, rounded.gradient)
    return buffer, slack * (rates[:, None] * through + rounded.weights)


def free_bounds(
    rule: Rule,
    rates: Float64[np.ndarray, "steps p"],
    hessians: list[Float64[np.ndarray, "p p"]],
    order: Integer[np.ndarray, " steps"],
    off_gradient: Float64[np.ndarray, "steps o p"],
    rounded: Rounded,
) -> tuple[Array, Array]:
    """Bounds on buffer and weights ``(steps, o, p)`` of a training on its own.

    Args:
        rule: the settings.
        rates: learning rates, ``(steps, p)``.
        hessians: of each batch, ``(p, p)``, the same for every output.
        order: which batch each step is fed.
        off_gradient: what rounding does to each step's gradient at the step's own weights, ``(steps, o, p)``.
        rounded: the roundings of the steps themselves.
    """
    alike = rule.uniform() and bool((rates == rates[:, :1]).all())
    steady = not rule.heavy.any() or bool((rates == rates[0]).all())
    with np.errstate(over="ignore", invalid="ignore"):
        local = _local(rule, rates, off_gradient, rounded)
        follow = by_modes if alike and steady and len(hessians) == 1 else by_norms
        buffer, weights = follow(rule, rates, hessians, order, local)
    return np.where(np.isnan(buffer), np.inf, buffer), np.where(np.isnan(weights), np.inf, weights)


def _local(rule: Rule, rates: Array, off_gradient: Array, rounded: Rounded) -> Array:
    """What each step adds to the error of (weights, buffer): shape ``(steps, o, p, 2)``."""
    fresh = (off_gradient + rounded.gradient) * ~rule.frozen
    taken_in = fresh * rule.share
    taken_in[0] = fresh[0]
    buffer = (taken_in + rounded.buffer) * rule.heavy
    direction = _choose(rule, fresh + rule.momentum * buffer, buffer, fresh)
    return np.stack([rates[:, None] * direction + rounded.weights, buffer], -1)
