"""PyTorch's optimizers step by step, those of ``torch.optim``'s single-tensor functions.

Run on arrays of JAX, every operation rounds where PyTorch's does, but for RAdam, whose order is another. Run on numbers
that know their rounding error, each switch of the rule turns the step into what a faulty port computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple

import jax
import numpy as np

from parity._types import Array
from parity.optimizers.arithmetic import Arithmetic, T
from parity.optimizers.error_arithmetic import Rounded, of, power
from parity.optimizers.rule import OptimizerRule

# RAdam's step is rectified where its moving average is longer than this.
_RADAM_LEAST_LENGTH_STEPS = 5.0


class Step(NamedTuple, Generic[T]):
    """What a step is made from.

    Attributes:
        rule: the optimizer.
        constants: of this step, see :func:`step_constants`.
        is_first: whether it is the first step of all; it may be traced.
        weights, gradients: before the step.
        state: before the step, by PyTorch's keys.
        xp: functions of such arrays.
    """

    rule: OptimizerRule
    constants: Mapping[str, T]
    is_first: bool | jax.Array
    weights: T
    gradients: T
    state: Mapping[str, T]
    xp: Arithmetic[T]


def step_constants(
    rule: OptimizerRule, rates: Array, step: int | Array, power: Callable[[Any, Any], Rounded] = power
) -> dict[str, Rounded]:
    """Return what PyTorch computes in Python, in double precision, before a step, such as the step size.

    Args:
        rule: the optimizer.
        rates: the learning rates of the step.
        step: its number, from 0; or of as many steps as there are rates.
        power: a power, and how far it may be from exact.
    """
    rate, decay = of(rates), of(rule.weight_decay)
    constants = {"rate": rate}
    if rule.decay_form != "l2" and np.any(rule.weight_decay):
        constants["kept"] = 1 - (rate * decay if rule.decay_form == "decoupled" else decay)
    if rule.kind in ("Adam", "AdamW", "RAdam"):
        share1 = 1 - power(rule.beta1, step + 1) if rule.corrected[0] else of(1.0)
        share2 = 1 - power(rule.beta2, step + 1) if rule.corrected[1] else of(1.0)
        constants |= {"size": rate / share1, "root": share2.sqrt()}
        if rule.nesterov:
            constants["following"] = share1 / (1 - power(rule.beta1, step + 2)) if rule.corrected[0] else of(1.0)
    if rule.kind == "Adamax":
        constants["size"] = rate / (1 - power(rule.beta1, step + 1))
    if rule.kind == "RAdam":
        most = 2 / (1 - of(rule.beta2)) - 1
        length = most - 2.0 * (step + 1) * power(rule.beta2, step + 1) / share2
        squared = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
        constants |= {"length": length, "rectification": squared.sqrt()}
    if rule.kind == "RMSprop" and rule.corrected == (False, True):
        constants["root"] = (1 - power(rule.alpha, step + 1)).sqrt()
    if rule.kind == "Adagrad":
        constants["size"] = rate / (1 + of(rule.lr_decay) * step)
    return constants


def update(step: Step[T]) -> tuple[T, dict[str, T]]:
    """Return the next weights and the next state, by PyTorch's keys."""
    rule, weights, gradients, xp = step.rule, step.weights, step.gradients, step.xp
    if np.any(rule.maximize):
        gradients = _choose(rule.maximize, -gradients, gradients, xp)
    decayed, kept = np.asarray(rule.weight_decay) != 0, weights
    if decayed.any() and rule.decay_form == "l2":
        gradients = _choose(decayed, gradients + rule.weight_decay * weights, gradients, xp)
    elif decayed.any():
        kept = _choose(decayed, weights * step.constants["kept"], weights, xp)
    moved, after = _UPDATES[rule.kind](step._replace(weights=kept, gradients=gradients))
    return _choose(rule.frozen, weights, moved, xp), after


def _choose(mask: bool | Array, yes: T, no: T, xp: Arithmetic[T]) -> T:
    """Return the one where a setting holds and the other elsewhere; no operation where it is the same everywhere."""
    if np.all(mask):
        return yes
    return xp.where(mask, yes, no) if np.any(mask) else no


def _sgd(step: Step[T]) -> tuple[T, dict[str, T]]:
    rule, gradients = step.rule, step.gradients
    if not np.any(rule.momentum):
        return step.weights - step.constants["rate"] * gradients, {}
    taken = _with_rate(step, gradients)
    buffer = rule.momentum * step.state["momentum_buffer"] + (1 - rule.dampening) * taken
    if not rule.first_damped:
        buffer = step.xp.where(step.is_first, taken, buffer)
    return step.weights - _heavy(step, taken, buffer), {"momentum_buffer": buffer}


def _with_rate(step: Step[T], values: T) -> T:
    inside = step.rule.rate_inside
    return (inside * step.constants["rate"]) * values if inside else values


# What a velocity makes of the gradient g, the momentum m and the buffer b.
_LOOKS_AHEAD: dict[str, Callable[[Any, Any, Any], Any]] = {
    "": lambda g, m, b: b,
    "torch": lambda g, m, b: g + m * b,
    "twice": lambda g, m, b: g + m * (g + m * b),
    "mixed": lambda g, m, b: (1 - m) * g + m * b,
    "larger": lambda g, m, b: b + m * b,
    "after": lambda g, m, b: m * b,
}


