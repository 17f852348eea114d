"""What is held against what: the tensors of both sides, paired up stage by stage as arrays with a row for each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from parity.bounds.derive import Bounds
from parity.judging.scales import distance, largest, spacing
from parity.recording.recording import Array, Recording, Trace, Tree
from parity.replay.replay import Replay

# The field of a trace that each locked stage looks at.
LOCKED_FIELDS = {
    "forward": "predictions",
    "loss": "losses",
    "gradient": "gradients",
    "model state": "buffers",
    "optimizer state": "state",
    "update": "weights",
}


# Units in the last place that two ways of working out the same data may leave between them: a rounding or two each.
_SAME_DATA_ULPS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Mismatch:
    """A tensor that both sides were given, and that is not the same on both."""

    stage: str
    tensor: str
    step: int
    distance: Array
    size: float
    spacing: float | None
    message: str


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One tensor of one stage: a row of each array is a step, or a part of one.

    ``whole`` is the same with all its steps, where only the last is judged.
    """

    stage: str
    tensor: str
    torch: Array
    jax: Array
    torch64: Array
    jax64: Array
    torch_bound: Array
    jax_bound: Array
    bound64: Array
    steps: Array
    likely: Array | None = None
    whole: Comparison | None = None


def initial(recording: Recording, replay: Replay) -> Iterator[Mismatch]:
    """Find weights and buffers that the port starts from and PyTorch did not."""
    both = {**recording.initial, **recording.initial_buffers}
    own = {**replay.initial, **replay.initial_buffers}
    for name, torch in both.items():
        if name not in own or np.array_equal(torch, _as_dtype_of(own[name], torch), equal_nan=True):
            continue
        message = "The port starts from other weights: {name} differs by up to {gap:.3g}. Start it from the recorded "
        source = "recording.initial" if name in recording.initial else "recording.initial_buffers"
        yield _mismatch("initial weights", name, 0, torch, own[name], message + f"ones, {source}.")


def data(recording: Recording, replay: Replay) -> Iterator[Mismatch]:
    """Find the first step at which a port with its own data was fed other inputs, or targets, than PyTorch."""
    fed = replay.data
    if fed is None:
        return
    for field, which in (("inputs", 0), ("targets", 1)):
        for step, place in enumerate(recording.batch_of_step):
            torch, own = (dict(_leaves(tree)) for tree in (getattr(recording.batches[place], field), fed[step][which]))
            apart = [
                (torch[name], own[name])
                for name in torch
                if torch[name].shape != own[name].shape
                or not np.array_equal(torch[name], _as_dtype_of(own[name], torch[name]))
            ]
            if apart:
                message = "The port was fed other {name} than PyTorch: they differ by up to {gap:.3g}. "
                yield _mismatch("data", field, step, *apart[0], message + _how_apart(*apart[0]))
                break


def _how_apart(torch: Array, own: ArrayLike) -> str:
    """Describe how two arrays that are not the same differ."""
    if np.shape(own) != torch.shape:
        return "Their shapes differ."
    other = _as_dtype_of(own, torch)
    if np.array_equal(np.sort(torch, axis=None), np.sort(other, axis=None), equal_nan=True):
        return "The numbers are the same, in another order. Compare the order of the rows."
    if torch.dtype.kind == "f" and not np.nanmax(ulps(torch, other), initial=0) > _SAME_DATA_ULPS:
        return "They are rounded at another place. Make them in the dtypes that the program makes them in."
    return "Compare how they are loaded and scaled."


def _as_dtype_of(values: ArrayLike, like: Array) -> Array:
    return np.asarray(values).astype(like.dtype)


def _mismatch(stage: str, name: str, step: int, torch: Array, own: ArrayLike, message: str) -> Mismatch:
    if np.shape(own) != torch.shape:
        told = f"{name} has shape {np.shape(own)} in the port and {torch.shape} in PyTorch."
        return Mismatch(stage, name, step, np.array([np.inf]), 0.0, None, told)
    jax_side = _as_dtype_of(own, torch)
    apart = distance(jax_side, torch)
    wide = np.abs(np.asarray(torch, np.float64))
    size = float(wide.max(initial=0.0, where=np.isfinite(wide)))
    unit = spacing(size, torch.dtype) if torch.dtype.kind == "f" and size else None
    return Mismatch(stage, name, step, apart, size, unit, message.format(name=name, gap=largest(apart)))


def steps_with_nan_loss(recording: Recording, losses: Array) -> Array:
    """Return the steps whose loss is NaN in the recording and in ``losses``, of all or of the kept steps."""
    steps = recording.kept if len(losses) == len(recording.kept) else np.arange(recording.steps)
    return np.asarray(steps)[np.isnan(recording.observed.losses[steps]) & np.isnan(losses)]


# -- what was computed


FourRuns = tuple[Trace, Trace, Trace, Trace]


