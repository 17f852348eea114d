"""One step of a port as pure functions, which JAX can trace in any precision, and what they take and give."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parity.recording.recording import Tree
from parity.replay.batches import Parts


class StepInput(NamedTuple):
    """What was recorded of the start of a step, by PyTorch's names."""

    weights: Any
    gradients: Any
    buffers: Any


class StepResult(NamedTuple):
    """What a step makes, by PyTorch's names.

    Forward, loss, gradients and the model's next state; then the optimizer's next state and the next weights.
    """

    predictions: Any
    loss: Any
    gradients: Any
    buffers: Any
    state: Any
    weights: Any


class Carry(NamedTuple):
    """What a port takes from step to step when it trains on its own, in its own trees."""

    params: Any
    optimizer: Any
    model: Any


class Pass(NamedTuple):
    """What forward and backward make of a batch, in the port's own trees."""

    predictions: Any
    loss: Any
    gradients: Any
    model: Any


# From what is carried, a row of what the steps are fed, the batch and its passes: what is carried on, and a result.
Step = Callable[[Any, Any, Any, Parts], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingStep:
    """The pure functions of a port's step.

    Attributes:
        apply, loss, optimizer: as in :class:`parity.Port`, with nothing but arrays in their trees.
    """

    apply: Callable[..., tuple[Any, Any]]
    loss: Callable[[Any, Any], Any]
    optimizer: optax.GradientTransformation

    def forward_backward(self, params: Any, model: Any, batch: Any, parts: Parts) -> Pass:
        """Compute predictions, loss, gradients and the model's next state over the backward passes of a step.

        Gradients and losses of several passes are added up, as PyTorch adds them up; predictions follow one another.
        """
        passes: list[Pass] = []
        for inputs, targets in pieces(batch, parts):
            passes.append(self._one_pass(params, model, inputs, targets))
            model = passes[-1].model
        if len(passes) == 1:
            return passes[0]
        predictions = jax.tree.map(lambda *rows: jnp.concatenate(rows), *[one.predictions for one in passes])
        return Pass(predictions, _sum([one.loss for one in passes]), _sum([one.gradients for one in passes]), model)

    def _one_pass(self, params: Any, model: Any, inputs: Any, targets: Any) -> Pass:
        def objective(params: Any) -> tuple[Any, Any]:
            predictions, after = self.apply(params, model, inputs)
            return self.loss(predictions, targets), (predictions, after)

        (value, (predictions, after)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        # A state that comes back in another dtype could not be carried to the next step.
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, model)
        return Pass(predictions, value, gradients, after)

    def update(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """Return the next parameters and the optimizer's next state."""
        updates, state = self.optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state


def _sum(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *terms: sum(terms[1:], terms[0]), *trees)


def pieces(batch: Any, parts: Parts) -> list[tuple[Tree, Tree]]:
    """Cut a batch into the rows of each backward pass; an array that has other rows goes whole into each."""
    if len(parts) == 1:
        return [batch]
    ends = list(itertools.accumulate(parts))

    def cut(start: int, end: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[start:end] if leaf.ndim and len(leaf) == ends[-1] else leaf, batch)

    return [cut(end - rows, end) for rows, end in zip(parts, ends, strict=True)]
