"""Floating-point formats as plain numbers, so that one compiled bound serves every format."""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from parity._types import DTypeLike, Scalar

# Significant bits, the leading one counted, and the exponents of the smallest normal and of the first number too large.
_BITS_AND_EXPONENTS = {
    "float64": (53, -1022, 1024),
    "float32": (24, -126, 128),
    "bfloat16": (8, -126, 128),
    "float16": (11, -14, 16),
}
# The most that rounding an operand of a product does, relative. Tensor cores cut TF32's last bits off where nobody
# rounded them before (Fasi, Higham, Mikaitis and Pranesh, 2021), which is one bit worse than rounding to nearest.
_OPERAND_RELATIVE_ERRORS = {None: 0.0, "tensorfloat32": 2.0**-10, "bfloat16": 2.0**-8}
# A sum that is not covered more often than once in so many elements, for the probabilistic line.
_FAILURE_PROBABILITY = 1e-9


class Format(NamedTuple):
    """A floating-point format, every field a float or a traced float64 scalar.

    Attributes:
        unit: unit roundoff, half the distance from 1 to the next number.
        tiny: smallest normal number; whatever is smaller may be flushed to zero.
        largest: largest finite number.
        products: the most that rounding the operands of dot_general and convolutions does, relative; 0 if they are
            taken as they are.
    """

    unit: Scalar
    tiny: Scalar
    largest: Scalar
    products: Scalar = 0.0

    @classmethod
    def of(cls, precision: str, products: str | None = None) -> Format:
        """Return the format called ``precision``; the operands of products are first rounded to ``products``.

        Raises:
            ValueError: there is no such format.
        """
        if precision not in _BITS_AND_EXPONENTS:
            raise ValueError(f"precision must be one of {', '.join(map(repr, _BITS_AND_EXPONENTS))}, got {precision!r}")
        if products not in _OPERAND_RELATIVE_ERRORS:
            raise ValueError(f"products must be None, 'tensorfloat32' or 'bfloat16', got {products!r}")
        bits, low, high = _BITS_AND_EXPONENTS[precision]
        largest = math.ldexp(1 - 2.0**-bits, high) if high < 1024 else float(np.finfo(np.float64).max)
        return cls(2.0**-bits, math.ldexp(1.0, low), largest, _OPERAND_RELATIVE_ERRORS[products])


def widest(first: Format, dtype: DTypeLike) -> Format:
    """Return the coarser of a format and a dtype, field by field."""
    name = np.dtype(dtype).name
    if name not in _BITS_AND_EXPONENTS:
        return first
    other = Format.of(name)
    return Format(
        jnp.maximum(first.unit, other.unit),
        jnp.maximum(first.tiny, other.tiny),
        jnp.minimum(first.largest, other.largest),
        first.products,
    )


def gamma(count: Scalar, unit: Scalar, xp: ModuleType = jnp) -> Scalar:
    """Return the most that ``count`` roundings can do, relative (Higham, 2002, lemma 3.1); infinite if everything."""
    share = count * unit
    return xp.where(share < 1, share / xp.where(share < 1, 1 - share, 1.0), np.inf)


def likely_gamma(count: Scalar, unit: Scalar, terms: Scalar, xp: ModuleType = jnp) -> Scalar:
    """Return what ``count`` roundings do, relative, to each of ``terms`` numbers but for one chance in 1e9.

    Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019), theorem
    2.4: exp(l sqrt(n) u + n u^2 / (1 - u)) - 1 with probability at least 1 - 2 exp(-l^2 (1 - u)^2 / 2) for each.
    """
    level = xp.sqrt(2 * xp.log(2 * xp.maximum(terms, 1) / _FAILURE_PROBABILITY)) / (1 - unit)
    likely = xp.expm1(level * xp.sqrt(count) * unit + count * unit**2 / (1 - unit))
    return xp.minimum(likely, gamma(count, unit, xp))
