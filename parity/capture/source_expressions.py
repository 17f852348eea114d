"""Expressions of a program's source as they stand in a frame: what they come to, and where their numbers are from."""

from __future__ import annotations

import ast
import builtins
import functools
import operator
import statistics
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

from parity.capture.number_reads import Reads, Shown
from parity.recording.program_output import NUMBER

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
# Functions that have no effects, whose result may be an average of what was read or what was read itself.
_PURE = (float, round, sum, len, min, max, abs, int, np.mean, np.sum, statistics.mean, statistics.fmean)
_PLAIN = (int, float, bool, str, type(None))

# Of a number whether it is the program's own, and otherwise what it was read from; ``None``: not known.
OWN = "own"
Origin = Shown | str | None


class UnknownError(Exception):
    """The source does not tell."""


@functools.lru_cache(maxsize=256)
def positions(code: CodeType) -> list[tuple[int | None, ...]]:
    """Where in the source each instruction stands: as :func:`place` of the expression that it is of."""
    return [(line, column, end, last) for line, end, column, last in code.co_positions()]


def place(node: ast.expr) -> tuple[int | None, ...]:
    """Where an expression begins and ends: line, column, line, column."""
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


class Look:
    """Reads expressions as they stand in a frame, without calling anything that could have an effect."""

    def __init__(self, frame: FrameType, reads: Reads, average: Callable[[float], Shown | None]) -> None:
        self._frame, self._reads, self._average = frame, reads, average
        self._sites = {
            positions(code)[last // 2]: known for (code, last), known in reads.sites.items() if code is frame.f_code
        }

    def is_print(self) -> bool:
        """Whether ``print`` is what Python means by it there."""
        return self._name("print") is builtins.print

    # -- values

    def value(self, node: ast.expr) -> Any:
        """What ``node`` comes to.

        Raises:
            UnknownError: that cannot be told without calling the program's code.
        """
        if isinstance(node, ast.Call) and (known := self._sites.get(place(node))) is not None:
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
                    raise UnknownError from None
            case ast.Call(func=function, args=args, keywords=[]):
                return self._called(function, args)
        raise UnknownError

    def _called(self, function: ast.expr, args: list[ast.expr]) -> Any:
        known = self.value(function)
        given = [self.value(each) for each in args]
        simple = known is len or all(map(is_plain, given)) or (len(given) == 1 and _is_plain_list(given[0]))
        if not simple or not any(known is each for each in _PURE):
            raise UnknownError
        try:
            return known(*given)
        except Exception:
            raise UnknownError from None

    def _number(self, node: ast.expr) -> Any:
        value = self.value(node)
        if not isinstance(value, int | float | np.generic):
            raise UnknownError
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
        raise UnknownError

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
        if isinstance(node, ast.Call) and (site := self._sites.get(place(node))) is not None:
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


def is_plain(value: Any) -> bool:
    """Whether a value is of Python's or NumPy's own, so that no code of the program's runs where it is used."""
    return type(value) in _PLAIN or isinstance(value, np.generic)


def _is_plain_list(value: Any) -> bool:
    return type(value) in (list, tuple) and all(map(is_plain, value))


def _attribute(value: Any, name: str) -> Any:
    """An attribute that is plainly there: no property of the program's is called."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        raise UnknownError from None
    if name in held:
        return held[name]
    if isinstance(value, torch.nn.Module):
        for held in (value._parameters, value._buffers, value._modules):
            if name in held:
                return held[name]
    raise UnknownError


def _element(value: Any, index: Any) -> Any:
    if type(value) not in (list, tuple, dict, np.ndarray):
        raise UnknownError
    try:
        return value[index]
    except (LookupError, TypeError, ValueError):
        raise UnknownError from None
