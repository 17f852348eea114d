"""Operations inside a model that ports get wrong, and what to put in their place."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity._types import DTypeLike
from parity.causes.model.jaxpr_rewrite import Frame, Substitution, bind
from parity.rounding.jaxprs import Atom, Equation, shape_of

_ROOT_PRIMITIVES = ("rsqrt", "sqrt")
_RANDOM_PRIMITIVES = (
    "random_bits",
    "threefry2x32",
    "rng_bit_generator",
    "random_seed",
    "random_fold_in",
    "random_split",
)
_PRODUCT_PRIMITIVES = ("dot_general", "conv_general_dilated")


class Epsilon(Substitution):
    """Another number under the roots of normalisations; ``found`` are those that are there, and their sizes."""

    touches = _ROOT_PRIMITIVES

    def __init__(self, old: float | None = None, new: float = 0.0) -> None:
        self.old, self.new = old, new
        self.found: dict[float, set[int]] = {}

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name not in _ROOT_PRIMITIVES:
            return None
        source = frame.equation(equation.invars[0], placed=True)
        if source is None or source[1].primitive.name != "add":
            return None
        inner, addition = source
        numbers = [inner.literal(atom) for atom in addition.invars]
        known = [number for number in numbers if number is not None]
        if len(known) != 1:
            return None
        self.found.setdefault(known[0], set()).add(int(np.size(values[0])))
        if self.old is None or not math.isclose(known[0], self.old, rel_tol=1e-6):
            return None
        other = inner.read(addition.invars[numbers.index(None)])
        moved = other + jnp.asarray(self.new, other.dtype)
        if moved.shape != values[0].shape:
            moved = values[0] + jnp.asarray(self.new - known[0], values[0].dtype)
        return bind(equation, [moved])


class ExactGelu(Substitution):
    """erf in the place of GELU's tanh."""

    touches = ("tanh",)

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name != "tanh":
            return None
        x = self._argument(frame, equation)
        return None if x is None else [lax.erf(x / jnp.asarray(math.sqrt(2), x.dtype))]

    def _argument(self, frame: Frame, equation: Equation) -> jax.Array | None:
        """Return the x of tanh(√(2/π) (x + 0.044715 x³)), if it is that."""
        product = _operands(frame, equation.invars[0], "mul", math.sqrt(2 / math.pi))
        if product is None:
            return None
        inner, atom = product
        addition = inner.equation(atom)
        if addition is None or addition[1].primitive.name != "add":
            return None
        inner, added = addition
        for cubic, plain in (added.invars, added.invars[::-1]):
            if _operands(inner, cubic, "mul", 0.044715) is not None:
                return inner.read(plain)
        return None


def _operands(frame: Frame, atom: Atom, name: str, number: float) -> tuple[Frame, Atom] | None:
    """Return the other operand, where ``atom`` is made of a given number and that."""
    source = frame.equation(atom)
    if source is None or source[1].primitive.name != name:
        return None
    inner, equation = source
    for one, other in (equation.invars, equation.invars[::-1]):
        literal = inner.literal(one)
        if literal is not None and math.isclose(literal, number, rel_tol=1e-4):
            return inner, other
    return None


class TanhGelu(Substitution):
    """GELU's tanh in the place of erf."""

    touches = ("erf", "erfc")

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name not in self.touches:
            return None
        x = values[0] * jnp.asarray(math.sqrt(2), values[0].dtype)
        inner = jnp.asarray(0.044715, x.dtype) * x * x * x + x
        made = jnp.tanh(jnp.asarray(math.sqrt(2 / math.pi), x.dtype) * inner)
        return [made if equation.primitive.name == "erf" else 1 - made]


class NoDropout(Substitution):
    """What was dropped at random is kept, and what was kept is not made larger; ``found`` counts the places."""

    touches = ("select_n", *_RANDOM_PRIMITIVES)

    def __init__(self) -> None:
        self.found = 0

    def marks(self, equation: Equation, marked: frozenset[str]) -> frozenset[str]:
        return marked | {"random"} if equation.primitive.name in _RANDOM_PRIMITIVES else marked

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name != "select_n" or "random" not in frame.marked(equation.invars[0]):
            return None
        kept = [atom for atom in equation.invars[1:] if frame.literal(atom) != 0]
        if len(kept) != 1 or len(equation.invars) != 3:
            return None
        self.found += 1
        source = frame.equation(kept[0])
        if source is not None and source[1].primitive.name in ("div", "mul"):
            inner, scaling = source
            if inner.literal(scaling.invars[1]) is not None:
                return [inner.read(scaling.invars[0])]
            if scaling.primitive.name == "mul" and inner.literal(scaling.invars[0]) is not None:
                return [inner.read(scaling.invars[1])]
        return [frame.read(kept[0])]


