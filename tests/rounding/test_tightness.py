"""The bound is not only kept but near: what is observed is a share of it that does not vanish."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from parity.rounding import bound


def shares(function: Any, *inputs: Any, **options: Any) -> Any:
    """Observed errors over their bounds."""
    values, bounds = bound(function, **options)(*inputs)
    return np.abs(np.asarray(function(*inputs), np.float64) - np.asarray(values)) / np.asarray(bounds)


@pytest.mark.parametrize("name", ["matmul", "mean"])
def test_reductions_up_to_4096_use_a_share_of_their_bound(name: str) -> None:
    """The median over sizes; the share falls with the size, since the worst order of a sum grows with it."""
    seen = []
    for size in 2 ** np.arange(1, 13):
        rng = np.random.default_rng(int(size))
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, size), (size, 8)))
        function, inputs = (jnp.matmul, (a, b)) if name == "matmul" else (lambda x: jnp.mean(x, 1), (np.abs(a),))
        worst, likely = shares(function, *inputs), shares(function, *inputs, probabilistic=True)
        assert max(worst.max(), likely.max()) <= 1
        assert np.median(likely) > 2 * np.median(worst) or size < 512
        seen.append(np.median(worst))
    assert np.median(seen) > 0.002


def test_the_probabilistic_line_grows_with_the_root() -> None:
    worst = [float(bound(jnp.sum)(jnp.ones(n, jnp.float32))[1]) / n for n in (1000, 100_000)]
    likely = [float(bound(jnp.sum, probabilistic=True)(jnp.ones(n, jnp.float32))[1]) / n for n in (1000, 100_000)]
    assert 99 < worst[1] / worst[0] < 102
    assert 10 < likely[1] / likely[0] < 13
    assert likely[1] < worst[1] / 30


@pytest.mark.parametrize(("products", "bits"), [("tensorfloat32", 11), ("bfloat16", 8)])
def test_rounded_operands_of_products_are_covered_and_told_apart(products: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 64), (64, 32)))

    def rounded(x: Any) -> Any:
        mantissa, exponent = np.frexp(x.astype(np.float64))
        return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)

    values, bounds = bound(jnp.matmul, products=products)(a, b)
    off = np.abs(np.asarray(rounded(a) @ rounded(b), np.float64) - np.asarray(values))
    assert np.all(off <= np.asarray(bounds))
    assert np.mean(off > np.asarray(bound(jnp.matmul)(a, b)[1])) > 0.9
