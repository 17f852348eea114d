"""The pieces under PyTorch's random numbers: single roundings against exact fractions, shuffles against plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxreg.torch_random import _permutation as permutation
from jaxreg.torch_random._fma import affine32, affine64, fma32
from jaxreg.torch_random._mt19937 import Engine
from jaxreg.torch_random._normal import log32, sincos32


def nearest32(exact: Fraction) -> float:
    """The float32 nearest to an exact value, ties to even, found among its neighbours."""
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return float(min(around, key=lambda near: (abs(Fraction(float(near)) - exact), int(near.view(np.int32)) & 1)))


single = st.floats(-1e9, 1e9, width=32).filter(lambda x: x == 0 or abs(x) > 1e-9)
double = st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-30)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(st.tuples(single, single, single), min_size=1, max_size=20))
def test_float32_products_and_sums_are_rounded_once(values: list[tuple[float, float, float]]) -> None:
    a, b, c = np.array(values, np.float32).T.copy()
    want = [nearest32(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in values]
    assert fma32(a, b, c).tolist() == want
    last = affine32(a, b[-1], c[-1]).tolist()
    assert last == [nearest32(Fraction(x[0]) * Fraction(values[-1][1]) + Fraction(values[-1][2])) for x in values]


@settings(max_examples=300, deadline=None)
@given(values=st.lists(double, min_size=1, max_size=20), scale=double, shift=double)
def test_float64_products_and_sums_are_rounded_once(values: list[float], scale: float, shift: float) -> None:
    got = affine64(np.array(values), scale, shift)
    assert got.tolist() == [float(Fraction(x) * Fraction(scale) + Fraction(shift)) for x in values]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_float64_would_round_half_way_is_not_rounded_twice(sign: int) -> None:
    # The product lies 2^-70 below 2^-24. Beside an odd number near one, float64 rounds the sum to half-way between two
    # float32, and half-way goes to the even one: the wrong one, on both sides.
    a = np.array([1 + 2.0**-23], np.float32)
    b, odd = np.float32(sign * (1 - 2.0**-23) * 2.0**-24), np.float32(1 + 2.0**-23)
    assert np.float32(np.float64(a[0]) * np.float64(b) + np.float64(odd)) != odd
    assert fma32(a, b, odd).tolist() == affine32(a, b, odd).tolist() == [float(odd)]


@pytest.mark.parametrize("sign", [1, -1])
def test_float64_half_way_is_not_rounded_twice(sign: int) -> None:
    # The same with 2^-157 below 2^-53, which takes two float64 to hold.
    scale, odd = sign * (1 - 2.0**-52) * 2.0**-53, 1 + 2.0**-52
    assert affine64(np.array([1 + 2.0**-52]), scale, odd).tolist() == [odd]


@pytest.mark.parametrize("magnitude", [2.0**-1000, 2.0**-500, 1.0, 2.0**500, 2.0**1000])
def test_float64_scalars_of_any_size_are_rounded_once(magnitude: float) -> None:
    x = np.random.default_rng(0).normal(size=200)
    got = affine64(x, 0.3 * magnitude, 0.7 * magnitude)
    assert got.tolist() == [float(Fraction(v) * Fraction(0.3 * magnitude) + Fraction(0.7 * magnitude)) for v in x]


def test_too_large_a_result_is_infinite_without_a_warning() -> None:
    assert affine32(np.array([3], np.float32), np.float32(3e38), np.float32(1)).tolist() == [math.inf]
    assert affine64(np.array([3.0]), 1.5e308, 1.0).tolist() == [math.inf]
    assert affine32(np.array([1e-30], np.float32), np.float32(3e-10), np.float32(0)).tolist() == [
        nearest32(Fraction(3, 10**40))
    ]


def test_the_float32_functions_are_the_ones_they_are_named_after() -> None:
    u = np.arange(1, 2**24, 997, dtype=np.float32) * np.float32(2.0**-24)
    assert np.abs(log32(u) - np.log(u.astype(np.float64))).max() < 1e-6
    angle = np.float32(2 * math.pi) * u
    sine, cosine = sincos32(angle)
    assert np.abs(sine - np.sin(angle.astype(np.float64))).max() < 1e-6
    assert np.abs(cosine - np.cos(angle.astype(np.float64))).max() < 1e-6


def swapped(words: Sequence[int], n: int) -> list[int]:
    order = list(range(n))
    for i, word in enumerate(words):
        j = i + word % (n - i)
        order[i], order[j] = order[j], order[i]
    return order


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.integers(0, 2**32 - 1), max_size=60), chunk=st.integers(1, 70))
def test_swaps_resolved_at_once_are_the_swaps_in_turn(words: list[int], chunk: int) -> None:
    left = iter(words)

    def draw(count: int) -> np.ndarray:
        return np.array([next(left) for _ in range(count)], np.uint64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "_CHUNK", chunk)
        assert permutation.shuffle(draw, len(words) + 1).tolist() == swapped(words, len(words) + 1)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_the_permutation_of_a_huge_size_grows_from_the_inside_out(n: int) -> None:
    words = Engine(2).words64(n).tolist()
    order: list[int] = []
    for i, word in enumerate(words):
        order.append(i)
        z = word % (i + 1)
        order[i], order[z] = order[z], i
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "_CHUNK", 64)
        assert permutation.inside_out(Engine(2).words64, n).tolist() == order
    assert sorted(order) == list(range(n))
