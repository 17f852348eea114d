"""How far the libraries' elementary functions are from exact, in unit roundoffs of the result."""

from __future__ import annotations

# PROVISIONAL
ACCURACY: dict[str, float] = {
    "exp": 4,
    "exp2": 4,
    "log": 4,
    "log1p": 4,
    "expm1": 6,
    "sqrt": 6,
    "rsqrt": 4,
    "cbrt": 6,
    "tanh": 8,
    "logistic": 8,
    "erf": 8,
    "erfc": 16,
    "erf_inv": 16,
    "sin": 6,
    "cos": 6,
    "tan": 8,
    "asin": 8,
    "acos": 8,
    "atan": 8,
    "atan2": 8,
    "sinh": 8,
    "cosh": 8,
    "asinh": 8,
    "acosh": 8,
    "atanh": 8,
    "lgamma": 32,
    "digamma": 32,
    "pow": 32,
    "div": 4,
}
