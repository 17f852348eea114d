"""Numbers: there and back through JSON, and as people read them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.report.render import numbers

NON_FINITE = ["NaN", "Infinity", "-Infinity"]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text().filter(lambda text: text not in NON_FINITE),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@given(plain)
def test_encoded_values_survive_strict_json_and_decode_to_themselves(value: Any) -> None:
    text = json.dumps(numbers.encode(value), allow_nan=False)
    assert same(numbers.decode(json.loads(text)), value)


@given(plain)
def test_encoding_twice_changes_nothing(value: Any) -> None:
    once = numbers.encode(value)
    assert numbers.encode(once) == once


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), 0.10000000149011612),
        (np.float32("nan"), "NaN"),
        (np.array([1.0, np.inf, -np.inf]), [1.0, "Infinity", "-Infinity"]),
        (np.array([[1, 2]], dtype=np.int32), [[1, 2]]),
        (np.bool_(True), True),
        (np.array(["a"]), ["a"]),
        (np.int64(3), 3),
        (np.array([1.5], dtype=ml_dtypes.bfloat16), [1.5]),
        ((1, 2), [1, 2]),
        ("a\ud800b", "a�b"),
    ],
)
def test_values_from_outside_json_become_plain(value: Any, expected: Any) -> None:
    encoded = numbers.encode(value)
    assert encoded == expected
    assert type(encoded) is type(expected)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {1, 2}}, np.array([object()]), 1j])
def test_what_json_has_no_form_for_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a report"):
        numbers.encode(value)


def test_an_int_beyond_float_reads_as_infinity() -> None:
    assert numbers.number(10**400) == math.inf
    assert numbers.number(-(10**400)) == -math.inf


def parsed(text: str) -> float:
    return float(text.replace(",", ""))


@given(st.floats(-1e308, 1e308))
def test_scientific_keeps_three_digits(value: float) -> None:
    # Half a unit of the third digit, and nothing below the smallest number that three digits can tell apart.
    assert parsed(numbers.scientific(value)) == pytest.approx(value, rel=5.1e-3, abs=5e-324)


@given(st.floats())
def test_every_format_takes_every_number(value: float) -> None:
    encoded = numbers.encode(value)
    shown = [form(encoded) for form in (numbers.scientific, numbers.pretty, numbers.integer, numbers.ulps)]
    shown += [form(encoded) for form in (numbers.percent, numbers.duration, numbers.full)]
    assert all(shown)
    assert len(max(shown, key=len)) <= 25


@given(st.floats())
def test_typeset_numbers_hold_no_raw_exponent_and_no_hyphen(value: float) -> None:
    assert not re.search(r"\de|-", numbers.pretty(numbers.encode(value)))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_full_identifies_a_float32(value: float) -> None:
    assert np.float32(numbers.full(value)) == np.float32(value)


@given(st.integers(-(10**14), 10**14))
def test_integers_keep_every_digit(value: int) -> None:
    assert int(numbers.integer(value).replace(",", "")) == value


@given(st.floats(1.0, 1e300, exclude_min=True))
def test_a_share_above_one_never_reads_as_within(value: float) -> None:
    assert numbers.percent(value) != "100%"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.0013, "1.30 ms"),
        (0.245, "245 ms"),
        (0.99999, "1.00 s"),
        (59.96, "60.0 s"),
        (119.9, "2 min 0 s"),
        (3725, "62 min 5 s"),
        ("NaN", "NaN s"),
    ],
)
def test_durations_use_the_unit_that_fits(seconds: Any, expected: str) -> None:
    assert numbers.duration(seconds) == expected


@given(st.floats(1e-3, 1e12))
def test_bytes_read_back(count: float) -> None:
    number, unit = numbers.size(count).replace(",", "").split()
    scale = {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1}[unit]
    assert float(number) * scale == pytest.approx(count, rel=0.0051)
    assert float(number) < 1024 or unit == "GiB"


@given(st.floats(1e-6, 1e6))
def test_a_share_above_its_bound_reads_so(share: float) -> None:
    above = numbers.percent(share).startswith(">") or float(numbers.percent(share).strip("<>% ").replace(",", "")) > 100
    assert above == (share > 1)
