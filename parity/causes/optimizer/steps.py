"""An optimizer's steps as rows of numbers: what it was fed, what PyTorch made of it, and what the port made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from parity.causes.optimizer.course import Course, Fed
from parity.optimizers.rule import KINDS, OptimizerRule, of_torch, spread
from parity.recording.recording import Array, Recording, Trace
from parity.replay.replay import Replay

# Elements of a parameter that are looked at: the rules act on each alone, so that many more tell nothing more.
_MOST_TENSOR_ELEMENTS = 500
# Steps at the least, where there are as many, and numbers in all at the most.
_LEAST_STEPS = 60
_MOST_NUMBERS = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Attributes:
    names: the trained parameters.
    owner: which of them each column is of, shape ``(p,)``.
    wide: which columns are of parameters with two or more axes.
    rule: PyTorch's own settings.
    fed: gradients and weights.
    torch, jax: the weights after each step, shape ``(steps, p)``.
    jax_state: the port's optimizer state, by PyTorch's key.
    """

    names: tuple[str, ...]
    owner: Array
    wide: Array
    rule: OptimizerRule
    fed: Fed
    torch: Array
    jax: Array
    jax_state: Mapping[str, Array]

    @property
    def kind(self) -> str:
        """Return PyTorch's name of the optimizer's class."""
        return self.rule.kind

    def explained(self, course: Course) -> bool:
        """Return whether the port's weights and state are those of ``course``, within rounding, at every step."""
        if not near(self.jax, course.weights.value, course.weights.slack):
            return False
        for key, values in self.jax_state.items():
            if key in course.state and not near(values, course.state[key].value, course.state[key].slack):
                return False
        return True

    def agreement(self, course: Course) -> float:
        """Return the largest gap of the port's weights from those of ``course``, relative to the largest weight."""
        size = float(np.abs(course.weights.value).max(initial=0.0)) or 1.0
        return float(np.abs(self.jax - course.weights.value).max(initial=0.0)) / size


def near(values: Array, exact: Array, slack: Array) -> bool:
    """Return whether values are within rounding of exact ones, all of them finite."""
    finite = np.isfinite(exact) & np.isfinite(slack)
    return bool((finite & (np.abs(values - exact) <= slack)).all())


def columns(recording: Recording, replay: Replay, until: int = 0) -> Columns | None:
    """Return the optimizer's steps, from the first one until some after ``until``; ``None`` if its rule is unknown."""
    kind = recording.optimizer.type.rpartition(".")[2]
    names = tuple(name for name in recording.initial if name in recording.rules)
    # A step's state is that of all steps before it: only those kept without a gap can be followed.
    steps = int((recording.kept == np.arange(len(recording.kept))).cumprod().sum())
    steps = min(steps, max(_LEAST_STEPS, until + 8))
    if kind not in KINDS or not names or not steps:
        return None
    most = int(np.clip(_MOST_NUMBERS // (steps * len(names)), 8, _MOST_TENSOR_ELEMENTS))
    places = {name: _places(recording.initial[name].size, most) for name in names}
    owner = np.concatenate([np.full(len(places[name]), number) for number, name in enumerate(names)])
    wide = np.array([recording.initial[name].ndim > 1 for name in names])[owner]

    def row(tensors: Mapping[str, Array]) -> Array:
        parts = [np.asarray(tensors[name][:steps]).reshape(steps, -1)[:, places[name]] for name in names]
        return np.concatenate(parts, 1).astype(np.float64)

    def state_of(trace: Trace) -> dict[str, Array]:
        return {key: row(values) for key, values in trace.state.items() if all(name in values for name in names)}

    gradients = recording.observed.gradients
    squares = [(np.asarray(gradients[name][:steps], np.float64) ** 2).reshape(steps, -1).sum(1) for name in gradients]
    fed = Fed(
        row(gradients),
        row(recording.weights_before()),
        np.sqrt(np.sum(squares, 0)),
        sum(recording.initial[name].size for name in gradients),
    )
    rates = np.stack([recording.learning_rates[name][:steps] for name in names], 1)[:, owner].astype(np.float64)
    own = [of_torch(kind, recording.rules[name], rates[:, 0], recording.clipping) for name in names]
    return Columns(
        names,
        owner,
        wide,
        spread(own, owner, rates),
        fed,
        row(recording.arbiter_locked.weights),
        row(replay.locked64.weights),
        state_of(replay.locked64),
    )


def _places(size: int, most: int) -> Array:
    if size <= most:
        return np.arange(size)
    # Spread unevenly, so that no stride of the tensor's layout falls into step with them.
    return np.unique(np.random.default_rng(size).integers(0, size, most))
