"""What a call of ``print`` shows, told from its source and the values that its names have: text and numbers."""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
import operator
import re
import statistics
import string
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from parity._lines import NUMBER
from parity._reads import Reads, Shown

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
# Functions that have no effects, whose result may be an average of what was read or what was read itself.
_PURE = (float, round, sum, len, min, max, abs, int, np.mean, np.sum, statistics.mean, statistics.fmean)
_PLAIN = (int, float, bool, str, type(None), np.generic)
_PERCENT = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z%]")

_CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}

# Of a number whether it is the program's own, and otherwise what it was read from; ``None``: not known.
OWN = "own"
Origin = Shown | str | None


class Piece(NamedTuple):
    """A part of what is printed: its text, ``None`` where only the program knows, and the origin of its numbers."""

    text: str | None
    origins: list[Origin] | None = None
    style: str = ""


class _UnknownError(Exception):
    """The source does not tell."""


def pieces(frame: FrameType, reads: Reads, average: Callable[[float], Shown | None]) -> list[list[Piece]] | None:
    """The arguments of the call of ``print`` that ``frame`` is in, each in its pieces; ``None`` where it is no such.

    Args:
        frame: where the program is.
        reads: what left torch until now.
        average: what a number is that was not read, but is perhaps the mean or the sum of such.
    """
    linecache.checkcache(frame.f_code.co_filename)
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    call = _nodes(source).get(_position(frame))
    if call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    look = _Look(frame, reads, average)
    if isinstance(call.func, ast.Name) and call.func.id == "print" and look.is_print():
        return [list(look.pieces(argument)) for argument in call.args]
    if isinstance(call.func, ast.Attribute) and call.func.attr == "write" and len(call.args) == 1:
        return [list(look.pieces(call.args[0]))]
    return None