def _heavy(step: Step[T], taken: T, buffer: T) -> T:
    """Return what a momentum moves the weights by."""
    rule = step.rule
    ahead: T = _LOOKS_AHEAD[rule.nesterov](taken, rule.momentum, buffer)
    moved = _choose(np.asarray(rule.momentum) != 0, ahead, taken, step.xp)
    return float(rule.rate_inside) * moved if rule.rate_inside else step.constants["rate"] * moved


def _moments(step: Step[T]) -> dict[str, T]:
    rule, gradients, state = step.rule, step.gradients, step.state
    return {
        "exp_avg": step.xp.lerp(state["exp_avg"], gradients, 1 - rule.beta1),
        "exp_avg_sq": rule.beta2 * state["exp_avg_sq"] + (1 - rule.beta2) * gradients * gradients,
    }


def _adam(step: Step[T]) -> tuple[T, dict[str, T]]:
    rule, after = step.rule, _moments(step)
    upper, squares = after["exp_avg"], after["exp_avg_sq"]
    if rule.amsgrad:
        squares = after["max_exp_avg_sq"] = step.xp.maximum(step.state["max_exp_avg_sq"], squares)
    if rule.nesterov:
        upper = rule.beta1 * step.constants["following"] * upper + (1 - rule.beta1) * step.gradients
    return step.weights - step.constants["size"] * (upper / _denominator(step, squares)), after


def _radam(step: Step[T]) -> tuple[T, dict[str, T]]:
    """Make Adam's step rectified, and without a denominator while the variance has no bound.

    Liu et al., 2020, arXiv 1908.03265, algorithm 2; PyTorch adds epsilon before the bias is corrected.
    """
    after, constants = _moments(step), step.constants
    upper, lower = after["exp_avg"], _denominator(step, after["exp_avg_sq"])
    if not step.rule.rectified:
        return step.weights - constants["size"] * (upper / lower), after
    is_long = constants["length"] > _RADAM_LEAST_LENGTH_STEPS
    moved = step.xp.where(is_long, constants["rectification"] * upper / lower, upper)
    return step.weights - constants["size"] * moved, after


def _denominator(step: Step[T], squares: T) -> T:
    """Return the root of the squares, corrected for its bias where there is a ``root`` for that, and epsilon."""
    root, place, eps = step.constants.get("root"), step.rule.eps_place, step.rule.eps
    if place == "inside":
        return step.xp.sqrt((squares if root is None else squares / (root * root)) + eps)
    below = step.xp.sqrt(squares)
    if place == "before":
        return below + eps if root is None else (below + eps) / root
    return (below if root is None else below / root) + eps


def _rmsprop(step: Step[T]) -> tuple[T, dict[str, T]]:
    rule, gradients, state = step.rule, step.gradients, step.state
    after = {"square_avg": rule.alpha * state["square_avg"] + (1 - rule.alpha) * gradients * gradients}
    squares = after["square_avg"]
    if rule.centered:
        mean = after["grad_avg"] = step.xp.lerp(state["grad_avg"], gradients, 1 - rule.alpha)
        squares = squares - mean * mean
    scaled = gradients / _denominator(step, squares)
    if not np.any(rule.momentum):
        return step.weights - step.constants["rate"] * scaled, after
    taken = _with_rate(step, scaled)
    buffer = after["momentum_buffer"] = rule.momentum * state["momentum_buffer"] + taken
    return step.weights - _heavy(step, taken, buffer), after


def _adagrad(step: Step[T]) -> tuple[T, dict[str, T]]:
    total = step.state["sum"] + step.gradients * step.gradients
    return step.weights - step.constants["size"] * (step.gradients / _denominator(step, total)), {"sum": total}


def _adamax(step: Step[T]) -> tuple[T, dict[str, T]]:
    """Divide by the largest gradient so far, forgotten by and by: Kingma and Ba, 2015, arXiv 1412.6980, section 7.1."""
    rule, gradients, xp = step.rule, step.gradients, step.xp
    mean = xp.lerp(step.state["exp_avg"], gradients, 1 - rule.beta1)
    size = xp.maximum(gradients, -gradients) + rule.eps
    largest = xp.maximum(rule.beta2 * step.state["exp_inf"], size)
    return step.weights - step.constants["size"] * (mean / largest), {"exp_avg": mean, "exp_inf": largest}


def _adadelta(step: Step[T]) -> tuple[T, dict[str, T]]:
    """Take a step as long as the steps before: Zeiler, 2012, arXiv 1212.5701, algorithm 1."""
    rule, gradients, xp = step.rule, step.gradients, step.xp
    squares = rule.alpha * step.state["square_avg"] + (1 - rule.alpha) * gradients * gradients
    before = step.state["acc_delta"]
    delta = xp.sqrt(before + rule.eps) / xp.sqrt(squares + rule.eps) * gradients
    steps = rule.alpha * before + (1 - rule.alpha) * delta * delta
    return step.weights - step.constants["rate"] * delta, {"square_avg": squares, "acc_delta": steps}


_UPDATES: dict[str, Callable[..., Any]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "RAdam": _radam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Adamax": _adamax,
    "Adadelta": _adadelta,
}
