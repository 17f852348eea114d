"""How far the libraries' elementary functions are from exact, in unit roundoffs.

The table holds, rounded up, the larger of two figures. *Measured*: the worst of XLA and PyTorch on the CPU, by
``python -m tests.helpers.measure_functions``. *Documented*: the worst of CUDA's mathematical functions over the
editions of the CUDA programming guide, n units in the last place of the rounded result, which is 2 n + 1 unit
roundoffs. Division counts twice: XLA may take a product with the reciprocal, and PTX's div.full, which XLA uses in
float32, is 2 ULP off. sqrt(x) may be x rsqrt(x), one rounding more. The logistic function on CUDA is 1 / (1 + exp(-x)).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from parity._types import Scalar

# name: (float32 and narrower, float64). Behind each: measured in float32 by XLA and PyTorch, then in float64.
ACCURACY: dict[str, tuple[float, float]] = {
    "acos": (7, 5),  # 3.5, 1.5; 1.8, 1.4
    "acosh": (9, 7),  # 5.1, 2.2; 4.2, 1.6
    "asin": (9, 5),  # 2.8, 1.4; 2.0, 1.3
    "asinh": (7, 7),  # 3.8, 2.3; 3.0, 1.9
    "atan": (6, 5),  # 5.6, 1.4; 1.0, 1.0
    "atan2": (7, 5),  # 2.0, 1.2; 1.0, 1.2
    "atanh": (7, 256),  # 3.2, 2.0; 242, 2.0: XLA's log1p
    "cbrt": (3, 6),  # 1.6; 5.1
    "cos": (5, 5),  # 0.5, 0.6; 0.5, 0.5
    "cosh": (5, 5),  # 1.8, 1.0; 1.9, 1.0, of (1 + |x|) cosh(x)
    "digamma": (24, 18),  # 21, 16; 16, 11
    "div": (5, 2),
    "erf": (6, 5),  # 5.2, 1.2; 1.3, 1.2
    "erf_inv": (7, 17),  # 2.0, 0.5; 13, 0.5, of |f| + |x f'|
    "erfc": (13, 11),  # 6.1, 1.5; 6.3, 1.5, of (1 + x^2) erfc(x), or of 1
    "exp": (6, 3),  # 5.0, 1.1; 1.9, 1.0
    "exp2": (5, 5),  # 1.0, 1.0; 1.3, 1.0, of (1 + |x|) exp2(x)
    "expm1": (7, 6),  # 6.6, 1.5; 5.2, 1.5
    "lgamma": (48, 32),  # 46, 1; 28, 1, of max(|f|, 1), positive arguments
    "log": (3, 3),  # 2.0, 1.4; 1.0, 1.0
    "log1p": (5, 256),  # 3.5, 1.0; 242 near x = -0.4142, 1.2
    "logistic": (11, 6),  # 2.2, 2.2; 2.1, 2.0
    "pow": (19, 5),  # 1.0, 1.0; 1.0, 1.0
    "rsqrt": (5, 3),  # 2.7, 1.5; 1.2, 1.5
    "sin": (5, 5),  # 1.0, 1.0; 1.0, 1.0, of min(|x|, 1)
    "sinh": (7, 6),  # 6.5, 2.0; 5.3, 2.0, of (1 + |x|) sinh(x)
    "sqrt": (6, 4),  # 1.0, 1.5; 1.0, 1.0
    "tan": (9, 5),  # 1.5, 1.4; 1.0, 1.0
    "tanh": (5, 7),  # 4.6, 1.0; 6.9, 1.2
}


def _grown(x: Array, value: Array) -> Array:
    return (1 + jnp.abs(x)) * jnp.abs(value)


def _at_least_one(x: Array, value: Array) -> Array:
    return jnp.maximum(jnp.abs(value), 1.0)


def _tail(x: Array, value: Array) -> Array:
    # At least 1: another program, PyTorch's GELU for one, has 1 - erf(x) where JAX has erfc(x).
    return jnp.maximum((1 + x * x) * jnp.abs(value), 1.0)


def _inverse_tail(x: Array, value: Array) -> Array:
    return jnp.abs(value) + jnp.abs(x) * 0.8862269254527580 * jnp.exp(value * value)


# What the errors are unit roundoffs of, where that is not the result: an argument that is first scaled and rounded
# moves the result by more than its own last places.
SIZES: dict[str, Callable[[Array, Array], Array]] = {
    "cos": lambda x, value: jnp.ones(jnp.shape(value)),
    "cosh": _grown,
    "digamma": _at_least_one,
    "erf_inv": _inverse_tail,
    "erfc": _tail,
    "exp2": _grown,
    "lgamma": _at_least_one,
    "sin": lambda x, value: jnp.minimum(jnp.abs(x), 1.0),
    "sinh": _grown,
}


def accuracy(name: str, unit: Scalar) -> Scalar:
    """Return the count of unit roundoffs for a function in a format of this unit roundoff, which may be traced."""
    single, double = ACCURACY[name]
    return single if single == double else jnp.where(unit < 2.0**-40, double, single)


def size(name: str, x: Array, value: Array) -> Array:
    """Return what that many unit roundoffs are to be taken of."""
    return SIZES[name](x, value) if name in SIZES else jnp.abs(value)