class Differentiated(Substitution):
    """No gradient is stopped, or none at one place; ``found`` counts the places of a function."""

    touches = ("stop_gradient",)

    def __init__(self, only: int | None = None) -> None:
        self._only, self.found = only, 0

    def begin(self) -> None:
        self.found = 0

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name != "stop_gradient":
            return None
        self.found += 1
        return values if self._only in (None, self.found - 1) else None


class Wide(Substitution):
    """No cast to a narrower float: all of it in float64; ``found`` are the dtypes that were cast to."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        name, params = equation.primitive.name, equation.params
        if name == "convert_element_type" and _narrow(params["new_dtype"]):
            if np.dtype(getattr(values[0], "dtype", np.int32)) == np.float64:
                self.found.add(str(np.dtype(params["new_dtype"])))
            return [jnp.asarray(values[0]).astype(np.float64)]
        if name == "reduce_precision":
            self.found.add({10: "tensorfloat32", 7: "bfloat16"}.get(params["mantissa_bits"], "float32"))
            return [values[0]]
        if any(key in params for key in ("jaxpr", "call_jaxpr", "branches", "cond_jaxpr", "fun_jaxpr")):
            return None
        wide = [value.astype(np.float64) if _narrow(getattr(value, "dtype", None)) else value for value in values]
        changed = {
            key: np.dtype(np.float64)
            for key in ("dtype", "new_dtype", "preferred_element_type")
            if _narrow(params.get(key))
        }
        return bind(equation, wide, **changed) if changed or wide != values else None


def _narrow(dtype: DTypeLike | None) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype) != np.float64


class Coarse(Substitution):
    """The operands of all products rounded to a format, and their results too if ``results``."""

    touches = _PRODUCT_PRIMITIVES

    def __init__(self, rounding: Callable[[jax.Array], jax.Array], results: bool = False) -> None:
        self._round, self._results = rounding, results

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        if equation.primitive.name not in _PRODUCT_PRIMITIVES:
            return None
        out = bind(equation, [self._round(value) for value in values])
        return [self._round(value) for value in out] if self._results else out


class BatchStatistics(Substitution):
    """The batch's own mean and variance in the place of running ones: leaves ``first`` to ``last`` are the state."""

    touches = ("sub", *_ROOT_PRIMITIVES)

    def __init__(self, first: int, last: int) -> None:
        self._leaves = range(first, last)
        self._variance: jax.Array | None = None
        self.found = 0

    def given(self, place: int) -> frozenset[str]:
        return frozenset({"state"} if place in self._leaves else ())

    def marks(self, equation: Equation, marked: frozenset[str]) -> frozenset[str]:
        # A value that took anything else in is no statistic any more.
        return marked if equation.primitive.name not in ("mul", "dot_general") else frozenset()

    def answer(self, frame: Frame, equation: Equation, values: list[jax.Array]) -> list[jax.Array] | None:
        name = equation.primitive.name
        marked = [bool(frame.marked(atom)) for atom in equation.invars]
        if name == "sub" and marked == [False, True]:
            axes = _spread_over(frame, equation.invars[1], values[0].shape)
            mean = values[0].mean(axes, keepdims=True)
            self._variance = ((values[0] - mean) ** 2).mean(axes, keepdims=True)
            self.found += 1
            return [values[0] - jnp.broadcast_to(mean, values[0].shape)]
        if name in _ROOT_PRIMITIVES and any(marked) and self._variance is not None:
            source = frame.equation(equation.invars[0], placed=True)
            if source is None or source[1].primitive.name != "add":
                return None
            epsilons = [source[0].literal(atom) for atom in source[1].invars]
            known = [number for number in epsilons if number is not None]
            if len(known) != 1 or np.size(values[0]) != np.size(self._variance):
                return None
            variance = jnp.reshape(self._variance, values[0].shape)
            return bind(equation, [variance + jnp.asarray(known[0], variance.dtype)])
        return None


def _spread_over(frame: Frame, atom: Atom, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes over which a statistic is the same everywhere."""
    own = shape_of(atom)
    if own != shape:
        return tuple(axis for axis in range(len(shape)) if own[axis] != shape[axis])
    source = frame.equation(atom)
    if source is None or source[1].primitive.name != "broadcast_in_dim":
        return (0,)
    kept = source[1].params["broadcast_dimensions"]
    operand = shape_of(source[1].invars[0])
    return tuple(axis for axis in range(len(shape)) if axis not in kept or operand[kept.index(axis)] != shape[axis])


def rounder(exponent: int, mantissa: int) -> Callable[[jax.Array], jax.Array]:
    """Return rounding to the nearest number of a format, ties to even."""
    return lambda value: jax.lax.reduce_precision(value, exponent_bits=exponent, mantissa_bits=mantissa)