def compare_all(recording: Recording, replay: Replay, bounds: Bounds) -> Iterator[Comparison]:
    """Yield every tensor of every stage that both sides have."""
    kept = recording.kept
    locked = (recording.observed, replay.locked, recording.arbiter_locked, replay.locked64)
    locked_bounds = (bounds.locked, bounds.locked, bounds.locked64, bounds.locked64)
    if not replay.judged.all():
        # Where the port's optimizer could not be given its state, its stages are judged at the first steps alone.
        first = int(replay.judged.sum())
        locked = (locked[0], _cut(locked[1], first), locked[2], _cut(locked[3], first))
    for stage, field in LOCKED_FIELDS.items():
        yield from _stage(stage, field, locked, locked_bounds, kept, kept, bounds.likely)
    free = (recording.observed, replay.free, recording.arbiter_free, replay.free64)
    free_bounds = (bounds.free, bounds.free, bounds.free64, bounds.free64)
    for field in ("losses", "gradients", "weights"):
        yield from _stage("trajectory", field, free, free_bounds, kept, np.arange(recording.steps))
    yield from (_last(pair) for pair in _stage("final weights", "weights", free, free_bounds, kept, kept))


def _stage(
    stage: str, field: str, runs: FourRuns, bounds: FourRuns, kept: Array, scalars: Array, likely: Trace | None = None
) -> Iterator[Comparison]:
    for tensor, key in _tensors(field, runs):
        values = [_values(run, field, key, kept, scalars) for run in runs]
        limits = [_values(bound, field, key, kept, scalars)[0] for bound in bounds]
        (torch, steps), (own, _), (torch64, _), (jax64, _) = values
        rows = min(len(own), len(torch))
        name = f"{tensor}.grad" if (stage, field) == ("trajectory", "gradients") else tensor
        sharper = None if likely is None else _values(likely, field, key, kept, scalars)[0][:rows]
        yield Comparison(
            stage=stage,
            tensor=name,
            torch=torch[:rows],
            jax=own[:rows],
            torch64=torch64[:rows],
            jax64=jax64[:rows],
            torch_bound=limits[0][:rows],
            jax_bound=limits[1][:rows],
            bound64=(limits[2] + limits[3])[:rows],
            steps=steps[:rows],
            likely=sharper,
        )


def _cut(trace: Trace, rows: int) -> Trace:
    def first(tree: Tree) -> Tree:
        return jax.tree.map(lambda values: values[:rows], tree)

    return dataclasses.replace(trace, state=first(trace.state), weights=first(trace.weights))


Key = tuple[Any, ...]


def _tensors(field: str, runs: FourRuns) -> list[tuple[str, Key]]:
    """Names of a field's tensors, and where they are: both sides' trees of predictions are paired leaf by leaf."""
    if field == "losses":
        return [("loss", ())]
    if field == "predictions":
        return [(name, (place,)) for place, (name, _) in enumerate(_leaves(runs[0].predictions[0]))]
    if field == "state":
        shared = [key for key in runs[0].state if key in runs[1].state]
        return [
            (f"{key}/{name}", (key, name))
            for key in shared
            for name in runs[0].state[key]
            if name in runs[1].state[key]
        ]
    return [(name, (name,)) for name in getattr(runs[0], field) if name in getattr(runs[1], field)]


def _values(run: Trace, field: str, key: Key, kept: Array, scalars: Array) -> tuple[Array, Array]:
    """Return one tensor with its steps as rows, and the step of each row; shapes of predictions may differ."""
    if field == "predictions":
        rows = [np.asarray(jax.tree.leaves(tree)[key[0]]).reshape(-1) for tree in run.predictions]
        steps = np.repeat(kept[: len(rows)], [row.size for row in rows])
        return np.concatenate(rows)[:, None], steps
    if field == "losses":
        losses = run.losses if len(run.losses) == len(scalars) else run.losses[scalars]
        return losses.reshape(-1, 1), scalars
    values: Any = getattr(run, field)
    for part in key:
        values = values[part]
    return values.reshape(len(values), -1), kept[: len(values)]


def _leaves(tree: Tree, name: str = "predictions") -> list[tuple[str, Array]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(f"{name}{jax.tree_util.keystr(path)}", np.asarray(leaf)) for path, leaf in flat]


def _last(pair: Comparison) -> Comparison:
    others = ("stage", "tensor", "likely", "whole")
    arrays = [field.name for field in dataclasses.fields(pair) if field.name not in others]
    return dataclasses.replace(pair, whole=pair, **{name: getattr(pair, name)[-1:] for name in arrays})


def ulps(a: Array, b: Array) -> Array:
    """Count the representable numbers between ``a`` and ``b``, as float64; NaN where either is not finite."""
    integer = np.dtype(f"i{a.dtype.itemsize}")

    def ordered(values: Array) -> Array:
        bits = np.ascontiguousarray(values).view(integer)
        # Negative numbers count downwards from zero, so that neighbours are one apart everywhere.
        return np.where(bits < 0, np.iinfo(integer).min - bits, bits).astype(np.float64)

    both = np.isfinite(a) & np.isfinite(b)
    return np.where(both, np.abs(ordered(a) - ordered(b.astype(a.dtype))), np.nan)
