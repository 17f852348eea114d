"""The bound is never broken by random functions; the run over 10,000 is ``python -m tests.rounding.soundness``."""

from __future__ import annotations

import collections
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from parity.rounding import bound
from tests.helpers.random_functions import BINARY, PROGRAMS, UNARY, Program
from tests.rounding.soundness import check


@pytest.mark.thorough
@hypothesis.given(PROGRAMS)
@hypothesis.settings(max_examples=40)
def test_random_functions_stay_within_their_bound(program: Program) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(program)


# What long runs of random functions found: no number in a window of max pooling, or before a bounded function; a scan
# traced with jit disabled, whose derivative leaves out zero times what is no number; infinity with a zero's sign.
FOUND = [
    Program(
        8, 1e-3, 0, (("sinh", 0, 0), ("max pool", 1, 3), ("sqrt", 1, 1), ("sqrt", 0, 1), ("max pool", 0, 3)), "gradient"
    ),
    Program(8, 10.0, 2**32 - 2, (("max pool", 3, 3), ("log1p", 0, 0), ("power", 2, 0), ("max pool", 0, 0)), "gradient"),
    Program(8, 10.0, 4329, (("scatter", 3, 3), *3 * (("gelu tanh", 0, 0),), ("divide", 1, 0), ("atan2", 2, 0)), "all"),
    Program(8, 10.0, 339, (("log", 0, 1), ("running sum", 0, 0)), "gradient"),
    Program(8, 0.1, 1211, (("divide", 0, 1), ("divide", 0, 1), ("sin", 1, 2), ("rsqrt", 0, 1)), "gradient"),
]


@pytest.mark.parametrize("program", FOUND)
def test_what_is_no_number_is_under_no_finite_bound(program: Program) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(program)


@pytest.mark.parametrize("function", [jnp.exp, jnp.exp2, jax.nn.sigmoid])
def test_what_is_below_the_smallest_normal_number_may_be_flushed(function: Any) -> None:
    values, bounds = bound(function)(np.float32(-128.1))
    assert bounds >= abs(values)


@pytest.mark.parametrize("function", [lambda x: 1 / x, lax.rsqrt, lambda x: x**-3, lambda x: jnp.power(x, -1.5)])
def test_a_zero_may_have_either_sign(function: Any) -> None:
    assert np.isinf(bound(function)(np.float32(0))[1])
    assert float(bound(jnp.arctan2)(np.float32(0), np.float32(-1))[1]) > 6


def test_what_overflows_in_float64_is_not_taken_for_infinite() -> None:
    assert np.isinf(bound(lambda x: jnp.log(jnp.exp(x)))(np.float32(792))[1])


@pytest.mark.parametrize(
    "function", [jnp.tanh, jnp.sin, jnp.arctan, lax.rsqrt, lambda x: x.clip(-1, 1), lambda x: x**-2.5]
)
def test_an_infinite_error_stays_infinite(function: Any) -> None:
    bounds = bound(lambda x: function(x), input_bounds=(np.asarray([0.0, np.inf]),))(np.ones(2, np.float32))[1]
    assert np.isfinite(bounds).tolist() == [True, False]


@pytest.mark.parametrize("name", sorted({**UNARY, **BINARY}))
@pytest.mark.parametrize("end", ["all", pytest.param("gradient", marks=pytest.mark.thorough)])
def test_each_operation_has_a_bound_that_is_kept(name: str, end: str) -> None:
    counts: collections.Counter[str] = collections.Counter()
    # Positive numbers of size one, so that roots and logarithms have something to say.
    steps = (("abs", 0, 0), ("add literal", 0, 0), (name, 0, 1))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(Program(8, 1.0, 5, steps, end), counts)
    # Rounding decides which of two equal numbers comes first, and with it where each one's gradient goes.
    if (name, end) != ("sort", "gradient"):
        assert counts["finite"] > counts["elements"] / 2
