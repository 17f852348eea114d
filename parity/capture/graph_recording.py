"""A training that was followed as graphs, as a recording; and PyTorch once more in float64 on those graphs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from parity._errors import ParityError, UnsupportedError
from parity.capture import clipping_hooks, graph_steps
from parity.capture.float64_rerun import _Double, _double
from parity.capture.graph_observer import GraphObserver
from parity.capture.graph_steps import NUMBERS, TENSORS, Begun, Steps
from parity.capture.observed_run import gradients, optimizer_state, part
from parity.capture.step_retention import After, trace
from parity.capture.torch_tensors import to_array
from parity.recording.graph import Graph, ref_of
from parity.recording.recording import Array, Part, Recording, Starts, Trace, Tree, fresh_state


def recording_of(observer: GraphObserver, **given: Any) -> Recording:
    """The recording of a run that was followed as graphs.

    Args:
        observer: what followed it.
        given: the recording's other fields.

    Raises:
        UnsupportedError: there was something that cannot be recorded.
    """
    begun, steps = observer.finish(), observer.steps
    _require_alike(begun, steps)
    rates = {name: np.array(values, np.float64) for name, values in begun.learning_rates.items()}
    observed, starts = begun.keeper.finish(
        np.array(steps.losses), lambda key, name, like: fresh_state(key, begun.rules[name], rates[name][0], like)
    )
    rerun = _Rerun(begun, steps, rates, observed, starts)
    with _in_float64(next(iter(begun.initial.values())).dtype):
        locked, free = rerun.locked(), rerun.free()
    graphs, batches = steps.settled()
    shared = {k: v for k, v in next(iter(begun.rules.values())).items() if all(r[k] == v for r in begun.rules.values())}
    kept = begun.keeper.kept
    environment = {**begun.environment, **given.pop("environment")}
    notes = (*observer.notes(), *given.pop("notes"))
    return Recording(
        model=Part(begun.model or "tensors of the program's own", {"operations": _operations(graphs)}),
        loss=Part(_last_operations(graphs), {}),
        optimizer=part(begun.optimizer, shared),
        rules=begun.rules,
        learning_rates=rates,
        initial=begun.initial,
        batches=batches,
        batch_of_step=np.array(steps.batch_of_step, np.int64),
        observed=observed,
        arbiter_locked=locked,
        arbiter_free=free,
        evaluations=(),
        environment=environment,
        initial_buffers=dict(begun.initial_states),
        thinned=None if starts is None else np.array(kept, np.int64),
        starts=starts,
        notes=notes,
        clipping=dict(begun.clipping),
        graphs=graphs,
        **given,
    )


def _require_alike(begun: Begun, steps: Steps) -> None:
    """Leave out what models returned where steps have different numbers of that: a trace has the same of each step."""
    if len({len(kind.graph.outputs) for kind in steps.kinds.values()}) < 2:
        return
    for kind in steps.kinds.values():
        kind.graph = dataclasses.replace(kind.graph, outputs=())
    for row in begun.keeper.rows.values():
        row.predictions = {**row.predictions, "outputs": ()}


def _operations(graphs: Mapping[str, Graph]) -> int:
    """How many operations a step makes; the most, where there are several kinds."""
    return max(len(graph.operations) for graph in graphs.values())


def _last_operations(graphs: Mapping[str, Graph]) -> str:
    """The functions that give what ``backward`` is called on, by name."""
    first = next(iter(graphs.values()))
    made = [ref_of(root) for root, _ in first.roots]
    names = [first.operations[int(ref.key)].name for ref in made if ref is not None and ref.kind == "made"]
    return " and ".join(dict.fromkeys(names)) or "a leaf"


@contextlib.contextmanager
def _in_float64(recorded: np.dtype[Any]) -> Iterator[None]:
    """PyTorch computing in float64, as far as functions name a dtype; what fails there is said to."""
    kind = getattr(torch, recorded.name)
    grad = torch.is_grad_enabled()
    try:
        torch.set_grad_enabled(True)
        with _Double(dropout=True, recorded=kind):
            yield
    except ParityError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"the training fails when its steps are run again in float64: {type(error).__name__}: {first}"
        ) from error
    finally:
        torch.set_grad_enabled(grad)


class _Rerun:
    """The leaves and the optimizer as they were before the first step, taken through the recorded steps."""

    def __init__(
        self, begun: Begun, steps: Steps, rates: Mapping[str, Array], observed: Trace, starts: Starts | None
    ) -> None:
        self._begun, self._steps, self._rates, self._observed, self._starts = begun, steps, rates, observed, starts
        self._place_of_row = {step: row for row, step in enumerate(begun.keeper.kept)}
        tensors, self._optimizer = begun.live
        self._leaves: dict[str, Any] = dict(zip(begun.leaves, tensors, strict=True))
        self._names = {id(tensor): name for name, tensor in self._leaves.items()}

    def _fresh(self) -> None:
        begun = self._begun
        for name, leaf in self._leaves.items():
            leaf.data = _double(begun.initial[name]).clone()
            leaf.grad = None
        self._optimizer.state.clear()
        self._states = {name: _double(values) for name, values in begun.initial_states.items()}

    def locked(self) -> Trace:
        """Every kept step from what was recorded; losses of other steps are NaN."""
        self._fresh()
        begun, observed, starts = self._begun, self._observed, self._starts
        rows, losses = [], np.full(len(self._steps.batch_of_step), np.nan)
        for row, step in enumerate(begun.keeper.kept):
            if starts is not None:
                self._put(starts.weights, starts.buffers, row)
                if row != step:
                    self._restore(row)
            elif row:
                self._put(observed.weights, observed.buffers, row - 1)
            fed = {name: observed.gradients[name][row] for name in begun.rules}
            predictions, losses[step], made = self._step(step, fed)
            rows.append((predictions, made, self._after()))
        return trace(rows, losses, list(observed.buffers))

    def free(self) -> Trace:
        """The whole training on its own, of which the kept steps' tensors are kept."""
        self._fresh()
        rows, losses = [], np.zeros(len(self._steps.batch_of_step))
        for step in range(len(losses)):
            predictions, losses[step], made = self._step(step, None)
            if step in self._place_of_row:
                rows.append((predictions, made, self._after()))
        return trace(rows, losses, list(self._observed.buffers))

    def _put(self, weights: Mapping[str, Array], buffers: Mapping[str, Array], row: int) -> None:
        for name, values in weights.items():
            self._leaves[name].data = _double(values[row]).clone()
        for name, values in buffers.items():
            self._states[name] = _double(values[row])

    def _after(self) -> After:
        state, _ = optimizer_state(self._optimizer, self._leaves)
        weights = {name: to_array(leaf) for name, leaf in self._leaves.items()}
        buffers = {name: to_array(self._states[name]) for name in self._observed.buffers}
        return After(weights, {key: state[key] for key in self._observed.state}, buffers)

    def _step(self, step: int, fed: Mapping[str, Array] | None) -> tuple[Tree, float, dict[str, Array]]:
        begun, steps = self._begun, self._steps
        place = steps.batch_of_step[step]
        kind = steps.kind_of_batch[place]
        given = steps.pool.batches[place].inputs[kind.name]
        for leaf in self._leaves.values():
            leaf.grad = None
        inputs = tuple(_double(array) for array in given[TENSORS])
        loss, outputs, after = graph_steps.run(kind, given[NUMBERS], self._leaves, inputs, self._states)
        loss.backward()  # type: ignore[no-untyped-call]
        self._states = {**self._states, **{name: value.detach() for name, value in after.items()}}
        predictions = {"outputs": tuple(to_array(output) for output in outputs), "loss": to_array(loss)}
        made = gradients(self._leaves, begun.rules)
        for name, values in (fed or {}).items():
            self._leaves[name].grad = _double(values)
        for name, leaf in self._leaves.items():
            if name not in begun.rules:
                leaf.grad = None
        for group in self._optimizer.param_groups:
            for name in {self._names.get(id(parameter), "") for parameter in group["params"]} & begun.rules.keys():
                group["lr"] = float(self._rates[name][step])
        clipping_hooks.apply(begun.clipping, [self._leaves[name] for name in begun.rules])
        with torch.no_grad():
            self._optimizer.step()
        return predictions, loss.item(), made

    def _restore(self, row: int) -> None:
        """The optimizer's state as it was before a kept step."""
        assert self._starts is not None
        others, _ = self._begun.keeper.befores[row]
        for name, leaf in self._leaves.items():
            if name not in self._begun.rules:
                continue
            state = {key: _double(values[name][row]) for key, values in self._starts.state.items() if name in values}
            for key, value in others.get(name, {}).items():
                state[key] = _double(value) if isinstance(value, np.ndarray) else value
            self._optimizer.state[leaf] = state
