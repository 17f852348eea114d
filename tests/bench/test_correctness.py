"""The benchmark's judge: honest float32 loops hold, wrong ones do not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.bench import correctness, workloads
from parity.bench.workloads import Data, Workload

Array = np.ndarray[Any, Any]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Workload, Data]:
    """A workload of any size and kind, with a learning rate on either side of where it diverges."""
    kind = draw(st.sampled_from(["one", "batch", "settings", "groups"]))
    workload = Workload(
        kind,
        "",
        draw(st.integers(2, 60)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 40)),
        draw(st.floats(0.001, 0.5)),
        batch=draw(st.integers(1, 20)) if kind == "batch" else 0,
        settings=draw(st.integers(2, 4)) if kind == "settings" else 0,
        groups=draw(st.integers(2, 4)) if kind == "groups" else 0,
    )
    data = workloads.data(workload)
    scale = np.float32(10.0 ** draw(st.floats(-2, 1)))
    return workload, dataclasses.replace(data, x=data.x * scale, y=data.y * np.float32(10.0 ** draw(st.floats(-3, 3))))


def loop(workload: Workload, data: Data, dtype: Any = np.float32) -> Array:
    """Gradient descent as anybody would write it, all trainings one after another."""
    found = []
    for number in range(max(workload.groups, 1)):
        x, y = (data.x[number], data.y[number]) if workload.groups else (data.x, data.y)
        x, y = x.astype(dtype), y[:, 0].astype(dtype)
        for rate in workload.rates.astype(np.float32).astype(dtype):
            w, b = data.weight[0].astype(dtype), data.bias[0].astype(dtype)
            size = workload.batch or len(x)
            for first in [*range(0, len(x), size)] * workload.epochs:
                some, other = x[first : first + size], y[first : first + size]
                residual = some @ w + b - other
                w = w - rate * (dtype(2) / dtype(len(some)) * (some.T @ residual))
                b = b - rate * (dtype(2) / dtype(len(some)) * residual.sum())
            found.append(np.append(w, b))
    return np.array(found)


@given(cases())
@settings(max_examples=150)
def test_an_honest_loop_holds(case: tuple[Workload, Data]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected, found = correctness.expected(*case), loop(*case)
        reach = np.abs(expected.coefficients).max() + expected.bound.max()
    if np.isfinite(reach) and reach < 1e30:
        assert correctness.apart(found, expected) <= 1


@given(cases())
def test_float64_is_the_loop_in_float64(case: tuple[Workload, Data]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected, found = correctness.expected(*case), loop(*case, np.float64)
    if np.abs(expected.bound).max() < 1e30:
        # What is float32's bound is 2**29 times float64's, and the cross-products round a few times more.
        assert correctness.apart(found, expected) <= 2**-25


@pytest.mark.parametrize("workload", workloads.WORKLOADS, ids=lambda workload: workload.name)
def test_a_wrong_training_does_not_hold(workload: Workload) -> None:
    small = dataclasses.replace(workload.scaled(0.001), epochs=2)
    small = dataclasses.replace(small, rows=min(small.rows, 2000))
    data, expected = workloads.data(small), None
    expected = correctness.expected(small, data)
    assert correctness.apart(loop(small, data), expected) <= 1
    for wrong in (
        dataclasses.replace(small, learning_rate=small.learning_rate * 1.01),
        dataclasses.replace(small, epochs=3),
    ):
        assert correctness.apart(loop(wrong, data), expected) > 1
    assert correctness.apart(np.full_like(expected.coefficients, np.nan), expected) == np.inf
