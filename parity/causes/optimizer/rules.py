"""PyTorch's optimizers in NumPy and float64, each with a switch for every fault that people put into theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from parity.causes.optimizer.error_arithmetic import Rounded, of, power
from parity.recording.clipping import EPSILON
from parity.recording.recording import Array


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
        """The first steps alone."""
        return Fed(self.gradients[:steps], self.weights[:steps], self.norms[:steps], self.count)


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """The settings of an optimizer, each a number or one for each of the ``p`` columns, and its switches.

    Attributes:
        rates: learning rates, shape ``(steps, p)``.
        decay_form: ``"l2"`` into the gradient, ``"decoupled"`` times the learning rate, ``"whole"`` without it.
        first_damped: whether SGD's dampening is there in the first step too.
        nesterov: ``""`` for none, ``"torch"``, or another form.
        rate_inside: 0 where the learning rate is not in the velocity, 1 where it is, -1 where it is negative there.
        eps_place: ``"outside"`` the root, ``"inside"`` it, ``"before"`` the bias is corrected.
        corrected: which of Adam's two moments are corrected for their bias.
        rectified: whether RAdam's step is.
        gradient: ``""`` as fed, ``"added up"``, ``"stale"`` by a step and at first none, ``"stale at first"`` its own.
        clip_norm, clip_value: what gradients are clipped to; ``clip_eps`` is added to the norm.
        start: what the squares' accumulator starts from.
        frozen: columns that do not move.
    """

    rates: Array
    weight_decay: Any = 0.0
    decay_form: str = "l2"
    maximize: Any = False
    momentum: Any = 0.0
    dampening: Any = 0.0
    first_damped: bool = False
    nesterov: str = ""
    rate_inside: int = 0
    beta1: Any = 0.9
    beta2: Any = 0.999
    alpha: Any = 0.99
    eps: Any = 1e-8
    eps_place: str = "outside"
    corrected: tuple[bool, bool] = (True, True)
    amsgrad: bool = False
    rectified: bool = True
    centered: bool = False
    lr_decay: Any = 0.0
    start: Any = 0.0
    gradient: str = ""
    clip_norm: float = np.inf
    clip_eps: float = EPSILON
    clip_value: float = np.inf
    frozen: Any = False


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """Weights and optimizer state after each step, by PyTorch's key; each of shape ``(steps, p)``."""

    weights: Rounded
    state: dict[str, Rounded]


Update = Callable[[Rule, int, Rounded, Array, dict[str, Rounded]], Rounded]


def course(kind: str, rule: Rule, fed: Fed) -> Course:
    """What an optimizer of this kind makes of its gradients, each step from the given weights."""
    state: dict[str, Rounded] = {}
    weights, states = [], []
    with np.errstate(all="ignore"):
        for step in range(len(fed.gradients)):
            before = fed.weights[step]
            gradient = _gradient(rule, fed, step)
            decay = of(rule.weight_decay) * before
            if rule.decay_form == "l2":
                gradient = gradient + decay.where(np.asarray(rule.weight_decay) != 0, 0.0)
            moved = KINDS[kind](rule, step, gradient, rule.rates[step], state)
            after = before - moved
            if rule.decay_form != "l2":
                after = after - (decay * (rule.rates[step] if rule.decay_form == "decoupled" else 1.0))
            weights.append(of(before).where(rule.frozen, after))
            states.append(dict(state))
    keys = states[-1]
    return Course(_stack(weights), {key: _stack([row[key] for row in states]) for key in keys if key[0] != "_"})


def _stack(rows: list[Rounded]) -> Rounded:
    shape = np.broadcast_shapes(*[row.value.shape for row in rows])
    values = np.stack([np.broadcast_to(row.value, shape) for row in rows])
    return Rounded(values, np.stack([np.broadcast_to(row.error, shape) for row in rows]))


def _gradient(rule: Rule, fed: Fed, step: int) -> Rounded:
    raw = fed.gradients
    shares = np.ones(len(raw))
    if np.isfinite(rule.clip_norm):
        shares = np.minimum(1.0, rule.clip_norm / (fed.norms + rule.clip_eps))

    def at(place: int) -> Rounded:
        # The norm is a sum of as many squares as there are numbers.
        clipped = np.clip(shares[place] * raw[place], -rule.clip_value, rule.clip_value)
        return Rounded(clipped, 0.0 if shares[place] == 1 else (fed.count + 4.0) * abs(clipped))

    if rule.gradient.startswith("stale"):
        gradient = at(step - 1) if step else at(0) * (0.0 if rule.gradient == "stale" else 1.0)
    elif rule.gradient == "added up":
        gradient = at(0)
        for place in range(1, step + 1):
            gradient = gradient + at(place)
    else:
        gradient = at(step)
    return gradient * np.where(rule.maximize, -1.0, 1.0)


