"""What a program writes to its output, piece by piece, with the origin of the numbers in it."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import NamedTuple

from parity.capture.number_reads import Reads, Shown
from parity.capture.print_calls import Piece, pieces
from parity.capture.python_averages import Averages
from parity.capture.source_expressions import OWN, Origin
from parity.recording.program_output import NUMBER, Number

# Numbers in all of which it is kept where they came from: a recording is not to be larger for what was printed.
_MOST = 20_000
# Characters of a text whose numbers are looked at; one that is longer is data, and no line that a person reads.
_LONGEST = 100_000


class Span(NamedTuple):
    """A number in a text, where it begins and ends, and its origin."""

    start: int
    end: int
    origin: Origin
    style: str = ""

    def moved(self, by: int) -> Span:
        """The same so many characters further on."""
        return self._replace(start=self.start + by, end=self.end + by)


class Written:
    """Follows what is written, as text, and hands out the lines as they become whole.

    Args:
        reads: what left torch until now.
    """

    def __init__(self, reads: Reads) -> None:
        self._reads, self._averages = reads, Averages(reads)
        self._call: tuple[int, int] | None = None
        self._arguments: deque[list[Piece] | None] = deque()
        self._rest: list[str] = []  # what was written since the last line's end
        self._length, self._numbers = 0, 0
        self._spans: list[Span] = []
        self._lines: deque[tuple[str, list[Span]]] = deque()

    def write(self, text: str, frame: FrameType) -> None:
        """``text`` is written by ``frame``; it never raises, since it runs inside the program."""
        try:
            follows = self._numbers < _MOST and len(text) <= _LONGEST
            spans = list(self._found(text, frame)) if follows else []
            self._numbers += len(spans)
        except Exception:
            spans, self._call = [], None
        if text.strip():
            self._reads.texts.clear()
        self._spans += [one.moved(self._length) for one in spans]
        self._rest.append(text)
        self._length += len(text)
        if "\n" in text:
            self._cut()

    def _cut(self) -> None:
        """Hand out the lines that are whole."""
        *lines, rest = "".join(self._rest).split("\n")
        spans, begin = deque(sorted(self._spans, key=lambda one: one.start)), 0
        for line in lines:
            end, own = begin + len(line), []
            while spans and spans[0].start <= end:
                one = spans.popleft()
                own += [one.moved(-begin)] if one.end <= end else []
            self._lines.append((line, own))
            begin = end + 1
        self._spans = [one.moved(-begin) for one in spans]
        self._rest, self._length = [rest], len(rest)

    def line(self, text: str) -> list[Span]:
        """The known numbers of a line that has come out; none where it came by another way than through text."""
        if not self._lines and "".join(self._rest) == text:  # the last line, without an end
            return self._spans
        if self._lines and self._lines[0][0] == text:
            return self._lines.popleft()[1]
        return []

    def _found(self, text: str, frame: FrameType) -> Iterator[Span]:
        call = id(frame), frame.f_lasti
        if call != self._call or not self._arguments:
            self._call = call
            place = itertools.count()
            shown = pieces(frame, self._reads, lambda value: self._averages.of(value, (*call, next(place))))
            self._arguments = deque(_writes(shown))
        argument = self._arguments.popleft() if self._arguments else [Piece(None)]
        return self._aligned(text, argument or [])

    def _aligned(self, text: str, argument: Sequence[Piece]) -> Iterator[Span]:
        """The pieces laid on the text that they came to."""
        pattern = "".join("(.*?)" if piece.text is None else f"({re.escape(piece.text)})" for piece in argument)
        match = re.compile(pattern, re.DOTALL).fullmatch(text)
        if match is None:
            argument, match = [Piece(None)], re.compile("(.*)", re.DOTALL).fullmatch(text)
        assert match is not None
        for group, piece in enumerate(argument, 1):
            start, end = match.span(group)
            spans = list(self._by_texts(text, start, end)) if piece.text is None else []
            yield from spans or _numbered(text, start, end, piece.origins, piece.style)

    def _by_texts(self, text: str, start: int, end: int) -> Iterator[Span]:
        """The numbers of tensors that were turned into text since something was written, in their order."""
        for known, origins, style in self._reads.texts:
            place = text.find(known, start, end) if known else -1
            if place >= 0:
                start = place + len(known)
                yield from _numbered(text, place, start, origins, style)


def _writes(shown: list[list[Piece]] | None) -> Iterator[list[Piece] | None]:
    """What ``print`` writes one after the other: its arguments, with separators between them and after the last."""
    for place, argument in enumerate(shown or [[Piece(None)]]):
        if place:
            yield None
        yield argument
    if shown is not None:
        yield None


def _numbered(text: str, start: int, end: int, origins: Sequence[Origin] | None, style: str) -> Iterator[Span]:
    numbers = list(NUMBER.finditer(text, start, end))
    if origins is not None and len(numbers) == len(origins):
        for number, origin in zip(numbers, origins, strict=True):
            if origin is not None:
                yield Span(*number.span(), origin, style)


def settled(spans: Sequence[Span], evaluations: Mapping[int, int]) -> tuple[Number, ...]:
    """Numbers as a recording keeps them, now that it is known which calls of the model were evaluations."""
    numbers = []
    for start, end, origin, style in spans:
        source = origin.source(evaluations) if isinstance(origin, Shown) else None
        if origin == OWN or source is not None:
            numbers.append(Number(start, end, source, style))
    return tuple(numbers)
