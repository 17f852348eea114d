"""What a call of ``print`` shows, told from its source and the values that its names have: text and numbers."""

from __future__ import annotations

import ast
import functools
import linecache
import re
import string
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from parity.capture.number_reads import Reads, Shown
from parity.capture.source_expressions import OWN, Look, Origin, UnknownError, is_plain, place, positions
from parity.recording.program_output import NUMBER

_PERCENT = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z%]")

_CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}


class Piece(NamedTuple):
    """A part of what is printed: its text, ``None`` where only the program knows, and the origin of its numbers."""

    text: str | None
    origins: list[Origin] | None = None
    style: str = ""


def pieces(frame: FrameType, reads: Reads, average: Callable[[float], Shown | None]) -> list[list[Piece]] | None:
    """The arguments of the call of ``print`` that ``frame`` is in, each in its pieces; ``None`` where it is no such.

    Args:
        frame: where the program is.
        reads: what left torch until now.
        average: what a number is that was not read, but is perhaps the mean or the sum of such.
    """
    linecache.checkcache(frame.f_code.co_filename)
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    call = _nodes(source).get(positions(frame.f_code)[frame.f_lasti // 2])
    if call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    texts = _Texts(Look(frame, reads, average))
    if isinstance(call.func, ast.Name) and call.func.id == "print" and texts.look.is_print():
        return [list(texts.pieces(argument)) for argument in call.args]
    if isinstance(call.func, ast.Attribute) and call.func.attr == "write" and len(call.args) == 1:
        return [list(texts.pieces(call.args[0]))]
    return None


@functools.lru_cache(maxsize=64)
def _nodes(source: str) -> dict[tuple[int | None, ...], ast.Call]:
    """Every call in a file by its place."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    return {place(node): node for node in ast.walk(tree) if isinstance(node, ast.Call)}


class _Texts:
    """The text that expressions come to where they are printed."""

    def __init__(self, look: Look) -> None:
        self.look = look

    def pieces(self, node: ast.expr) -> Iterator[Piece]:
        """The pieces of the text that ``node`` comes to when it is printed."""
        match node:
            case ast.Constant(value=str(text)):
                yield _own(text)
            case ast.JoinedStr(values=values):
                for value in values:
                    yield from self.pieces(value)
            case ast.FormattedValue(value=value, conversion=conversion, format_spec=spec):
                given = "" if spec is None else "".join(each.text or "" for each in self.pieces(spec))
                yield self._shown(value, given, _CONVERSIONS.get(chr(max(conversion, 0))))
            case ast.BinOp(left=left, op=ast.Add(), right=right) if _is_text(left) or _is_text(right):
                yield from self.pieces(left)
                yield from self.pieces(right)
            case ast.BinOp(left=ast.Constant(value=str(template)), op=ast.Mod(), right=right):
                yield from self._percent(template, right.elts if isinstance(right, ast.Tuple) else [right])
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(template)), attr="format"), args=args):
                yield from self._format(template, args, {each.arg: each.value for each in node.keywords})
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner], keywords=[]):
                yield from self.pieces(inner)
            case _:
                yield self._shown(node, "", str)

    def _shown(self, node: ast.expr, spec: str, convert: Callable[[Any], str] | None) -> Piece:
        try:
            value = self.look.value(node)
        except UnknownError:
            return Piece(None)
        origins = self.look.origins(node, value)
        # A number of NumPy's is formatted as Python's.
        plain = convert is None and isinstance(value, np.generic)
        style = spec or ("round" if _is_call(node, "round") else "repr" if plain else _style(value))
        if not is_plain(value):
            return Piece(None, origins, style)
        return Piece(format(convert(value) if convert else value, spec), origins, style)

    def _percent(self, template: str, values: list[ast.expr]) -> Iterator[Piece]:
        given, end = iter(values), 0
        for match in _PERCENT.finditer(template):
            yield _own(template[end : match.start()])
            end = match.end()
            if match.group() == "%%":
                yield _own("%")
                continue
            node = next(given, None)
            piece = Piece(None) if node is None else self._shown(node, "", str)
            if piece.text is not None and node is not None:
                try:
                    style = match.group()[1:] if match.group()[-1] in "eEfFgG" else piece.style
                    piece = Piece(match.group() % self.look.value(node), piece.origins, style)
                except (TypeError, ValueError):
                    piece = Piece(None)
            yield piece
        yield _own(template[end:])

    def _format(self, template: str, args: list[ast.expr], named: dict[str | None, ast.expr]) -> Iterator[Piece]:
        count = 0
        for text, field, spec, conversion in string.Formatter().parse(template):
            yield _own(text)
            if field is None:
                continue
            key: Any = field or count
            count += not field
            place = int(key) if str(key).isdigit() else None
            node = named.get(key) if place is None else args[place] if place < len(args) else None
            known = node is not None and not (spec and "{" in spec)
            given = spec or "", _CONVERSIONS.get(conversion or "")
            yield self._shown(node, *given) if known and node is not None else Piece(None)


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    called = _is_call(node, "str") or _is_call(node, "repr")
    return called or isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_call(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _style(value: Any) -> str:
    """How a value is written where nothing is said of it."""
    if isinstance(value, np.ndarray) or (isinstance(value, np.generic) and not isinstance(value, float)):
        return "numpy"
    return "" if isinstance(value, torch.Tensor) else "repr"


def _own(text: str) -> Piece:
    return Piece(text, [OWN for _ in NUMBER.finditer(text)])