def _sgd(rule: Rule, step: int, gradient: Rounded, rate: Array, state: dict[str, Rounded]) -> Rounded:
    momentum, heavy = of(rule.momentum), np.asarray(rule.momentum) != 0
    taken = gradient * (rule.rate_inside * rate) if rule.rate_inside else gradient
    damped = taken * (1 - of(rule.dampening))
    old = state.get("momentum_buffer", of(np.zeros_like(gradient.value)))
    buffer = momentum * old + damped if step or rule.first_damped else taken
    if np.any(heavy):
        state["momentum_buffer"] = buffer
    ahead = {
        "": buffer,
        "torch": taken + momentum * buffer,
        "twice": taken + momentum * (taken + momentum * buffer),
        "mixed": (1 - momentum) * taken + momentum * buffer,
        "larger": buffer + momentum * buffer,
        "after": momentum * buffer,
    }[rule.nesterov]
    moved = ahead.where(heavy, taken)
    return moved * float(rule.rate_inside) if rule.rate_inside else moved * rate


def _adam(rule: Rule, step: int, gradient: Rounded, rate: Array, state: dict[str, Rounded]) -> Rounded:
    beta1, beta2 = of(rule.beta1), of(rule.beta2)
    zero = of(np.zeros_like(gradient.value))
    first = beta1 * state.get("exp_avg", zero) + (1 - beta1) * gradient
    second = beta2 * state.get("exp_avg_sq", zero + rule.start) + (1 - beta2) * (gradient * gradient)
    state["exp_avg"], state["exp_avg_sq"] = first, second
    share1 = 1 - power(rule.beta1, step + 1) if rule.corrected[0] else of(1.0)
    share2 = 1 - power(rule.beta2, step + 1) if rule.corrected[1] else of(1.0)
    if rule.amsgrad:
        second = second.maximum(state.get("max_exp_avg_sq", zero))
        state["max_exp_avg_sq"] = second
    upper = first / share1
    if rule.nesterov:
        following = 1 - power(rule.beta1, step + 2) if rule.corrected[0] else of(1.0)
        upper = beta1 * first / following + (1 - beta1) * gradient / share1
    lower = _lower(rule, second / share2) if rule.eps_place != "before" else (second.sqrt() + rule.eps) / share2.sqrt()
    return rate * (upper / lower)


def _radam(rule: Rule, step: int, gradient: Rounded, rate: Array, state: dict[str, Rounded]) -> Rounded:
    """Adam whose step is rectified, and which has no denominator while the variance has no bound.

    Liu et al., 2020, arXiv 1908.03265, algorithm 2; PyTorch adds epsilon before the bias is corrected.
    """
    beta1, beta2, zero = of(rule.beta1), of(rule.beta2), of(np.zeros_like(gradient.value))
    first = beta1 * state.get("exp_avg", zero) + (1 - beta1) * gradient
    second = beta2 * state.get("exp_avg_sq", zero) + (1 - beta2) * (gradient * gradient)
    state["exp_avg"], state["exp_avg_sq"] = first, second
    left = power(rule.beta2, step + 1)
    share = 1 - left
    most = 2 / (1 - beta2) - 1
    length = most - 2.0 * (step + 1) * left / share
    upper = first / (1 - power(rule.beta1, step + 1))
    lower = (second.sqrt() + rule.eps) / share.sqrt() if rule.eps_place == "before" else _lower(rule, second / share)
    rectified = ((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)).sqrt()
    if not rule.rectified:
        return rate * (upper / lower)
    return rate * (rectified * upper / lower).where(length.value > 5, upper)


def _lower(rule: Rule, squares: Rounded) -> Rounded:
    if rule.eps_place == "inside":
        return (squares + rule.eps).sqrt()
    return squares.sqrt() + rule.eps


def _rmsprop(rule: Rule, step: int, gradient: Rounded, rate: Array, state: dict[str, Rounded]) -> Rounded:
    alpha, zero = of(rule.alpha), of(np.zeros_like(gradient.value))
    squares = alpha * state.get("square_avg", zero + rule.start) + (1 - alpha) * (gradient * gradient)
    state["square_avg"] = squares
    if rule.centered:
        mean = alpha * state.get("grad_avg", zero) + (1 - alpha) * gradient
        state["grad_avg"] = mean
        squares = squares - mean * mean
    if rule.corrected == (False, True):
        squares = squares / (1 - power(rule.alpha, step + 1))
    scaled = gradient / _lower(rule, squares)
    heavy = np.asarray(rule.momentum) != 0
    if not np.any(heavy):
        return rate * scaled
    taken = (rule.rate_inside * rate) * scaled if rule.rate_inside else scaled
    buffer = of(rule.momentum) * state.get("momentum_buffer", zero) + taken
    state["momentum_buffer"] = buffer
    ahead = taken + of(rule.momentum) * buffer if rule.nesterov else buffer
    return ahead * float(rule.rate_inside) if rule.rate_inside else rate * ahead


def _adagrad(rule: Rule, step: int, gradient: Rounded, rate: Array, state: dict[str, Rounded]) -> Rounded:
    total = state.get("sum", of(np.zeros_like(gradient.value)) + rule.start) + gradient * gradient
    state["sum"] = total
    return (rate / (1 + of(rule.lr_decay) * step)) * (gradient / _lower(rule, total))


KINDS: dict[str, Update] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "RAdam": _radam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}
