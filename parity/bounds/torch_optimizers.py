"""PyTorch's optimizers as functions that JAX can trace, operation by operation as PyTorch rounds them.

A port's optimizer need not round where PyTorch's does: AdamW multiplies the weights by a factor before it moves them,
and Optax adds one update. What rounding can do to PyTorch's side is therefore derived from PyTorch's own rule, which is
that of ``torch.optim``'s single-tensor functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from parity.recording import clipping as _clipping
from parity.recording.recording import Array, Recording

Named = Mapping[str, Any]
Numbers = dict[str, Array]
# Python computes an optimizer's constants in double precision, each within so many units of its last place.
_UNITS, _UNIT = 4.0, 2.0**-53


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Parameters that share all settings, step by step.

    Attributes:
        names: the parameters.
        rule: their settings, but the learning rate.
        values: what PyTorch computes in Python before each step, shape ``(steps,)``, such as the step size.
        errors: how far those may be from exact, in the same shape.
    """

    names: tuple[str, ...]
    rule: Mapping[str, Any]
    values: Numbers
    errors: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """The recorded optimizer.

    Attributes:
        kind: PyTorch's name of its class.
        groups: its parameters.
        clipping: how their gradients are clipped before.
    """

    kind: str
    groups: tuple[Group, ...]
    clipping: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def constants(self, steps: Array) -> tuple[list[Numbers], list[Numbers]]:
        """What is computed in Python before these steps, by group: values, and how far they may be from exact."""
        values = [{name: column[steps] for name, column in group.values.items()} for group in self.groups]
        errors = [{name: column[steps] for name, column in group.errors.items()} for group in self.groups]
        return values, errors

    def follows(self, state: Mapping[str, Named]) -> bool:
        """Whether a state by PyTorch's key has all that the rule needs."""
        return all(
            name in state.get(key, {}) for g in self.groups for key in _keys(self.kind, g.rule) for name in g.names
        )

    def update(
        self, weights: Named, gradients: Named, state: Mapping[str, Named], constants: list[Any], first: Any
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """One step: the next weights and the next state, of the parameters that move.

        Args:
            weights, gradients, state: before it, by PyTorch's names.
            constants: of this step, a dict of scalars for each group.
            first: whether it is the first step of all.
        """
        gradients = _clipped(self.clipping, {n: gradients[n] for g in self.groups for n in g.names})
        moved: dict[str, Any] = {}
        after: dict[str, dict[str, Any]] = {}
        for group, numbers in zip(self.groups, constants, strict=True):
            keys = _keys(self.kind, group.rule)
            # All parameters of a group at once: a step of many small tensors would take long to compile.
            joined, apart = ravel_pytree({name: weights[name] for name in group.names})
            fed, *states = (
                ravel_pytree({name: tensors[name] for name in group.names})[0]
                for tensors in (gradients, *(state[key] for key in keys))
            )
            new, kept = _RULES[self.kind](group.rule, numbers, first, joined, fed, dict(zip(keys, states, strict=True)))
            moved.update(apart(new))
            for key, values in kept.items():
                after.setdefault(key, {}).update(apart(values))
        return moved, after


def of(recording: Recording) -> Rule | None:
    """The recorded optimizer's rule; ``None`` where it is not written down here."""
    kind = recording.optimizer.type.rpartition(".")[2]
    if kind not in _RULES or not recording.optimizer.type.startswith("torch.optim."):
        return None
    members: dict[Any, list[str]] = {}
    for name in recording.rules:
        key = (repr(sorted(recording.rules[name].items())), recording.learning_rates[name].tobytes())
        members.setdefault(key, []).append(name)
    groups = []
    for names in members.values():
        rule = recording.rules[names[0]]
        values, errors = _constants(kind, rule, np.asarray(recording.learning_rates[names[0]], np.float64))
        groups.append(Group(tuple(names), rule, values, errors))
    return Rule(kind, tuple(groups), recording.clipping)


def _clipped(clipping: _clipping.Clipping, gradients: Mapping[str, Any]) -> dict[str, Any]:
    """PyTorch's clipping on arrays of JAX, operation by operation as PyTorch rounds it."""
    if "clip_value" in clipping:
        limit = clipping["clip_value"]
        return {name: jnp.clip(gradient, -limit, limit) for name, gradient in gradients.items()}
    if not clipping:
        return dict(gradients)
    sizes = jnp.stack([_norm(jnp.ravel(g), clipping["norm_type"]) for g in gradients.values()])
    share = jnp.minimum(clipping["max_norm"] / (_norm(sizes, clipping["norm_type"]) + _clipping.EPSILON), 1.0)
    return {name: gradient * share for name, gradient in gradients.items()}


def _norm(values: Any, kind: float) -> Any:
    if np.isinf(kind):
        return jnp.abs(values).max()
    if kind == 2:
        return jnp.sqrt((values * values).sum())
    return (jnp.abs(values) ** kind).sum() ** (1 / kind)


def _keys(kind: str, rule: Mapping[str, Any]) -> tuple[str, ...]:
    if kind == "SGD":
        return ("momentum_buffer",) if rule.get("momentum") else ()
    if kind == "RMSprop":
        more = (("grad_avg", rule.get("centered")), ("momentum_buffer", rule.get("momentum")))
        return ("square_avg", *(key for key, wanted in more if wanted))
    if kind == "Adagrad":
        return ("sum",)
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if rule.get("amsgrad") else ()))


