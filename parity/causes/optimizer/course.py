"""What an optimizer's rule makes of the recorded gradients, each step from the recorded weights."""

from __future__ import annotations

import dataclasses

import numpy as np

from parity._types import Array
from parity.optimizers.clipping import norm_share
from parity.optimizers.error_arithmetic import WITH_ERRORS, Rounded, of
from parity.optimizers.rule import OptimizerRule
from parity.optimizers.updates import Step, step_constants, update

# Keys of state that starts from the initial accumulator, and not from zero.
_SQUARES_KEYS = ("exp_avg_sq", "square_avg", "sum")
# Roundings of a norm beside those of its sum.
_NORM_ROUNDINGS = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class Fed:
    """What an optimizer was fed, step by step, all parameters in one row of ``p`` numbers.

    Attributes:
        gradients, weights: shape ``(steps, p)``; the weights are those before each step.
        norms: of all gradients together, shape ``(steps,)``.
        count: how many numbers those are.
    """

    gradients: Array
    weights: Array
    norms: Array
    count: int

    def first(self, steps: int) -> Fed:
        """Return the first steps alone."""
        return Fed(self.gradients[:steps], self.weights[:steps], self.norms[:steps], self.count)


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """Weights and optimizer state after each step, by PyTorch's key; each of shape ``(steps, p)``."""

    weights: Rounded
    state: dict[str, Rounded]


def course(rule: OptimizerRule, fed: Fed) -> Course:
    """Return what an optimizer makes of its gradients, each step from the given weights."""
    weights, states = [], [_initial_state(rule, fed.weights.shape[1])]
    with np.errstate(all="ignore"):
        for number, before in enumerate(fed.weights):
            constants = step_constants(rule, rule.rates[number], number)
            gradients = _gradient(rule, fed, number)
            step = Step(rule, constants, number == 0, of(before), gradients, states[-1], WITH_ERRORS)
            after, state = update(step)
            weights.append(after)
            states.append(state)
    return Course(_stack(weights), {key: _stack([row[key] for row in states[1:]]) for key in states[-1]})


def _initial_state(rule: OptimizerRule, size: int) -> dict[str, Rounded]:
    start = rule.initial_accumulator
    return {key: of(np.zeros(size) + (start if key in _SQUARES_KEYS else 0.0)) for key in rule.state_keys}


def _stack(rows: list[Rounded]) -> Rounded:
    shape = np.broadcast_shapes(*[row.value.shape for row in rows])
    values = np.stack([np.broadcast_to(row.value, shape) for row in rows])
    return Rounded(values, np.stack([np.broadcast_to(row.error, shape) for row in rows]))


def _gradient(rule: OptimizerRule, fed: Fed, step: int) -> Rounded:
    """Return the gradient that a step takes: clipped, and of another step where the rule says so."""
    shares = np.ones(len(fed.gradients))
    if np.isfinite(rule.clip_norm):
        shares = norm_share(fed.norms, rule.clip_norm, rule.clip_epsilon)

    def at(place: int) -> Rounded:
        # The norm is a sum of as many squares as there are numbers.
        clipped = np.clip(shares[place] * fed.gradients[place], -rule.clip_value, rule.clip_value)
        return Rounded(clipped, 0.0 if shares[place] == 1 else (fed.count + _NORM_ROUNDINGS) * abs(clipped))

    if rule.gradient.startswith("stale"):
        return at(step - 1) if step else at(0) * (0.0 if rule.gradient == "stale" else 1.0)
    if rule.gradient != "added up":
        return at(step)
    total = at(0)
    for place in range(1, step + 1):
        total = total + at(place)
    return total
