"""Whether what a file says of a recording fits together: the steps, the names and the shapes of its arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from parity._errors import RecordingError
from parity._words import count
from parity.recording import trees

if TYPE_CHECKING:
    from parity.recording.recording import Recording, Tensors

# What may belong to a tensor of a kind: an optimizer may count in whole numbers.
_STATE_KINDS = {"f": "fiub", "i": "iub", "u": "iub"}


def check(recording: Recording, source: str) -> None:
    """Refuse a recording whose parts disagree; NaN is as good a value as any.

    Raises:
        RecordingError: with the first disagreement.
    """
    try:
        problem = next(_problems(recording), None)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"its parts are not of the kind that they should be ({error})"
    if problem:
        raise RecordingError(f"{source} is not a recording that fits together: {problem}. Record the program again")


def _problems(recording: Recording) -> Iterator[str]:
    order, steps = recording.batch_of_step, len(recording.batch_of_step)
    if order.ndim != 1 or not steps or not np.issubdtype(order.dtype, np.integer):
        yield "it has no steps"
    if order.min() < 0 or order.max() >= len(recording.batches):
        yield f"a step was fed batch {order.max()}, and it has {len(recording.batches)}"
    yield from _kept(recording, steps)
    if not recording.initial:
        yield "it has no parameters"
    for name, values in recording.initial.items():
        if values.dtype.kind != "f":
            yield f"{name} is of {values.dtype}, and what is trained is of floating numbers"
    rates = {name: values.shape for name, values in recording.learning_rates.items()}
    if rates != dict.fromkeys(recording.rules, (steps,)) or not rates.keys() <= recording.initial.keys():
        yield f"learning rates are of {_listed(rates)}, and parameters of {_listed(recording.rules)} are trained"
    for name in ("observed", "arbiter_locked", "arbiter_free"):
        yield from _trace(recording, name, steps)
    for place, batch in enumerate(recording.batches):
        for leaf in trees.leaves((batch.inputs, batch.targets)):
            if np.asarray(leaf).dtype.kind not in "fciub":
                yield f"batch {place} has something of {np.asarray(leaf).dtype}, and it should be of numbers"
        rows = {leaf.shape[:1] for leaf in trees.leaves(batch.inputs)}
        if len(batch.parts) > 1 and rows != {(sum(batch.parts),)}:
            shapes = trees.shapes(batch.inputs)
            yield f"batch {place} has passes of {sum(batch.parts)} rows in all, and inputs {shapes}"


def _kept(recording: Recording, steps: int) -> Iterator[str]:
    thinned, starts = recording.thinned, recording.starts
    if thinned is None or starts is None:
        if thinned is not None or starts is not None:
            yield "steps were left out, and what the kept ones started from is not there, or the other way round"
        return
    rising = thinned.ndim == 1 and thinned.size and bool((np.diff(thinned) > 0).all())
    if not rising or thinned[0] < 0 or thinned[-1] >= steps:
        yield f"the kept steps are not steps of {steps} in their order"
    yield from _tensors("the weights before the kept steps", starts.weights, recording.initial, len(thinned))
    for key, tensors in starts.state.items():
        yield from _tensors(f"{key} before the kept steps", tensors, recording.initial, len(thinned), some=True)
    buffers = recording.initial_buffers
    yield from _tensors("the buffers before the kept steps", starts.buffers, buffers, len(thinned), some=True)


def _trace(recording: Recording, name: str, steps: int) -> Iterator[str]:
    trace, kept, observed = getattr(recording, name), len(recording.kept), recording.observed
    if trace.losses.dtype.kind != "f":
        yield f"{name} has losses of {trace.losses.dtype}, expected floating numbers"
    if trace.losses.shape != (steps,):
        yield f"{name} has losses of shape {trace.losses.shape}, expected those of {count(steps, 'step')}"
    if len(trace.predictions) != kept:
        yield f"{name} has predictions of {count(len(trace.predictions), 'step')}, expected {kept:,}"
    for made, like in zip(trace.predictions, observed.predictions, strict=True):
        if trees.shapes(made) != trees.shapes(like):
            yield f"{name} has predictions {trees.shapes(made)}, and {trees.shapes(like)} were observed"
    yield from _tensors(f"{name}: gradients", trace.gradients, recording.initial, kept)
    yield from _tensors(f"{name}: weights", trace.weights, recording.initial, kept)
    if trace.state.keys() != observed.state.keys():
        yield f"{name} has optimizer state {_listed(trace.state)}, and {_listed(observed.state)} was observed"
    for key, tensors in trace.state.items():
        yield from _tensors(f"{name}: {key}", tensors, recording.initial, kept, some=True)
        if tensors.keys() != observed.state[key].keys():
            yield f"{name} has {key} of {_listed(tensors)}, and of {_listed(observed.state[key])} it was observed"
    yield from _tensors(f"{name}: buffers", trace.buffers, recording.initial_buffers, kept, some=True)


def _tensors(what: str, tensors: Tensors, like: Tensors, rows: int, *, some: bool = False) -> Iterator[str]:
    """Check tensors with a leading axis of ``rows``, each otherwise of the shape of that name in ``like``."""
    if not tensors.keys() <= like.keys() or (not some and tensors.keys() != like.keys()):
        yield f"{what} are of {_listed(tensors)}, and {_listed(like)} was expected"
    for name, values in tensors.items():
        if values.shape != (rows, *like[name].shape):
            yield f"{what} of {name} have shape {values.shape}, and {(rows, *like[name].shape)} was expected"
        if values.dtype.kind not in _STATE_KINDS.get(like[name].dtype.kind, like[name].dtype.kind):
            yield f"{what} of {name} are of {values.dtype}, and the tensor is of {like[name].dtype}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
