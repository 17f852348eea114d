"""What the JAX side would have printed: the program's lines, with every number it trained computed anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax import tree

from parity._recording import PrintedLine, Recording
from parity._replay import Replay

# A number that is not a plain integer: counters and sizes are the program's own and stay as they are.
_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\b(?:inf|nan)\b")
# Tensors with more elements than this are not searched for a printed number: chance would find one.
_SEARCHED = 64


class Line(NamedTuple):
    """A printed line of PyTorch and its counterpart.

    ``jax`` is ``None`` where a number in the line is no loss, weight or prediction: there is nothing to compare.
    """

    torch: str
    jax: str | None

    @property
    def same(self) -> bool | None:
        """Whether both agree in every printed digit; ``None`` where there is nothing to compare."""
        return None if self.jax is None else self.torch == self.jax


def side_by_side(recording: Recording, replay: Replay) -> tuple[Line, ...]:
    """Every line the program printed, beside what the free replay gives for it."""
    return tuple(Line(line.text, _rewrite(line, recording, replay)) for line in recording.printed)


def _rewrite(line: PrintedLine, recording: Recording, replay: Replay) -> str | None:
    """The line with each number exchanged, once it is known which recorded value it is."""
    pairs = list(_values(line, recording, replay))
    pieces, end = [], 0
    for match in _NUMBER.finditer(line.text):
        number = _counterpart(match.group(), pairs)
        if number is None:
            return None
        pieces += [line.text[end : match.start()], number]
        end = match.end()
    return "".join([*pieces, line.text[end:]])


def _values(line: PrintedLine, recording: Recording, replay: Replay) -> Iterator[tuple[Any, Any]]:
    """Values of PyTorch that the line may show, the likeliest first, each with JAX's."""
    if 0 < line.losses <= recording.steps:  # a loss that no step followed has no counterpart
        pair = recording.observed.losses[line.losses - 1], replay.free.losses[line.losses - 1]
        yield pair
        if scale := recording.loss.settings.get("scale"):  # the program may print what it has before it scales it
            yield pair[0] / scale, pair[1] / scale
    if line.evaluations:
        place = line.evaluations - 1
        yield from _elements(recording.evaluations[place].outputs, replay.evaluations[place])
    # A step whose tensors were left out of the recording has none to show.
    row = int(np.searchsorted(recording.kept, line.step - 1))
    if line.step and (row == len(recording.kept) or recording.kept[row] != line.step - 1):
        return
    for name, initial in recording.initial.items():
        if line.step:
            yield from _elements(recording.observed.weights[name][row], replay.free.weights[name][row])
        else:
            yield from _elements(initial, replay.initial[name])


def _elements(torch: Any, jax: Any) -> Iterator[tuple[Any, Any]]:
    """Element beside element of two trees; none of an array that is too large, or that the port gives otherwise."""
    for a, b in zip(tree.leaves(torch), tree.leaves(jax), strict=False):
        if np.size(a) <= _SEARCHED and np.shape(a) == np.shape(b):
            yield from zip(np.ravel(a), np.ravel(b), strict=True)


def _counterpart(text: str, pairs: list[tuple[Any, Any]]) -> str | None:
    for torch, jax in pairs:
        for write in _formats(text):
            if write(torch) == text:
                return write(jax)
    return None


def _formats(text: str) -> Iterator[Any]:
    """The ways in which a number of this look may have been written."""
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    sign = "+" if text.startswith("+") else ""
    yield lambda value: f"{float(value):{sign}.{decimals}{'e' if exponent else 'f'}}"
    yield lambda value: repr(float(value))  # what .item() prints
    yield lambda value: str(np.asarray(value)[()])
    digits = len(re.sub(r"\D", "", mantissa).lstrip("0"))
    yield lambda value: f"{float(value):{sign}.{max(digits, 1)}g}"