def _constants(kind: str, rule: Mapping[str, Any], rates: Array) -> tuple[Numbers, Numbers]:
    values: Numbers = {"rate": rates}
    errors: Numbers = {"rate": np.zeros_like(rates)}

    def told(name: str, value: Array, error: Array) -> None:
        values[name], errors[name] = value, error + _UNITS * _UNIT * np.abs(value)

    if _decoupled(kind, rule):
        told("kept", 1 - rates * float(rule["weight_decay"]), _UNIT * (1 + np.abs(rates)))
    if kind in ("Adam", "AdamW"):
        beta1, beta2 = map(float, rule["betas"])
        number = np.arange(1, len(rates) + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            power1, power2 = beta1**number, beta2**number
            # A power near one leaves little of one, and all of its error.
            share1, share2 = 1 - power1, np.sqrt(1 - power2)
            told("size", rates / share1, np.abs(rates / share1) * _UNITS * _UNIT * (1 + power1) / share1)
            told("root", share2, _UNITS * _UNIT * (1 + power2) / share2)
    if kind == "Adagrad":
        told("size", rates / (1 + np.arange(len(rates)) * float(rule.get("lr_decay", 0.0))), np.zeros_like(rates))
    return values, errors


def _decoupled(kind: str, rule: Mapping[str, Any]) -> bool:
    return bool(rule.get("weight_decay")) and (kind == "AdamW" or bool(rule.get("decoupled_weight_decay")))


def _taken(kind: str, rule: Mapping[str, Any], weights: Any, gradients: Any) -> Any:
    gradients = -gradients if rule.get("maximize") else gradients
    decay = 0.0 if _decoupled(kind, rule) else rule.get("weight_decay", 0.0)
    return gradients + decay * weights if decay else gradients


def _sgd(rule: Any, numbers: Any, first: Any, weights: Any, gradients: Any, state: Any) -> Any:
    gradients = _taken("SGD", rule, weights, gradients)
    momentum = rule.get("momentum", 0.0)
    if not momentum:
        return weights - numbers["rate"] * gradients, {}
    damped = (1 - rule.get("dampening", 0.0)) * gradients
    buffer = jnp.where(first, gradients, momentum * state["momentum_buffer"] + damped)
    ahead = gradients + momentum * buffer if rule.get("nesterov") else buffer
    return weights - numbers["rate"] * ahead, {"momentum_buffer": buffer}


def _towards(value: Any, end: Any, weight: float) -> Any:
    """``torch.lerp``, whose form depends on the weight."""
    return value + weight * (end - value) if weight < 0.5 else end - (end - value) * (1 - weight)


def _adam_of(kind: str) -> Callable[..., Any]:
    def update(rule: Any, numbers: Any, first: Any, weights: Any, gradients: Any, state: Any) -> Any:
        beta1, beta2 = map(float, rule["betas"])
        taken = _taken(kind, rule, weights, gradients)
        if _decoupled(kind, rule):
            weights = weights * numbers["kept"]
        after = {
            "exp_avg": _towards(state["exp_avg"], taken, 1 - beta1),
            "exp_avg_sq": beta2 * state["exp_avg_sq"] + (1 - beta2) * taken * taken,
        }
        squares = after["exp_avg_sq"]
        if rule.get("amsgrad"):
            squares = after["max_exp_avg_sq"] = jnp.maximum(state["max_exp_avg_sq"], squares)
        below = jnp.sqrt(squares) / numbers["root"] + rule["eps"]
        return weights - numbers["size"] * (after["exp_avg"] / below), after

    return update


def _rmsprop(rule: Any, numbers: Any, first: Any, weights: Any, gradients: Any, state: Any) -> Any:
    alpha, momentum = rule["alpha"], rule.get("momentum", 0.0)
    taken = _taken("RMSprop", rule, weights, gradients)
    after = {"square_avg": alpha * state["square_avg"] + (1 - alpha) * taken * taken}
    squares = after["square_avg"]
    if rule.get("centered"):
        mean = after["grad_avg"] = _towards(state["grad_avg"], taken, 1 - alpha)
        squares = squares - mean * mean
    scaled = taken / (jnp.sqrt(squares) + rule["eps"])
    if momentum:
        scaled = after["momentum_buffer"] = momentum * state["momentum_buffer"] + scaled
    return weights - numbers["rate"] * scaled, after


def _adagrad(rule: Any, numbers: Any, first: Any, weights: Any, gradients: Any, state: Any) -> Any:
    taken = _taken("Adagrad", rule, weights, gradients)
    total = state["sum"] + taken * taken
    return weights - numbers["size"] * (taken / (jnp.sqrt(total) + rule["eps"])), {"sum": total}


_RULES: dict[str, Callable[..., Any]] = {
    "SGD": _sgd,
    "Adam": _adam_of("Adam"),
    "AdamW": _adam_of("AdamW"),
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}
