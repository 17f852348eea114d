"""PyTorch's optimizers as Optax transformations, by the table of their rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parity._errors import UnsupportedError
from parity.optimizers.arithmetic import TRACED
from parity.optimizers.clipping import clip
from parity.optimizers.rule import PORTED_KINDS, OptimizerRule, of_torch
from parity.optimizers.updates import Step, step_constants, update
from parity.porting.optax_state import STATE_FIELDS
from parity.recording.recording import Recording

_PREFIX = "torch.optim."


class State(NamedTuple):
    """What the optimizer keeps: the number of steps made, and trees by the names that Optax gives such fields."""

    count: Any
    kept: Mapping[str, Any]


def of(recording: Recording) -> optax.GradientTransformation:
    """Return the recorded optimizer, for parameters in a dict by PyTorch's names.

    Raises:
        UnsupportedError: it is none of those whose rules are known.
    """
    kind = recording.optimizer.type.rpartition(".")[2]
    if kind not in PORTED_KINDS or not recording.optimizer.type.startswith(_PREFIX):
        raise UnsupportedError(
            f"the optimizer is a {recording.optimizer.type}, which parity cannot port by itself; it ports "
            f"{', '.join(PORTED_KINDS)} of torch.optim{recording.environment.get('optimizer_line', '')}"
        )
    rules: dict[str, OptimizerRule] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, settings in recording.rules.items():
        rates = np.asarray(recording.learning_rates[name], np.float64)
        rules[name] = of_torch(kind, settings, rates)
        with np.errstate(divide="ignore", invalid="ignore"):
            constants = step_constants(rules[name], rates, np.arange(len(rates)))
        tables[name] = {key: np.broadcast_to(number.value, rates.shape) for key, number in constants.items()}
    return _transformation(rules, tables, recording)


def _transformation(
    rules: Mapping[str, OptimizerRule], tables: Mapping[str, Mapping[str, Any]], recording: Recording
) -> optax.GradientTransformation:
    keys = tuple(dict.fromkeys(key for rule in rules.values() for key in rule.state_keys))
    fields = {key: STATE_FIELDS[key][0] for key in keys}
    if len(set(fields.values())) < len(fields):
        raise UnsupportedError("the optimizer keeps two states that Optax has one name for")

    def init(params: Any) -> State:
        def first(key: str, name: str, leaf: Any) -> Any:
            if name not in rules or key not in rules[name].state_keys:
                return optax.MaskedNode()
            value = recording.rules[name].get("initial_accumulator_value", 0.0) if key == "sum" else 0.0
            return jnp.full_like(leaf, value)

        kept = {field: {n: first(key, n, leaf) for n, leaf in params.items()} for key, field in fields.items()}
        return State(jnp.zeros((), jnp.int32), kept)

    def step(gradients: Any, state: State, params: Any = None) -> tuple[Any, State]:
        count = state.count
        clipped = clip(recording.clipping, {name: gradients[name] for name in rules})
        updates = jax.tree.map(jnp.zeros_like, params)
        kept = {field: dict(tree) for field, tree in state.kept.items()}
        for name, rule in rules.items():
            leaf = params[name]
            constants = {key: jnp.asarray(table, leaf.dtype)[count] for key, table in tables[name].items()}
            before = {key: kept[fields[key]][name] for key in rule.state_keys}
            moved, after = update(Step(rule, constants, count == 0, leaf, clipped[name], before, TRACED))
            updates[name] = moved - leaf
            for key, values in after.items():
                kept[fields[key]][name] = values
        return updates, State(count + 1, kept)

    return optax.GradientTransformation(init, step)
