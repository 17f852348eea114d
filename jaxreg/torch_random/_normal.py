"""Box-Muller as PyTorch's CPU kernels compute it: by sixteens with vector arithmetic, and by pairs in double precision.

The float32 logarithm, sine and cosine are those of the Cephes library (S. Moshier) in the operation order of
``ATen/native/cpu/avx_mathfun.h``. Compiled for AVX2, a product that flows into a sum becomes one fused multiply-add,
and which ones do is part of the result; :func:`~jaxreg.torch_random._fma.fma32` stands wherever the compiler fuses.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxreg.torch_random._fma import affine32, affine64, fma32

_LOG_POLYNOMIAL = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SIN_POLYNOMIAL = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS_POLYNOMIAL = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)

# Logarithm of two and a quarter of pi, each in parts short enough that their products with small integers are exact.
_LOG_2_PARTS = (np.float32(0.693359375), np.float32(-2.12194440e-4))
_QUARTER_PI_PARTS = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)

# Values that go through the polynomials at once: their temporaries then stay in the cache, which is twice as fast.
_CHUNK = 1 << 14


def sixteens(uniforms: Float[np.ndarray, "blocks 16"], mean: float, std: float) -> Float[np.ndarray, "blocks 16"]:
    """Normal samples out of blocks of sixteen uniform ones: the first eight give radii, the last eight give angles.

    Args:
        uniforms: float32 or float64 in [0, 1), of shape (blocks, 16). The dtype decides the arithmetic.
        mean: Of the samples.
        std: Their standard deviation.

    Returns:
        Samples of the dtype and shape of ``uniforms``.
    """
    samples = np.empty_like(uniforms)
    rows = _CHUNK // 8
    for start in range(0, len(uniforms), rows):
        part = uniforms[start : start + rows]
        fill = _sixteens32 if uniforms.dtype == np.float32 else _sixteens64
        fill(
            np.ascontiguousarray(part[:, :8]),
            np.ascontiguousarray(part[:, 8:]),
            mean,
            std,
            samples[start : start + rows],
        )
    return samples


def pair(u1: float, u2: float) -> tuple[float, float]:
    """Two standard normal samples out of two uniform ones in [0, 1), in double precision: the cosine's comes first."""
    radius = math.sqrt(-2.0 * math.log1p(-u2))
    theta = 2.0 * math.pi * u1
    return radius * math.cos(theta), radius * math.sin(theta)


def log32(x: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Natural logarithm of positive normal float32 values, bit for bit as PyTorch's ``log256_ps``."""
    bits = x.view(np.int32)
    exponent = ((bits >> 23) - 126).astype(np.float32)
    fraction = ((bits & 0x007FFFFF) | 0x3F000000).view(np.float32)
    below = fraction < np.float32(math.sqrt(0.5))
    exponent -= below
    t = (fraction - np.float32(1)) + np.where(below, fraction, np.float32(0))
    square = t * t
    y = _horner(_LOG_POLYNOMIAL, t) * t
    y = fma32(y, square, exponent * _LOG_2_PARTS[1])
    return fma32(exponent, _LOG_2_PARTS[0], t + (y - square * np.float32(0.5)))


def sincos32(x: Float32[np.ndarray, "*n"]) -> tuple[Float32[np.ndarray, "*n"], Float32[np.ndarray, "*n"]]:
    """Sine and cosine of float32 angles in [0, 8192), bit for bit as PyTorch's ``sincos256_ps``."""
    octant = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    count = octant.astype(np.float32)
    for part in _QUARTER_PI_PARTS:
        x = fma32(count, np.float32(part), x)
    square = x * x
    cosine = _horner(_COS_POLYNOMIAL, square) * square
    cosine = fma32(cosine, square, square * np.float32(-0.5)) + np.float32(1)
    sine = fma32(_horner(_SIN_POLYNOMIAL, square) * square, x, x)
    straight = (octant & 2) == 0
    negative_sine = (octant & 4) << 29
    negative_cosine = (~(octant - 2) & 4) << 29
    first = np.where(straight, sine, cosine).view(np.int32) ^ negative_sine
    second = np.where(straight, cosine, sine).view(np.int32) ^ negative_cosine
    return first.view(np.float32), second.view(np.float32)


def _horner(coefficients: tuple[float, ...], x: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = fma32(y, x, np.float32(coefficient))
    return y


def _sixteens32(
    u1: Float32[np.ndarray, "blocks 8"],
    u2: Float32[np.ndarray, "blocks 8"],
    mean: float,
    std: float,
    out: Float32[np.ndarray, "blocks 16"],
) -> None:
    radius = np.sqrt(np.float32(-2) * log32(np.float32(1) - u1))
    sine, cosine = sincos32(np.float32(2 * math.pi) * u2)
    out[:, :8] = affine32(radius * cosine, np.float32(std), np.float32(mean))
    out[:, 8:] = affine32(radius * sine, np.float32(std), np.float32(mean))


def _sixteens64(
    u1: Float64[np.ndarray, "blocks 8"],
    u2: Float64[np.ndarray, "blocks 8"],
    mean: float,
    std: float,
    out: Float64[np.ndarray, "blocks 16"],
) -> None:
    # PyTorch calls the C library here, and so does the math module; NumPy has functions of its own.
    radius = np.sqrt(-2.0 * np.array([math.log(x) for x in (1.0 - u1).ravel().tolist()]))
    theta = (2.0 * math.pi * u2).ravel().tolist()
    cosine = np.array([math.cos(x) for x in theta])
    sine = np.array([math.sin(x) for x in theta])
    out[:, :8] = affine64(radius * cosine, std, mean).reshape(u1.shape)
    out[:, 8:] = affine64(radius * sine, std, mean).reshape(u1.shape)
