"""Ports that leave a library's defaults where PyTorch has others: several settings at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.causes.optimizer.faults import Variant, epsilon_outside, shown
from parity.causes.optimizer.steps import Columns
from parity.optimizers.rule import OptimizerRule, Setting

Settings = dict[str, Any]


def library_defaults(columns: Columns) -> Iterator[Variant]:
    """Yield the settings that a library has where the port says nothing, several of them at once."""
    rule, decoupled = columns.rule, columns.rule.decay_form == "decoupled"
    adam = {"beta1": 0.9, "beta2": 0.999}
    known: dict[str, tuple[tuple[str, Settings], ...]] = {
        "Adam": (("optax.adam", {**adam, "eps": 1e-8}), ("Keras's Adam", {**adam, "eps": 1e-7})),
        "AdamW": (
            ("optax.adamw", {**adam, "eps": 1e-8, "weight_decay": 1e-4}),
            ("Keras's AdamW", {**adam, "eps": 1e-7, "weight_decay": 0.004}),
        ),
        "RMSprop": (
            ("optax.rmsprop", {"alpha": 0.9, "eps": 1e-8, "eps_place": "inside", "momentum": 0.0}),
            ("Keras's RMSprop", {"alpha": 0.9, "eps": 1e-7, "eps_place": "inside", "momentum": 0.0}),
        ),
        "Adagrad": (
            ("optax.adagrad", {"initial_accumulator": 0.1, "eps": 1e-7, "eps_place": "inside", "lr_decay": 0.0}),
        ),
    }
    for whose, settings in known.get("AdamW" if columns.kind == "Adam" and decoupled else columns.kind, ()):
        changed = {name: value for name, value in settings.items() if np.any(np.asarray(getattr(rule, name)) != value)}
        if len(changed) > 1:
            told = ", ".join(f"{_OPTAX_WORDS.get(name, name)}={_own(value)}" for name, value in changed.items())
            yield Variant(
                ", ".join(
                    dict.fromkeys(_CAUSE_NAMES.get(name, name) for name in changed if not _within(name, changed))
                ),
                dataclasses.replace(rule, **changed),
                f"the port has the defaults of {whose}, {told}",
                _fix(columns.kind, rule, changed),
            )


# Settings by Optax's names.
OPTAX_NAMES = {"beta1": "b1", "beta2": "b2", "alpha": "decay", "the initial accumulator": "initial_accumulator_value"}
_OPTAX_WORDS = {**OPTAX_NAMES, "eps_place": "eps_in_sqrt", "initial_accumulator": "initial_accumulator_value"}


# The faults by the names that they have alone.
_CAUSE_NAMES = {
    "eps": "epsilon",
    "eps_place": "epsilon inside the root",
    "initial_accumulator": "initial accumulator",
    "weight_decay": "decay",
}


def _fix(kind: str, rule: OptimizerRule, changed: Settings) -> str:
    """Return what to write, of settings that the library has: optax.adagrad has none for the place of epsilon."""
    apart = kind == "Adagrad" and "eps_place" in changed
    own = [
        f"{_OPTAX_WORDS.get(name, name)}={_own(getattr(rule, name))}"
        for name in changed
        if not apart or name != "eps_place"
    ]
    return f"set them to PyTorch's: {', '.join(own)}" + (f"; {epsilon_outside(kind)}" if apart else "")


def _within(name: str, changed: Settings) -> bool:
    """Return whether the name of another change says this one too."""
    return name == "eps" and "eps_place" in changed


def _own(value: str | Setting) -> str:
    return str(value == "inside") if isinstance(value, str) else shown(value)
