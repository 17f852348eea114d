"""A function run with some of its operations replaced: a rule may answer in the place of an equation of its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from parity._types import PyTree
from parity.rounding import jaxprs
from parity.rounding.jaxprs import Atom, ClosedJaxpr, Equation, Jaxpr, Literal

_CALL_PRIMITIVES = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "remat2")
_CUSTOM_CALL_PRIMITIVES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# Operations that place values elsewhere and change none.
_PLACING_PRIMITIVES = (
    "broadcast_in_dim",
    "reshape",
    "convert_element_type",
    "squeeze",
    "expand_dims",
    "copy",
    "transpose",
)


class Frame:
    """One jaxpr as it is run: values, the equations they came from, and marks that a rule leaves on them."""

    def __init__(self) -> None:
        self.values: dict[Atom, jax.Array] = {}
        self.marks: dict[Atom, frozenset[str]] = {}
        self.made: dict[Atom, Equation] = {}
        self.same: dict[Atom, tuple[Frame, Atom]] = {}

    def read(self, atom: Atom) -> jax.Array:
        """Return the value of a variable or a literal."""
        return atom.val if isinstance(atom, Literal) else self.values[atom]

    def marked(self, atom: Atom) -> frozenset[str]:
        """Return the marks on it."""
        return frozenset() if isinstance(atom, Literal) else self.marks.get(atom, frozenset())

    def origin(self, atom: Atom) -> tuple[Frame, Atom]:
        """Return where it came from: itself, or what was handed in from outside or out from inside a call."""
        frame = self
        while not isinstance(atom, Literal) and atom in frame.same:
            frame, atom = frame.same[atom]
        return frame, atom

    def equation(self, atom: Atom, *, placed: bool = False) -> tuple[Frame, Equation] | None:
        """Return the equation that made it; with ``placed``, before it was reshaped, broadcast or cast."""
        frame, atom = self.origin(atom)
        if isinstance(atom, Literal) or atom not in frame.made:
            return None
        equation = frame.made[atom]
        if placed and equation.primitive.name in _PLACING_PRIMITIVES:
            return frame.equation(equation.invars[0], placed=True)
        return frame, equation

    def literal(self, atom: Atom) -> float | None:
        """Return the number that it is everywhere, if that is written in the program."""
        frame, atom = self.origin(atom)
        if isinstance(atom, Literal):
            return float(atom.val) if getattr(atom.val, "shape", ()) == () and not isinstance(atom.val, str) else None
        equation = frame.made.get(atom)
        if equation is not None and equation.primitive.name in _PLACING_PRIMITIVES:
            return frame.literal(equation.invars[0])
        return None


class Substitution:
    """What is done in an equation's place. ``touches`` are the primitives it may answer for; empty: all of them."""

    touches: tuple[str, ...] = ()
    # How many equations it answered for.
    count: int = 0

    def begin(self) -> None:
        """Begin another run through a function: it is traced as often as it is compiled."""

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        """Return values in place of the equation's own, or ``None``."""
        return None

    def marks(self, equation: Equation, marked: frozenset[str]) -> frozenset[str]:
        """Return the marks on what the equation made, from those on what it was given."""
        return marked

    def given(self, place: int) -> frozenset[str]:
        """Return the marks on the function's argument at this place among the leaves."""
        return frozenset()


def rewritten(function: Callable[..., PyTree], rule: Substitution) -> Callable[..., PyTree]:
    """Return ``function`` with ``rule`` applied; it can be traced, compiled and differentiated."""

    def call(*arguments: PyTree) -> PyTree:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = jax.tree.leaves(arguments)
        rule.begin()
        frame = Frame()
        for place, variable in enumerate(closed.jaxpr.invars):
            frame.marks[variable] = rule.given(place)
        out = _run(rule, frame, closed.jaxpr, closed.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _run(
    rule: Substitution, frame: Frame, jaxpr: Jaxpr, consts: Sequence[jax.Array], arguments: Sequence[jax.Array]
) -> list[jax.Array]:
    frame.values.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    for equation in jaxpr.eqns:
        values = [frame.read(atom) for atom in equation.invars]
        made = rule.answer(frame, equation, values)
        marked = frozenset[str]()
        rule.count += made is not None
        if made is None:
            marked = rule.marks(equation, frozenset[str]().union(*(frame.marked(atom) for atom in equation.invars)))
            made = _ordinary(rule, frame, equation, values)
        for variable, value in zip(equation.outvars, made, strict=True):
            frame.values[variable] = value
            frame.made[variable] = equation
            if variable not in frame.same:
                frame.marks[variable] = marked
    return [frame.read(atom) for atom in jaxpr.outvars]


def _ordinary(rule: Substitution, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array]:
    name, params, inner = equation.primitive.name, equation.params, jaxprs.called(equation)
    if inner is not None and (name in _CALL_PRIMITIVES or (name in _CUSTOM_CALL_PRIMITIVES and _concerns(rule, inner))):
        within = Frame()
        jaxpr, consts = jaxprs.opened(inner)
        for variable, atom in zip(jaxpr.invars, equation.invars, strict=True):
            within.same[variable] = (frame, atom)
            within.marks[variable] = frame.marked(atom)
        out = _run(rule, within, jaxpr, consts, values)
        for variable, atom in zip(equation.outvars, jaxpr.outvars, strict=True):
            frame.same[variable] = (within, atom)
            frame.marks[variable] = within.marked(atom)
        return out
    if name == "scan" and _concerns(rule, params["jaxpr"]):
        return _scan(rule, params, values)
    return bind(equation, values)


def _concerns(rule: Substitution, inner: Jaxpr | ClosedJaxpr) -> bool:
    within = jaxprs.equations(jaxprs.opened(inner)[0])
    return not rule.touches or any(equation.primitive.name in rule.touches for equation in within)


def _scan(rule: Substitution, params: dict[str, Any], values: list[jax.Array]) -> list[jax.Array]:
    body, fixed, carried = params["jaxpr"], params["num_consts"], params["num_carry"]

    def step(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        out = _run(rule, Frame(), body.jaxpr, body.consts, [*values[:fixed], *carry, *x])
        return out[:carried], out[carried:]

    start, over = values[fixed : fixed + carried], values[fixed + carried :]
    carry, out = lax.scan(step, start, over, length=params["length"], reverse=params["reverse"])
    return [*carry, *out]


def bind(equation: Equation, values: Sequence[jax.Array], **changed: Any) -> list[jax.Array]:
    """Run the equation's own operation, with other parameters where given."""
    primitive: Any = equation.primitive
    made = primitive.bind(*values, **primitive.get_bind_params({**equation.params, **changed}))
    return list(made) if primitive.multiple_results else [made]
