"""The functions that an optimizer's rule needs beside ``+ - * /``, for each kind of array that it is run on."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import jax
import jax.numpy as jnp

from parity._types import Array

Mask: TypeAlias = bool | Array | jax.Array


class Operand(Protocol):
    """An array that an optimizer's rule can be run on: JAX's, or numbers that know their rounding error."""

    def __neg__(self) -> Self: ...

    def __add__(self, other: Any, /) -> Self: ...

    def __sub__(self, other: Any, /) -> Self: ...

    def __mul__(self, other: Any, /) -> Self: ...

    def __rmul__(self, other: Any, /) -> Self: ...

    def __truediv__(self, other: Any, /) -> Self: ...

    def __gt__(self, other: float, /) -> Mask: ...


T = TypeVar("T", bound=Operand)


class Sqrt(Protocol[T]):
    """A root, element by element."""

    def __call__(self, values: T, /) -> T: ...


class Maximum(Protocol[T]):
    """The larger of two, element by element."""

    def __call__(self, first: T, second: T, /) -> T: ...


class Where(Protocol[T]):
    """The first where the mask holds, else the second."""

    def __call__(self, mask: Mask, first: T, second: T, /) -> T: ...


class Lerp(Protocol[T]):
    """``start + weight (end - start)``."""

    def __call__(self, start: T, end: T, weight: float | Array, /) -> T: ...


class Arithmetic(NamedTuple, Generic[T]):
    """Functions of one kind of array."""

    sqrt: Sqrt[T]
    maximum: Maximum[T]
    where: Where[T]
    lerp: Lerp[T]


def _torch_lerp(start: jax.Array, end: jax.Array, weight: float | Array) -> jax.Array:
    """Compute ``torch.lerp``, whose form depends on the weight, a single number here."""
    return start + weight * (end - start) if weight < 0.5 else end - (end - start) * (1 - weight)


# For tracing: every operation rounds where PyTorch's does.
TRACED: Arithmetic[jax.Array] = Arithmetic(jnp.sqrt, jnp.maximum, jnp.where, _torch_lerp)
