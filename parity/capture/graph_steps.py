"""The steps of a training as graphs: which kinds of steps there are, and what each step was fed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from parity.capture.graph_encoding import Encoded
from parity.capture.observed_run import BatchPool
from parity.capture.step_retention import Keeper
from parity.recording import graph as _graph
from parity.recording.graph import NUMBER, Graph, Plain
from parity.recording.recording import Array, Batch

# What a batch's parts are called in its inputs.
TENSORS, NUMBERS = "tensors", "numbers"


@dataclasses.dataclass(eq=False)
class Kind:
    """Steps that share a graph.

    Attributes:
        name: of the kind, a key of what a batch feeds.
        graph: with numbers as places in ``first_numbers``.
        functions: torch's, one an operation.
        first_numbers: those of its first step.
        varying: the places of numbers that were others in a later step.
    """

    name: str
    graph: Graph
    functions: tuple[Callable[..., Any], ...]
    first_numbers: tuple[float, ...]
    varying: set[int] = dataclasses.field(default_factory=set)

    def settled(self) -> Graph:
        """The graph with the numbers that never vary in it, and the places of the others among themselves."""
        order = {place: k for k, place in enumerate(sorted(self.varying))}

        def put(value: Plain) -> Plain:
            if isinstance(value, dict) and value.keys() == {NUMBER}:
                place = value[NUMBER]
                return {NUMBER: order[place]} if place in order else self.first_numbers[place]
            if isinstance(value, dict):
                return {key: put(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return type(value)(put(item) for item in value)
            return value

        return dataclasses.replace(
            self.graph,
            operations=tuple(
                dataclasses.replace(one, args=put(one.args), kwargs=put(one.kwargs)) for one in self.graph.operations
            ),
            roots=put(self.graph.roots),
        )


@dataclasses.dataclass(eq=False)
class Steps:
    """All steps of a run.

    Attributes:
        kinds: by the text of their graphs.
        pool: the batches.
        kind_of_batch, numbers_of_batch: of each batch.
        batch_of_step, losses: of each step.
    """

    kinds: dict[str, Kind] = dataclasses.field(default_factory=dict)
    pool: BatchPool = dataclasses.field(default_factory=BatchPool)
    kind_of_batch: list[Kind] = dataclasses.field(default_factory=list)
    batch_of_step: list[int] = dataclasses.field(default_factory=list)
    losses: list[Any] = dataclasses.field(default_factory=list)

    def place(self, encoded: Encoded, limit: float) -> bool:
        """Take up what a step is fed. Was there room?"""
        text = repr(_unplaced(encoded.graph))
        kind = self.kinds.get(text)
        if kind is None:
            kind = Kind(f"step {len(self.kinds)}", encoded.graph, encoded.functions, encoded.numbers)
            self.kinds[text] = kind
        for place, (now, first) in enumerate(zip(encoded.numbers, kind.first_numbers, strict=True)):
            if now != first and not (now != now and first != first):
                kind.varying.add(place)
        fed = {kind.name: {TENSORS: encoded.inputs, NUMBERS: np.array(encoded.numbers, np.float64)}}
        at = self.pool.place(Batch(fed, (), (1,)), limit)
        if at is None:
            return False
        if at == len(self.kind_of_batch):
            self.kind_of_batch.append(kind)
        self.batch_of_step.append(at)
        return True

    def settled(self) -> tuple[dict[str, Graph], tuple[Batch, ...]]:
        """The kinds' graphs by name, and the batches, with numbers only where they vary."""
        graphs = {kind.name: kind.settled() for kind in self.kinds.values()}
        batches = []
        for batch, kind in zip(self.pool.batches, self.kind_of_batch, strict=True):
            fed = batch.inputs[kind.name]
            numbers = fed[NUMBERS][sorted(kind.varying)]
            inputs = {kind.name: {TENSORS: fed[TENSORS], **({NUMBERS: numbers} if kind.varying else {})}}
            batches.append(Batch(inputs, (), (1,)))
        return graphs, tuple(batches)


def _unplaced(graph: Graph) -> Graph:
    """The graph without the program's lines: a loop that is unrolled calls from several."""
    return dataclasses.replace(graph, operations=tuple(dataclasses.replace(one, place="") for one in graph.operations))


def run(
    kind: Kind,
    numbers: Array,
    leaves: Mapping[str, torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
    states: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """A step's forward pass in torch: its loss, what the models returned, and the states after it."""
    made: list[Any] = []

    def tensor(ref: _graph.Ref) -> Any:
        if ref.kind == "leaf":
            return leaves[str(ref.key)]
        if ref.kind == "state":
            return states[str(ref.key)]
        value: Any = inputs[int(ref.key)] if ref.kind == "input" else made[int(ref.key)]
        for key in ref.path:
            value = value[key]
        return value

    def special(key: str, value: Any) -> Any:
        return float(numbers[value]) if key == NUMBER else getattr(torch, value)

    for operation, function in zip(kind.graph.operations, kind.functions, strict=True):
        args = _graph.filled(operation.args, tensor, special)
        kwargs = _graph.filled(operation.kwargs, tensor, special)
        with torch.set_grad_enabled(not operation.stops):
            made.append(_called(operation, function, args, kwargs, states))
    total = sum(
        _graph.filled(seed, tensor, special) * _graph.filled(root, tensor, special).reshape(())
        for root, seed in kind.graph.roots
    )
    outputs = tuple(_graph.filled(value, tensor, special) for value in kind.graph.outputs)
    after = {name: _graph.filled(value, tensor, special) for name, value in kind.graph.after.items()}
    return total, outputs, after


def _called(operation: _graph.Operation, function: Any, args: Any, kwargs: Any, states: Any) -> Any:
    if operation.in_place:
        with torch.enable_grad():
            args = (args[0].clone(), *args[1:])
    if operation.name in ("batch_norm", "instance_norm") and args[5] and args[3] is not None:
        running = args[3].detach().clone(), args[4].detach().clone()
        return (function(*args[:3], *running, *args[5:], **kwargs), *running)
    out = function(*args, **kwargs)
    return args[0] if operation.name == "__setitem__" else out


@dataclasses.dataclass(eq=False)
class Begun:
    """What is known of a training from its first step on."""

    optimizer: torch.optim.Optimizer
    leaves: dict[str, torch.Tensor]
    rules: dict[str, dict[str, Any]]
    learning_rates: dict[str, list[float]]
    initial: dict[str, Array]
    initial_states: dict[str, Array]
    live: tuple[list[torch.Tensor], torch.optim.Optimizer]
    keeper: Keeper
    environment: dict[str, Any]
    clipping: Mapping[str, Any]
    model: str
    by_hand: bool = False

    @property
    def frozen(self) -> list[str]:
        """The leaves that the training does not move."""
        return [name for name in self.leaves if name not in self.rules]
