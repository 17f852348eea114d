"""Measures how far XLA's and PyTorch's elementary functions are from exact, for the table in parity.rounding.accuracy.

Run ``python -m tests.helpers.measure_functions``. Float32 is taken at every 499th of all its bit patterns, and again
at every 3rd pattern near where a function is 0, 1 or has a seam, against float64; float64 at some thousands of numbers
of every size, against mpmath. Errors are in unit roundoffs of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import torch
from jax import lax
from scipy import special

from parity.rounding.accuracy import size

Array = Any
_STRIDE = 499
_NAMES = {
    # name: (XLA, PyTorch, float64 reference, mpmath)
    "exp": (jnp.exp, torch.exp, np.exp, mpmath.exp),
    "exp2": (jnp.exp2, torch.exp2, np.exp2, lambda x: mpmath.power(2, x)),
    "log": (jnp.log, torch.log, np.log, mpmath.log),
    "log1p": (jnp.log1p, torch.log1p, np.log1p, mpmath.log1p),
    "expm1": (jnp.expm1, torch.expm1, np.expm1, mpmath.expm1),
    "sqrt": (jnp.sqrt, torch.sqrt, np.sqrt, mpmath.sqrt),
    "rsqrt": (lax.rsqrt, torch.rsqrt, lambda x: 1 / np.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
    "cbrt": (jnp.cbrt, None, np.cbrt, lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x))),
    "tanh": (jnp.tanh, torch.tanh, np.tanh, mpmath.tanh),
    "logistic": (lax.logistic, torch.sigmoid, special.expit, lambda x: 1 / (1 + mpmath.exp(-x))),
    "erf": (lax.erf, torch.erf, special.erf, mpmath.erf),
    "erfc": (lax.erfc, torch.erfc, special.erfc, mpmath.erfc),
    "erf_inv": (lax.erf_inv, torch.erfinv, special.erfinv, mpmath.erfinv),
    "sin": (jnp.sin, torch.sin, np.sin, mpmath.sin),
    "cos": (jnp.cos, torch.cos, np.cos, mpmath.cos),
    "tan": (jnp.tan, torch.tan, np.tan, mpmath.tan),
    "asin": (jnp.arcsin, torch.asin, np.arcsin, mpmath.asin),
    "acos": (jnp.arccos, torch.acos, np.arccos, mpmath.acos),
    "atan": (jnp.arctan, torch.atan, np.arctan, mpmath.atan),
    "sinh": (jnp.sinh, torch.sinh, np.sinh, mpmath.sinh),
    "cosh": (jnp.cosh, torch.cosh, np.cosh, mpmath.cosh),
    "asinh": (jnp.arcsinh, torch.asinh, np.arcsinh, mpmath.asinh),
    "acosh": (jnp.arccosh, torch.acosh, np.arccosh, mpmath.acosh),
    "atanh": (jnp.arctanh, torch.atanh, np.arctanh, mpmath.atanh),
    "lgamma": (lax.lgamma, torch.lgamma, special.gammaln, lambda x: mpmath.re(mpmath.loggamma(x))),
    "digamma": (lax.digamma, torch.digamma, special.digamma, mpmath.digamma),
}
# Known for positive arguments only: between their poles below zero the libraries lose all digits.
_POSITIVE = ("lgamma", "digamma")


def _single(name: str) -> Iterator[Array]:
    """Float32 arguments, in pieces of some millions."""
    yield np.arange(0, 2**32, _STRIDE, dtype=np.uint64).astype(np.uint32).view(np.float32)
    for centre in (0.5, 1.0, 2.0, 1e-4, 0.022, 0.625, 9.0, 88.0, 1.5707964, 3.1415927, 0.4375, 20.0):
        bits = int(np.float32(centre).view(np.uint32))
        near = np.arange(bits - 600_000, bits + 600_000, 3, dtype=np.uint32).view(np.float32)
        yield np.concatenate([near, -near])


def _double(name: str, count: int = 3000) -> Array:
    rng = np.random.default_rng(7)
    sizes = 2.0 ** rng.uniform(-60, 12, count)
    near = np.concatenate([centre + rng.uniform(-0.2, 0.2, count // 6) for centre in (0.5, 1.0, 2.0, 3.14, 9.0)])
    x = np.concatenate([sizes, -sizes, near, -near, rng.uniform(0, 1, count), rng.uniform(-700, 700, count)])
    # Large arguments of the waves, and of what grows slowly.
    return np.concatenate([x, 2.0 ** rng.uniform(12, 300, 300)]) if name not in _POSITIVE else np.abs(x)


def _size(name: str, x: Array, exact: Array) -> Array:
    """What an error is measured in, apart from the unit roundoff: as the rules have it."""
    with jax.enable_x64(True):
        return np.asarray(size(name, x, exact))


def _worst(name: str, x: Array, exact: Array, seen: Array, info: Any) -> tuple[float, float]:
    """The largest error in unit roundoffs, and where, among arguments and results of normal size."""
    scale = _size(name, x, exact)
    usable = (np.abs(x) >= info.tiny) & (np.abs(exact) > 4 * info.tiny) & (scale < info.max / 4) & np.isfinite(exact)
    if name in _POSITIVE:
        usable &= x > 0
    if not usable.any():
        return 0.0, np.nan
    off = np.abs(seen.astype(np.float64) - exact)[usable] / scale[usable] / (info.eps / 2)
    off = np.where(np.isnan(off), np.inf, off)
    return float(off.max()), float(x[usable][off.argmax()])


def _run_xla(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    compiled = jax.jit(function)
    return lambda x: np.asarray(compiled(x))


def _run_torch(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    return lambda x: function(torch.from_numpy(x)).numpy()


def measure_single(name: str) -> dict[str, tuple[float, float]]:
    """The worst of each library in float32."""
    xla, other, reference, _ = _NAMES[name]
    worst = {"xla": (0.0, np.nan), "torch": (0.0, np.nan)}
    for x in _single(name):
        with np.errstate(all="ignore"):
            exact = reference(x.astype(np.float64))
            sides = {"xla": _run_xla(xla)} | ({"torch": _run_torch(other)} if other else {})
            for side, run in sides.items():
                worst[side] = max(worst[side], _worst(name, x.astype(np.float64), exact, run(x), np.finfo(np.float32)))
    return worst


def measure_double(name: str) -> dict[str, tuple[float, float]]:
    """The worst of each library in float64, the difference from the exact value taken in mpmath."""
    xla, other, reference, true = _NAMES[name]
    x = _double(name)
    with np.errstate(all="ignore"), jax.enable_x64(True):
        x = x[np.isfinite(reference(x)) & (np.abs(reference(x)) > 1e-290)]
        sides = {"xla": _run_xla(xla)(x)} | ({"torch": _run_torch(other)(x)} if other else {})
    mpmath.mp.prec = 400
    exact = [true(mpmath.mpf(float(v))) for v in x]
    rounded = np.array([float(v) for v in exact])
    worst = {}
    for side, seen in sides.items():
        off = np.array([float(abs(mpmath.mpf(float(s)) - e)) for s, e in zip(seen, exact, strict=True)])
        share = off / _size(name, x, rounded) * 2.0**53
        share = np.where(np.isnan(share), np.inf, share)
        worst[side] = (float(share.max()), float(x[share.argmax()]))
    return worst


def measure_two(precision: str) -> dict[str, tuple[float, float]]:
    """pow and atan2, at pairs of every size."""
    rng = np.random.default_rng(3)
    count, worst = (2_000_000, {}) if precision == "float32" else (4_000, {})
    dtype = np.dtype(precision)
    mpmath.mp.prec = 400
    for name in ("pow", "atan2"):
        first = (2.0 ** rng.uniform(-100, 100, count)).astype(dtype)
        near = (1 + rng.uniform(-0.3, 0.3, count)).astype(dtype)
        first = np.where(rng.random(count) < 0.5, first, near)
        second = (rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-20, 9, count)).astype(dtype)
        if name == "atan2":
            first = first * rng.choice([-1, 1], count).astype(dtype)
            second = (second * np.abs(first)).astype(dtype)
        with np.errstate(all="ignore"), jax.enable_x64(True):
            xla = jax.jit(jnp.power if name == "pow" else jnp.arctan2)
            other = torch.pow if name == "pow" else torch.atan2
            sides = {
                "xla": np.asarray(xla(first, second)),
                "torch": other(torch.from_numpy(first), torch.from_numpy(second)).numpy(),
            }
            wide = (first.astype(np.float64), second.astype(np.float64))
            exact = (np.power if name == "pow" else np.arctan2)(*wide)
        info = np.finfo(dtype)
        usable = (np.abs(exact) > 4 * info.tiny) & (np.abs(exact) < info.max / 4)
        usable &= (np.abs(first) >= info.tiny) & (np.abs(second) >= info.tiny)
        for side, seen in sides.items():
            if precision == "float32":
                off = np.abs(seen - exact)[usable] / np.abs(exact[usable]) / (info.eps / 2)
            else:
                true = mpmath.power if name == "pow" else mpmath.atan2
                values = [true(mpmath.mpf(a), mpmath.mpf(b)) for a, b in zip(*(w[usable] for w in wide), strict=True)]
                pairs = zip(seen[usable], values, strict=True)
                off = np.array([float(abs((mpmath.mpf(float(s)) - v) / v)) for s, v in pairs]) * 2.0**53
            worst[f"{name} {side}"] = (float(off.max()), float(first[usable][off.argmax()]))
    return worst


def main() -> None:
    """Prints the table, a line a function."""
    names = sys.argv[1:] or list(_NAMES)
    for name in names:
        for precision, measured in (("float32", measure_single(name)), ("float64", measure_double(name))):
            print(
                name, precision, *(f"{side} {off:.3g} at {x:.9g};" for side, (off, x) in measured.items()), flush=True
            )
    if not sys.argv[1:]:
        for precision in ("float32", "float64"):
            for label, (off, x) in measure_two(precision).items():
                print(precision, label, f"{off:.3g} at {x:.9g}", flush=True)


if __name__ == "__main__":
    main()
