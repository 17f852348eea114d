"""NIST's certified coefficients, reached by training: a million million epochs of gradient descent in closed form."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxreg
from tests.helpers.nist import PROBLEMS, Problem

EPOCHS = 10**12
# Measured: Norris 14.4, Pontius 14.4, NoInt1 14.8, NoInt2 15, Longley 15, Wampler1 14.0, Wampler2 14.2, Wampler3 13.9,
# Wampler4 12.8, Wampler5 10.8. Filip 0: its standardised columns have a condition number of 4e9, and so its flattest
# direction a curvature of 1e-18, along which a million million epochs do not get anywhere.
DIGITS = 9


def trained(problem: Problem) -> Any:
    """Coefficients after so many epochs on standardised columns, put back to the columns as they are."""
    x, y = problem.inputs, problem.targets
    mean = x.mean(0) if problem.constant else np.zeros(x.shape[1])
    spread = np.sqrt(((x - mean) ** 2).mean(0))
    with jax.enable_x64(True):
        model = jaxreg.Linear(x.shape[1], 1, use_bias=problem.constant, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        inputs, targets = (x - mean) / spread, y[:, None]
        result = jaxreg.fit(model, inputs, targets, optimizer=jaxreg.sgd(0.1), epochs=EPOCHS, at=[])
        assert result.plan == "spectral"
        kernel = np.asarray(result.model.kernel[...])[:, 0] / spread
        if not problem.constant:
            return kernel
        return np.concatenate([[float(result.model.bias[0]) - kernel @ mean], kernel])


def digits(found: Any, certified: Any) -> float:
    """Correct digits of the worst coefficient, at most 15."""
    apart = abs(found - certified) / abs(certified)
    return float(-np.log10(np.maximum(apart, 1e-15)).min())


@pytest.mark.parametrize("name", sorted(PROBLEMS.keys() - {"Filip"}))
def test_certified_coefficients_are_reached(name: str) -> None:
    assert digits(trained(PROBLEMS[name]), PROBLEMS[name].certified) >= DIGITS


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_the_problems_are_nists(name: str) -> None:
    """The certified coefficients solve the normal equations of the data as written here, in rational numbers."""
    problem = PROBLEMS[name]
    ones = np.ones((len(problem.targets), 1))
    columns = np.concatenate([ones, problem.inputs], 1) if problem.constant else problem.inputs
    rows = [[Fraction(repr(float(v))) for v in row] for row in columns]
    if name in ("Filip", "Pontius", "Norris"):  # powers of numbers as they are printed, not of their roundings
        first = 1 if problem.constant else 0
        rows = [[row[first] ** k for k in range(columns.shape[1])] for row in rows]
    targets = [Fraction(repr(float(v))) for v in problem.targets]
    solution = _solved(rows, targets)
    assert digits(np.array([float(v) for v in solution]), problem.certified) > 12


def _solved(rows: list[list[Fraction]], targets: list[Fraction]) -> list[Fraction]:
    count = len(rows[0])
    system = [
        [sum((row[i] * row[j] for row in rows), Fraction(0)) for j in range(count)]
        + [sum((row[i] * y for row, y in zip(rows, targets, strict=True)), Fraction(0))]
        for i in range(count)
    ]
    for i in range(count):
        pivot = next(k for k in range(i, count) if system[k][i])
        system[i], system[pivot] = system[pivot], system[i]
        for k in range(count):
            if k != i:
                factor = system[k][i] / system[i][i]
                system[k] = [a - factor * b for a, b in zip(system[k], system[i], strict=True)]
    return [system[i][count] / system[i][i] for i in range(count)]
