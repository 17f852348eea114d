"""The recorded optimizer as a function that JAX can trace, operation by operation as PyTorch rounds it.

A port's optimizer need not round where PyTorch's does: AdamW multiplies the weights by a factor before it moves them,
and Optax adds one update. What rounding can do to PyTorch's side is therefore derived from PyTorch's own rule.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from parity._types import Array
from parity.optimizers.arithmetic import TRACED
from parity.optimizers.clipping import clip
from parity.optimizers.error_arithmetic import UNIT_ROUNDOFF, python_power
from parity.optimizers.rule import OptimizerRule, of_torch
from parity.optimizers.updates import Step, step_constants, update
from parity.recording.clipping import Clipping
from parity.recording.recording import Recording

_logger = logging.getLogger(__name__)
Named = Mapping[str, jax.Array]
Numbers = dict[str, Array]
# The kinds whose operations stand in :mod:`parity.optimizers.updates` in the order in which PyTorch rounds them.
_EXACT_ORDER_KINDS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adamax", "Adadelta")
# PyTorch computes its constants in double precision, and the values here are computed so too.
_COMPARED_COMPUTATIONS = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Parameters that share all settings, step by step.

    Attributes:
        names: the parameters.
        rule: their settings.
        values: what PyTorch computes in Python before each step, shape ``(steps,)``, such as the step size.
        errors: how far those may be from exact, in the same shape.
    """

    names: tuple[str, ...]
    rule: OptimizerRule
    values: Numbers
    errors: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class TorchOptimizer:
    """The recorded optimizer.

    Attributes:
        groups: its parameters.
        clipping: how their gradients are clipped before.
    """

    groups: tuple[Group, ...]
    clipping: Clipping = dataclasses.field(default_factory=dict)

    def constants(self, steps: Array) -> tuple[list[Numbers], list[Numbers]]:
        """Return what is computed in Python before these steps, by group: values, and how far they may be off."""
        values = [{name: column[steps] for name, column in group.values.items()} for group in self.groups]
        errors = [{name: column[steps] for name, column in group.errors.items()} for group in self.groups]
        return values, errors

    def has_state(self, state: Mapping[str, Named]) -> bool:
        """Return whether a state by PyTorch's key has all that the rule needs."""
        return all(
            name in state.get(key, {}) for group in self.groups for key in group.rule.state_keys for name in group.names
        )

    def update(
        self,
        weights: Named,
        gradients: Named,
        state: Mapping[str, Named],
        constants: list[dict[str, jax.Array]],
        first: bool | jax.Array,
    ) -> tuple[dict[str, jax.Array], dict[str, dict[str, jax.Array]]]:
        """Return the next weights and the next state, of the parameters that move.

        Args:
            weights, gradients, state: before it, by PyTorch's names.
            constants: of this step, a dict of scalars for each group.
            first: whether it is the first step of all.
        """
        gradients = clip(self.clipping, {name: gradients[name] for group in self.groups for name in group.names})
        moved: dict[str, jax.Array] = {}
        after: dict[str, dict[str, jax.Array]] = {}
        for group, numbers in zip(self.groups, constants, strict=True):
            keys = group.rule.state_keys
            # All parameters of a group at once: a step of many small tensors would take long to compile.
            joined, apart = ravel_pytree({name: weights[name] for name in group.names})
            fed, *states = (
                ravel_pytree({name: tensors[name] for name in group.names})[0]
                for tensors in (gradients, *(state[key] for key in keys))
            )
            before = dict(zip(keys, states, strict=True))
            new, kept = update(Step(group.rule, numbers, first, joined, fed, before, TRACED))
            moved.update(apart(new))
            for key, values in kept.items():
                after.setdefault(key, {}).update(apart(values))
        return moved, after


def of(recording: Recording) -> TorchOptimizer | None:
    """Return the recorded optimizer; ``None`` where the order of its roundings is not written down."""
    kind = recording.optimizer.type.rpartition(".")[2]
    if kind not in _EXACT_ORDER_KINDS or not recording.optimizer.type.startswith("torch.optim."):
        _logger.debug("No rule of PyTorch's rounding for %s: its step is bounded by the port's.", kind)
        return None
    members: dict[tuple[str, bytes], list[str]] = {}
    for name in recording.rules:
        key = (repr(sorted(recording.rules[name].items())), recording.learning_rates[name].tobytes())
        members.setdefault(key, []).append(name)
    groups = []
    for names in members.values():
        rates = np.asarray(recording.learning_rates[names[0]], np.float64)
        rule = of_torch(kind, recording.rules[names[0]], rates)
        with np.errstate(divide="ignore", invalid="ignore"):
            constants = step_constants(rule, rates, np.arange(len(rates)), python_power)
        values = {name: np.broadcast_to(number.value, rates.shape) for name, number in constants.items()}
        errors = {
            name: np.broadcast_to(_COMPARED_COMPUTATIONS * UNIT_ROUNDOFF * number.error, rates.shape)
            for name, number in constants.items()
        }
        groups.append(Group(tuple(names), rule, values, errors))
    return TorchOptimizer(tuple(groups), recording.clipping)
