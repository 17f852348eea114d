"""Loops, branches, comparisons that rounding may flip, and what there is no rule for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from parity import UnsupportedError
from parity.rounding import Format, bound
from tests.rounding.soundness import beyond

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def hold(function: Any, *inputs: Any) -> Any:
    """The bounds, after the float32 results were held against them."""
    values, bounds = bound(function)(*inputs)
    for result, value, most in zip(*map(jax.tree.leaves, (jax.jit(function)(*inputs), values, bounds)), strict=True):
        assert not beyond(result, value, most)
    return jax.tree.map(np.asarray, bounds)


def limit(function: Any, *inputs: Any, **options: Any) -> Any:
    """The bounds as NumPy arrays."""
    return jax.tree.map(np.asarray, bound(function, **options)(*inputs)[1])


def test_scan_is_the_same_as_its_unrolled_loop() -> None:
    def looped(x: Any) -> Any:
        return lax.scan(lambda c, row: (jnp.tanh(c) * row, c.sum()), x[0], x)

    def unrolled(x: Any) -> Any:
        c, kept = x[0], []
        for row in x:
            c, total = jnp.tanh(c) * row, c.sum()
            kept.append(total)
        return c, jnp.stack(kept)

    for ours, theirs in zip(jax.tree.leaves(hold(looped, X)), jax.tree.leaves(hold(unrolled, X)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_gradients_of_scans_are_kept() -> None:
    hold(jax.grad(lambda x: (lax.scan(lambda c, row: (jnp.sin(c) + row, c), x[0], x)[1] ** 2).sum()), X)


def test_an_exact_counter_stays_exact_in_a_loop() -> None:
    def count(x: Any) -> Any:
        return lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, jnp.cos(s[1])), (0, x))

    turns, cosines = hold(count, X)
    assert turns == 0
    assert np.all(np.isfinite(cosines) & (np.asarray(cosines) > 0))


def test_a_loop_that_rounding_could_end_at_another_turn_is_flagged() -> None:
    def halve(x: Any) -> Any:
        return lax.while_loop(lambda s: s[1] > 1.0, lambda s: (s[0] + 1, s[1] / 3.0 * 2.7), (0, x))

    assert np.all(np.asarray(bound(halve)(np.float32(2.0))[1]) < np.inf)
    near = np.float32(1 / 0.9)
    assert np.all(np.isinf(np.asarray(bound(halve)(near)[1])))


def test_a_branch_that_rounding_could_choose_covers_both() -> None:
    def choose(x: Any) -> Any:
        return lax.cond(x * 0.1 > 0.1, lambda: x * 5, lambda: x * 7)

    sure, unsure = (np.asarray(bound(choose)(np.float32(v))[1]) for v in (2.0, 1.0))
    assert 0 < sure < 1e-5
    assert 2 <= unsure < 2.001


def test_a_choice_that_rounding_could_flip_covers_both_element_by_element() -> None:
    limits = np.asarray(bound(lambda x: jnp.where(x * 0.1 > 0.1, x, -x))(np.array([1.0, 3.0], np.float32))[1])
    assert 2 <= limits[0] < 2.001
    assert limits[1] < 1e-6


def test_flags_of_integers_and_bools_in_the_result() -> None:
    def decide(x: Any) -> Any:
        scaled = x * 0.1
        return scaled > 0.1, (scaled * 100).astype(jnp.int32), jnp.argmax(scaled), jnp.sign(x)

    more, whole, place, sign = limit(decide, np.array([1.0, 3.03, 2.0], np.float32))
    assert more.tolist() == [np.inf, 0, 0]
    assert whole.tolist() == [np.inf, 0, np.inf]
    assert place == 0
    assert np.all(sign == 0)


def test_places_that_are_not_certain_give_no_bound() -> None:
    assert np.isinf(limit(lambda x: x[jnp.argmax(jnp.stack([x[0] * 0.1, x[1] * 0.1])) + 1], np.ones(4, np.float32)))
    assert limit(lambda x: x[jnp.argmax(x)], np.arange(4, dtype=np.float32)) == 0


def test_a_division_by_what_may_be_zero_has_no_bound() -> None:
    assert np.isinf(bound(lambda x: 1 / (x * 0.1 - 0.1))(np.float32(1.0))[1])
    assert np.isinf(bound(lambda x: jnp.log(x * 0.1 - 0.1))(np.float32(1.0))[1])


def test_what_may_overflow_has_no_bound() -> None:
    assert np.isinf(bound(lambda x: x * x)(np.float32(2e19))[1])
    assert np.isfinite(bound(lambda x: x * x)(np.float32(1.8e19))[1])
    assert np.isfinite(bound(lambda x: x * x, precision="float64")(np.float64(2e19))[1])
    # Another order of the sum passes the largest number on its way.
    assert np.isinf(bound(jnp.sum)(np.array([2e38, -2e38, 2e38], np.float32))[1])


def test_the_root_of_what_cannot_be_negative_has_a_bound() -> None:
    def length(x: Any, off: Any) -> Any:
        return jnp.sqrt((x + off) ** 2 * 0.9)

    limits = bound(length, input_bounds=(None, 1e-3))(X, np.zeros_like(X))[1]
    assert np.all(np.isfinite(limits))


def test_a_primitive_without_a_rule_is_named() -> None:
    with pytest.raises(UnsupportedError, match="no rounding bound is known for the primitive 'nextafter'"):
        bound(lambda x: jnp.nextafter(x, x + 1))(X)


def test_unread_results_need_no_rule() -> None:
    assert bound(lambda x: (jnp.nextafter(x, x + 1), x * 2)[1])(X)[1].shape == X.shape


def test_one_compiled_program_serves_every_format() -> None:
    with jax.enable_x64(True):
        compiled: Any = jax.jit(lambda form, x: bound(lambda x: jnp.exp(0.1 * x).sum(), precision=form)(x))
        found = [
            float(compiled(jax.tree.map(jnp.float64, Format.of(name)), X)[1])
            for name in ("float64", "float32", "float16", "bfloat16")
        ]
        assert found == sorted(found)
        assert compiled._cache_size() == 1
    for name, most in zip(("float64", "float32"), found[:2], strict=True):
        np.testing.assert_allclose(bound(lambda x: jnp.exp(0.1 * x).sum(), precision=name)(X)[1], most, rtol=1e-6)


def test_vmap_is_the_bound_of_each() -> None:
    one = bound(lambda row: jnp.sin(row).sum() ** 2)
    np.testing.assert_allclose(jax.vmap(one)(X)[1], [one(row)[1] for row in X], rtol=1e-12)


def test_narrowing_by_the_program_itself_counts_unless_told_otherwise() -> None:
    def narrowed(x: Any) -> Any:
        return x.astype(jnp.bfloat16).astype(jnp.float32) + 0.0

    size = np.abs(X)
    hold(narrowed, X)
    assert np.all(np.asarray(bound(narrowed)(X)[1]) > size * 2.0**-9)
    assert np.all(np.asarray(bound(narrowed, narrow=False)(X)[1]) < size * 2.0**-20)


def test_literals_that_the_format_cannot_hold_carry_what_they_lose() -> None:
    off = abs(np.float64(np.float32(0.1)) - 0.1)
    assert off <= limit(lambda x: x * 0.1, np.float32(1.0)) < off + 6.1e-9
    assert limit(lambda x: x * 0.25, np.float32(1.0)) == 0


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="precision must be one of 'float64', 'float32', 'bfloat16', 'float16'"):
        bound(jnp.sin, precision="float8")
    with pytest.raises(ValueError, match="products must be None, 'tensorfloat32' or 'bfloat16', got 'tf32'"):
        bound(jnp.sin, products="tf32")
    with pytest.raises(ValueError, match="input_bounds must be a tuple like the 1 arguments"):
        bound(jnp.sin, input_bounds=(None, 1.0))(X)


def test_a_power_whose_whole_exponent_may_be_another_is_open() -> None:
    def power(x: Any, y: Any) -> Any:
        steps = (x > y).astype(np.int32) + 1
        return 0.9 ** (steps + 2)

    one, above = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    assert np.isfinite(limit(power, one, np.float32(2)))
    # The two differ by less than rounding may have moved them: three or four is not known.
    near = limit(power, above, one, input_bounds=(np.asarray(1e-6), None))
    assert near == np.inf


def test_whole_numbers_of_the_program_stand_beside_those_that_may_be_others() -> None:
    following = limit(lambda count: count + 1, np.asarray(3), input_bounds=(np.asarray(np.inf),))
    assert following == np.inf
