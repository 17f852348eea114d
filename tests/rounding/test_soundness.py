"""The bound is never broken by random functions; the run over 10,000 is ``python -m tests.rounding.soundness``."""

from __future__ import annotations

import collections

import hypothesis
import jax
import pytest

from tests.rounding.random_functions import BINARY, PROGRAMS, UNARY, Program
from tests.rounding.soundness import check


@hypothesis.given(PROGRAMS)
@hypothesis.settings(max_examples=40)
def test_random_functions_stay_within_their_bound(program: Program) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(program)


@pytest.mark.parametrize("name", sorted({**UNARY, **BINARY}))
@pytest.mark.parametrize("end", ["all", "gradient"])
def test_each_operation_has_a_bound_that_is_kept(name: str, end: str) -> None:
    counts: collections.Counter[str] = collections.Counter()
    # Positive numbers of size one, so that roots and logarithms have something to say.
    steps = (("abs", 0, 0), ("add literal", 0, 0), (name, 0, 1))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(Program(8, 1.0, 5, steps, end), counts)
    # Rounding decides which of two equal numbers comes first, and with it where each one's gradient goes.
    if (name, end) != ("sort", "gradient"):
        assert counts["finite"] > counts["elements"] / 2
