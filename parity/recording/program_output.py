"""What a program printed, as data: its lines, and where each number in them came from."""

from __future__ import annotations

import dataclasses
import re

# A number that is not a plain integer: counters and sizes are the program's own and stay as they are.
# A name with a number in front of a dot, such as a layer's "0.weight", has none either.
NUMBER = re.compile(
    r"[-+]?(?:\d+\.\d+|\d+\.(?![A-Za-z_])|\d+\.(?=[eE][-+]?\d)|(?<![\w.])\.\d+|\d+(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?"
    r"|[-+]?\b(?:inf|nan)\b"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """The recorded value that a printed number is, or a multiple of it.

    Attributes:
        kind: ``"loss"``, ``"weights"``, ``"gradients"``, ``"buffers"``, ``"predictions"`` or ``"evaluation"``.
        name: of a weight, gradient or buffer, PyTorch's name.
        first: the step of a loss, gradient or prediction; how many steps were made before a weight or buffer was read;
            which evaluation.
        last: of losses, the last step of those that are added up.
        leaf: which array of the predictions.
        index: the element of the array, counted row by row.
        weighted: whether each loss counts as often as its batch has rows.
        factor, divisor: what the program multiplied the value with, and divided it by.
    """

    kind: str
    name: str = ""
    first: int = 0
    last: int = 0
    leaf: int = 0
    index: int = 0
    weighted: bool = False
    factor: float = 1.0
    divisor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a line.

    Attributes:
        start, end: where it begins and ends.
        source: what it is; ``None``: the program's own, such as a constant.
        style: how it was written: a format specification such as ``".4f"``, ``"repr"`` as Python writes a float,
            ``"round"`` that after ``round()``, ``"numpy"``, or empty: as PyTorch writes the elements of a tensor.
    """

    start: int
    end: int
    source: Source | None
    style: str = ""


@dataclasses.dataclass(frozen=True)
class PrintedLine:
    """A line the program printed, the steps made before it, and those of its numbers whose source is known."""

    text: str
    step: int
    numbers: tuple[Number, ...] = ()

    @property
    def last_step(self) -> int:
        """How many steps there must be for every number to have its source."""
        losses = [n.source.last + 1 for n in self.numbers if n.source is not None and n.source.kind == "loss"]
        return max([self.step, *losses])
