"""What the JAX side would have printed: the program's lines, with every number it trained computed anew."""

from __future__ import annotations

import math
import re
from typing import NamedTuple, TypeAlias

import numpy as np

from parity.recording import trees
from parity.recording.program_output import NUMBER, PrintedLine, Source
from parity.recording.recording import Array, Recording, Tree
from parity.replay.replay import Replay

# A number of either side, of Python or of NumPy.
Scalar: TypeAlias = float | np.generic
# What two ways to work out the same float64 number may differ by, relative to it.
_FLOAT64_TOLERANCE = 2.0**-48


class LinePair(NamedTuple):
    """A printed line of PyTorch and its counterpart.

    ``jax`` is ``None`` where it is not known of every number in the line where it came from, or where the JAX side has
    no such number: there is nothing to compare.
    """

    torch: str
    jax: str | None

    @property
    def same(self) -> bool | None:
        """Whether both agree in every printed digit; ``None`` where there is nothing to compare."""
        return None if self.jax is None else self.torch == self.jax


def side_by_side(recording: Recording, replay: Replay) -> tuple[LinePair, ...]:
    """Pair every line the program printed with what the free replay gives for it."""
    return tuple(LinePair(line.text, _rewrite(line, recording, replay)) for line in recording.printed)


def _rewrite(line: PrintedLine, recording: Recording, replay: Replay) -> str | None:
    """Return the line with each number exchanged, where the source of every one is known."""
    known = {place for number in line.numbers for place in range(number.start, number.end)}
    if any(known.isdisjoint(range(*match.span())) for match in NUMBER.finditer(line.text)):
        return None
    pieces, end = [], 0
    for number in line.numbers:
        text: str | None = line.text[number.start : number.end]
        if number.source is not None:
            text = _exchanged(line.text[number.start : number.end], number.style, number.source, recording, replay)
        if text is None:
            return None
        pieces += [line.text[end : number.start], text]
        end = number.end
    return "".join([*pieces, line.text[end:]])


def _exchanged(text: str, style: str, source: Source, recording: Recording, replay: Replay) -> str | None:
    pair = _values(source, recording, replay)
    return None if pair is None else counterpart(text, style, *pair)


def _values(source: Source, recording: Recording, replay: Replay) -> tuple[Scalar, Scalar] | None:
    """Return the number in the recording and in the replay; ``None`` where one of them has none."""
    if source.kind == "loss":
        if not 0 <= source.first <= source.last < recording.steps:
            return None
        sides = tuple(_losses(source, losses, recording) for losses in (recording.observed.losses, replay.free.losses))
        return sides[0], sides[1]
    found = _tensors(source, recording, replay)
    if found is None or np.shape(found[0]) != np.shape(found[1]) or source.index >= np.size(found[0]):
        return None
    torch, jax = (np.ravel(tensor)[source.index] for tensor in found)
    if (source.factor, source.divisor) == (1.0, 1.0):
        return torch, jax
    return tuple(float(value) * source.factor / source.divisor for value in (torch, jax))  # type: ignore[return-value]


def _losses(source: Source, losses: Array, recording: Recording) -> Scalar:
    steps = range(source.first, source.last + 1)
    if len(steps) == 1 and (source.factor, source.divisor, source.weighted) == (1.0, 1.0, False):
        return losses[source.first]
    rows = (sum(recording.batches[recording.batch_of_step[step]].parts) if source.weighted else 1 for step in steps)
    return sum(float(losses[step]) * n for step, n in zip(steps, rows, strict=True)) * source.factor / source.divisor


def _tensors(source: Source, recording: Recording, replay: Replay) -> tuple[Array, Array] | None:
    if source.kind == "evaluation":
        if source.first >= len(replay.evaluations):
            return None
        outputs = recording.evaluations[source.first].outputs, replay.evaluations[source.first]
        return _leaf(source, *outputs)
    read_after = source.kind in ("weights", "buffers")
    if read_after and source.first == 0:
        initial = (recording.initial, replay.initial), (recording.initial_buffers, replay.initial_buffers)
        torch, jax = initial[source.kind == "buffers"]
        return (torch[source.name], jax[source.name]) if source.name in torch and source.name in jax else None
    step = source.first - read_after
    row = int(np.searchsorted(recording.kept, step))
    # A step whose tensors were left out of the recording has none to show.
    if row == len(recording.kept) or recording.kept[row] != step:
        return None
    sides = (getattr(side, source.kind) for side in (recording.observed, replay.free))
    if source.kind == "predictions":
        return _leaf(source, *(side[row] for side in sides))
    torch, jax = sides
    return (torch[source.name][row], jax[source.name][row]) if source.name in torch and source.name in jax else None


def _leaf(source: Source, torch: Tree, jax: Tree) -> tuple[Array, Array] | None:
    pairs = [trees.leaves(side) for side in (torch, jax)]
    return None if source.leaf >= min(map(len, pairs)) else (pairs[0][source.leaf], pairs[1][source.leaf])


def counterpart(text: str, style: str, torch: Scalar, jax: Scalar) -> str | None:
    """Write JAX's number in the way in which ``text`` writes PyTorch's.

    ``None`` where ``text`` is not how PyTorch's number is written.
    """
    if style == "numpy":  # what tells a number from all others, or eight digits of each in an array
        shortest = [str(np.asarray(value)[()]) for value in (torch, jax)]
        if text == shortest[0] or float(text) == float(shortest[0]):
            return text if float(torch) == float(jax) else shortest[1]
        style = ""
    if not _fits(text, written(text, style, torch)):
        return None
    return text if float(torch) == float(jax) else written(text, style, jax)


def _fits(text: str, expected: str) -> bool:
    if text == expected:
        return True
    # In full digits, the program's own order of operations shows in the last one.
    full = len(re.sub(r"\D", "", text)) >= 15
    return full and math.isclose(float(text), float(expected), rel_tol=_FLOAT64_TOLERANCE)


def written(text: str, style: str, value: Scalar) -> str:
    """Write ``value`` in a style; where that is PyTorch's look, with as many digits as ``text`` has."""
    decimals = len(re.split("[eE]", text)[0].partition(".")[2])
    if style == "repr":
        return repr(float(value))
    if style == "round":
        return repr(round(float(value), decimals))
    if style:
        return format(float(value), style).strip().rstrip("%")
    if text.endswith(".") and float(value).is_integer():
        return f"{float(value):.0f}."
    return f"{float(value):.{decimals or 4}{'e' if 'e' in text else 'f'}}"
