"""Fused multiply-add in NumPy: ``a * b + c`` rounded once, as the hardware that PyTorch is compiled for rounds it.

NumPy has no such operation. It is built here out of ordinary float64 arithmetic: error-free sums and products, and
rounding to odd before the last rounding, after S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded
sums: proved algorithms using rounding to odd", IEEE Transactions on Computers 57 (2008).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64

# A float64 lies half-way between two neighbouring float32 values when its lowest 29 bits are these.
_LOW_BITS = np.int64((1 << 29) - 1)
_HALF_WAY = np.int64(1 << 28)

# Veltkamp's constant: it splits a float64 into two halves whose products are exact.
_SPLIT = 134217729.0


def fma32(
    a: Float32[np.ndarray, "*n"], b: Float32[np.ndarray, "*n"] | np.float32, c: Float32[np.ndarray, "*n"] | np.float32
) -> Float32[np.ndarray, "*n"]:
    """``a * b + c`` in float32, rounded once. The result has to be zero or a normal number.

    The product of two float32 is exact in float64, so only the sum is rounded twice, and that matters only where the
    first rounding lands half-way between two float32.

    Returns:
        float32, of the shape of ``a``.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    landed = (total.view(np.int64) & _LOW_BITS) == _HALF_WAY
    if landed.any():
        total[landed] = _add_to_odd(product[landed], np.broadcast_to(c, product.shape)[landed].astype(np.float64))
    return total.astype(np.float32)


def affine32(x: Float32[np.ndarray, "*n"], scale: np.float32, shift: np.float32) -> Float32[np.ndarray, "*n"]:
    """``x * scale + shift`` in float32, rounded once, whatever its size: subnormal results and overflow included."""
    product = np.multiply(x, scale, dtype=np.float64)
    with np.errstate(over="ignore"):
        return _add_to_odd(product, np.full_like(product, shift)).astype(np.float32)


def affine64(x: Float64[np.ndarray, "*n"], scale: float, shift: float) -> Float64[np.ndarray, "*n"]:
    """``x * scale + shift`` in float64, rounded once. A subnormal result may be off by its last bit.

    Args:
        x: float64, of magnitude zero or between 2^-400 and 2^400.
        scale: Finite.
        shift: Finite.

    Returns:
        float64, of the shape of ``x``.
    """
    if shift == 0.0:
        return x * scale + shift
    # Both scalars are brought near one first, or the halves of a huge one would overflow.
    exponent = max(math.frexp(scale)[1], math.frexp(shift)[1])
    high, low = _two_product(x, math.ldexp(scale, -exponent))
    rest, rest_low = _two_sum(low, np.full_like(low, math.ldexp(shift, -exponent)))
    top, top_low = _two_sum(high, rest)
    with np.errstate(over="ignore"):
        return np.ldexp(top + _add_to_odd(rest_low, top_low), exponent)


def _two_sum(
    a: Float64[np.ndarray, "*n"], b: Float64[np.ndarray, "*n"]
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Float64[np.ndarray, "*n"], b: float) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    product = a * b
    a_high = a * _SPLIT - (a * _SPLIT - a)
    b_high = b * _SPLIT - (b * _SPLIT - b)
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _add_to_odd(a: Float64[np.ndarray, "*n"], b: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """``a + b``, where an inexact sum takes the neighbour with an odd last bit: rounding it again is then harmless."""
    total, error = _two_sum(a, b)
    even = (total.view(np.int64) & 1) == 0
    neighbour = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, neighbour, total)