def _position(frame: FrameType) -> tuple[int | None, ...]:
    return _positions(frame.f_code)[frame.f_lasti // 2]


@functools.lru_cache(maxsize=256)
def _positions(code: CodeType) -> list[tuple[int | None, ...]]:
    return [(line, column, end, last) for line, end, column, last in code.co_positions()]


@functools.lru_cache(maxsize=64)
def _nodes(source: str) -> dict[tuple[int | None, ...], ast.Call]:
    """Every call in a file by its place."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    return {_place(node): node for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _place(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


class _Look:
    """Reads expressions as they stand in a frame, without calling anything that could have an effect."""

    def __init__(self, frame: FrameType, reads: Reads, average: Callable[[float], Shown | None]) -> None:
        self._frame, self._reads, self._average = frame, reads, average
        self._sites = {
            _positions(code)[last // 2]: known for (code, last), known in reads.sites.items() if code is frame.f_code
        }

    def is_print(self) -> bool:
        return self._name("print") is builtins.print

    # -- text

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
            value = self.value(node)
        except _UnknownError:
            return Piece(None)
        origins = self.origins(node, value)
        # A number of NumPy's is formatted as Python's.
        plain = convert is None and isinstance(value, np.generic)
        style = spec or ("round" if _is_call(node, "round") else "repr" if plain else _style(value))
        if not isinstance(value, _PLAIN):
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
                    piece = Piece(match.group() % self.value(node), piece.origins, style)
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

    # -- values

    def value(self, node: ast.expr) -> Any:
        """What ``node`` comes to.

        Raises:
            _UnknownError: that cannot be told without calling the program's code.
        """
        if isinstance(node, ast.Call) and (known := self._sites.get(_place(node))) is not None:
            return known[0]
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=inner, attr=name):
                return _attribute(self.value(inner), name)
            case ast.Subscript(value=inner, slice=index):
                return _element(self.value(inner), self._index(index))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self._number(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                try:
                    return _OPERATORS[type(op)](self._number(left), self._number(right))
                except ArithmeticError:
                    raise _UnknownError from None
            case ast.Call(func=function, args=args, keywords=[]):
                return self._called(function, args)
        raise _UnknownError

    def _called(self, function: ast.expr, args: list[ast.expr]) -> Any:
        known = self.value(function)
        given = [self.value(each) for each in args]
        simple = known is len or all(isinstance(each, (*_PLAIN, list, tuple)) for each in given)
        if not simple or not any(known is each for each in _PURE):
            raise _UnknownError
        try:
            return known(*given)
        except Exception:
            raise _UnknownError from None

    def _number(self, node: ast.expr) -> Any:
        value = self.value(node)
        if not isinstance(value, int | float | np.generic):
            raise _UnknownError
        return value

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Tuple):
            return tuple(map(self._index, node.elts))
        if isinstance(node, ast.Slice):
            return slice(*(None if end is None else self.value(end) for end in (node.lower, node.upper, node.step)))
        return self.value(node)

    def _name(self, name: str) -> Any:
        for names in (self._frame.f_locals, self._frame.f_globals, vars(builtins)):
            if name in names:
                return names[name]
        raise _UnknownError

    # -- origins

    def origins(self, node: ast.expr, value: Any) -> list[Origin]:
        """Of each number that ``value`` is printed with, what it was read from."""
        if isinstance(value, np.ndarray):
            return self._of_array(node, value)
        if isinstance(value, list | tuple):
            return [origin for item in value for origin in self.origins(node, item)]
        if isinstance(value, str):
            return [OWN if isinstance(node, ast.Constant) else None for _ in NUMBER.finditer(value)]
        if not isinstance(value, float | np.floating):
            return []
        return [self._of_number(node, value)]

    def _of_array(self, node: ast.expr, value: Any) -> list[Origin]:
        if isinstance(node, ast.Call) and (site := self._sites.get(_place(node))) is not None:
            return list(site[1])
        if found := self._reads.array(value):
            return list(found)
        if isinstance(node, ast.Subscript) and isinstance(array := self.value(node.value), np.ndarray):
            known = self._of_array(node.value, array)
            if len(known) == array.size:
                places = np.arange(array.size).reshape(array.shape)[self._index(node.slice)]
                return [known[place] for place in np.ravel(places)]
        return [None] * min(value.size, 1)

    def _of_number(self, node: ast.expr, value: Any) -> Origin:
        if found := self._reads.number(value):
            return found
        match node:
            case ast.Constant():
                return OWN
            case ast.Call(func=ast.Name(id="round" | "float"), args=[inner, *_]):
                return self._of_number(inner, self.value(inner))
            case ast.UnaryOp(operand=inner) if isinstance(shown := self._of_number(inner, self.value(inner)), Shown):
                return shown._replace(factor=-shown.factor)
            case ast.Subscript(value=inner) if isinstance(self.value(inner), np.ndarray):
                return self._of_array(node, value)[0]
            case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
                first, second = self.value(left), self.value(right)
                if isinstance(shown := self._scaled(left, first), Shown) and self._scaled(right, second) in (None, OWN):
                    times = isinstance(op, ast.Mult)
                    factor = shown.factor * float(second) if times else shown.factor
                    return shown._replace(factor=factor, divisor=shown.divisor * (1.0 if times else float(second)))
                if isinstance(op, ast.Mult) and isinstance(shown := self._scaled(right, second), Shown):
                    return shown._replace(factor=shown.factor * float(first))
        return self._average(float(value))

    def _scaled(self, node: ast.expr, value: Any) -> Origin:
        """The origin of an operand: a whole number is the program's own."""
        return self._of_number(node, value) if isinstance(value, float | np.floating) else OWN


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


def _attribute(value: Any, name: str) -> Any:
    """An attribute that is plainly there: no property of the program's is called."""
    if isinstance(value, type(np)):
        return vars(value).get(name, _missing())
    held = getattr(value, "__dict__", {})
    if name in held:
        return held[name]
    if isinstance(value, torch.nn.Module):
        for held in (value._parameters, value._buffers, value._modules):
            if name in held:
                return held[name]
    raise _UnknownError


def _missing() -> Any:
    return None


def _element(value: Any, index: Any) -> Any:
    if type(value) not in (list, tuple, dict, np.ndarray):
        raise _UnknownError
    try:
        return value[index]
    except (LookupError, TypeError, ValueError):
        raise _UnknownError from None
