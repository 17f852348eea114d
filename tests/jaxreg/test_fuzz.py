"""Arguments drawn at random: the answer is that of a plain loop in float64, or one error of our own.

``HYPOTHESIS_PROFILE=thorough pytest --thorough tests/jaxreg/test_fuzz.py`` draws twenty times as many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxreg
from tests.jaxreg.plans.test_plans import OPTIONS, coefficients, follow

pytestmark = pytest.mark.thorough

Array = np.ndarray[Any, Any]


def _strided(array: Array) -> Array:
    """Every other number of an array twice as large, backwards."""
    return np.repeat(np.repeat(array, 2, 0), 2, 1)[::-2, ::-2][::-1, ::-1]


def _frozen(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


# What holds numbers: each gives an array's numbers back when it is asked for them.
HOLDERS: dict[str, Callable[[Array], Any]] = {
    "array": lambda a: a,
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "Fortran's order": np.asfortranarray,
    "strided": _strided,
    "read only": _frozen,
    "objects": lambda a: a.astype(object),
    "long doubles": lambda a: a.astype(np.longdouble),
    "masked nowhere": np.ma.masked_array,
    "frame": pd.DataFrame,
    "nullable frame": lambda a: pd.DataFrame(a).convert_dtypes(),
    "frame of one name": lambda a: pd.DataFrame(a, columns=["a"] * a.shape[1]),
    "tensor": lambda a: torch.tensor(a.copy()),
    "trained tensor": lambda a: torch.tensor(a.copy(), dtype=torch.float64, requires_grad=True),
    "JAX array": jnp.asarray,
}
# What holds none, or not all of them.
STRANGERS: dict[str, Callable[[Array], Any]] = {
    "none": lambda a: None,
    "text": lambda a: a.astype(str),
    "complex": lambda a: a + 1j,
    "dates": lambda a: np.full(a.shape, np.datetime64("2026-01-01")),
    "spans of time": lambda a: [[datetime.timedelta(1)] * a.shape[1]] * a.shape[0],
    "masked": lambda a: np.ma.masked_array(a, np.eye(*a.shape) > 0),
    "missing": lambda a: [[None] * a.shape[1]] * a.shape[0],
    "sparse": lambda a: scipy.sparse.csr_array(a.astype(float)),
    "ragged": lambda a: [[1.0], *a.tolist(), [1.0, 2.0, 3.0, 4.0]],
    "no rows": lambda a: a[:0],
    "fewer rows": lambda a: np.concatenate([a, a]),
    "a number": lambda a: 3.0,
    "a function": lambda a: lambda: a,
    "keys": lambda a: jax.random.split(jax.random.key(0), a.shape),
    "a frame of text": lambda a: pd.DataFrame({"a": ["x"] * len(a)}),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A training that somebody might ask for."""

    shape: tuple[int, int, int]
    bias: bool
    power: int
    special: float | None
    dtype: str
    holders: tuple[str, str]
    options: dict[str, Any]
    share: float
    epochs: int
    at: tuple[int, ...] | None
    weights: str
    plan: str
    seed: int

    def data(self) -> tuple[Array, Array, Array]:
        random = np.random.default_rng(self.seed)
        rows, inputs, outputs = self.shape
        x, y = random.normal(size=(rows, inputs)), random.normal(size=(rows, outputs))
        if np.issubdtype(self.dtype, np.floating):
            x, y = x * 10.0**self.power, y * 10.0**self.power
            if self.special is not None:
                x.flat[self.seed % x.size] = self.special
        else:
            x, y = 3 * x, 3 * y
        with np.errstate(over="ignore"):
            x, y = x.astype(self.dtype), y.astype(self.dtype)
        weights = {"none": np.ones(rows), "some": random.uniform(0.5, 2, rows), "zeros": np.arange(1, rows + 1) % 2.0}
        return x, y, weights[self.weights]


CASES = st.builds(
    Case,
    shape=st.sampled_from([(1, 1, 1), (2, 3, 1), (7, 1, 2), (7, 3, 1)]),
    bias=st.booleans(),
    power=st.integers(-30, 30),
    special=st.sampled_from([None, None, None, np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(["float64", "float64", "float32", "float16", "int8", "int64", "uint16", "bool"]),
    holders=st.tuples(st.sampled_from(sorted(HOLDERS)), st.sampled_from(sorted(HOLDERS))),
    options=OPTIONS,
    share=st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.1]),
    epochs=st.sampled_from([0, 1, 2, 7]),
    at=st.sampled_from([None, (), (0,), (1, 0, 1)]),
    weights=st.sampled_from(["none", "some", "zeros"]),
    plan=st.sampled_from(["auto", "stepwise", "compressed", "spectral"]),
    seed=st.integers(0, 2**31 - 1),
)


def _expected(case: Case, model: Any, rate: float) -> tuple[Array, Array, float]:
    """Losses before each step, weights at the end, and the largest numbers on the way."""
    x, y, weights = case.data()
    x, y = x.astype(np.float64), y.astype(np.float64)
    design = np.concatenate([x, np.ones((len(x), 1))], 1) if case.bias else x
    scale = 1 / (weights.sum() * y.shape[1])
    with np.errstate(all="ignore"):
        batches = [(design, y, weights[:, None], scale)] * case.epochs
        losses, after = follow(batches, coefficients(model), rate, case.options, np.float64)
    ends = [coefficients(model), *after]
    return losses, ends[-1], float(np.max([np.abs(end).max() for end in ends]))


def _rate(case: Case) -> float:
    x, _, _ = case.data()
    design = np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], 1)
    with np.errstate(all="ignore"):
        size = float((design**2).sum())
    return min(case.share / size, 1e300) if np.isfinite(size) else 0.1


@given(CASES)
def test_any_training_is_that_of_a_plain_loop(case: Case) -> None:
    x, y, weights = case.data()
    if np.isnan(x.astype(np.float64)).any() and case.holders[0] == "nullable frame":
        return  # there it is a missing value
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        outputs = case.shape[2]
        model = jaxreg.Linear(
            case.shape[1], outputs, use_bias=case.bias, param_dtype=jnp.float64, rngs=nnx.Rngs(case.seed % 100)
        )
        rate = _rate(case)
        given_at = None if case.at is None else [step for step in case.at if step < case.epochs]
        result = jaxreg.fit(
            model,
            HOLDERS[case.holders[0]](x),
            HOLDERS[case.holders[1]](y),
            optimizer=jaxreg.sgd(rate, **case.options),
            epochs=case.epochs,
            at=given_at,
            weights=None if case.weights == "none" else weights,
            plan=case.plan,
        )
        found, found_losses = coefficients(result.model), np.asarray(result.losses)
        repr(result)
    losses, end, largest = _expected(case, model, rate)
    losses = losses if given_at is None else losses[np.array(given_at, int)]
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(end))
    np.testing.assert_array_equal(np.isfinite(found_losses), np.isfinite(losses))
    if np.isfinite(largest):
        # float64's roundings of as many sums and steps as there are, on both sides.
        slack = 64 * sum(case.shape) * (case.epochs + 1) * 2.0**-53
        assert abs(found - end).max() <= slack * largest
        most = max(losses.max(initial=0.0), float((y.astype(np.float64) ** 2).max()))
        assert abs(found_losses - losses).max(initial=0.0) <= 2 * slack * most


@given(CASES, st.sampled_from(sorted(STRANGERS)), st.sampled_from(["inputs", "targets", "weights"]))
def test_what_holds_no_numbers_is_refused(case: Case, stranger: str, where: str) -> None:
    x, y, _ = case.data()
    given_: dict[str, Any] = {"inputs": x, "targets": y, "weights": None}
    of = np.ones((len(x), 1)) if where == "weights" else given_[where]
    if where == "weights" and stranger in ("none", "missing"):
        return
    given_[where] = STRANGERS[stranger](of)
    model = jaxreg.Linear(case.shape[1], case.shape[2], use_bias=case.bias, rngs=nnx.Rngs(0))
    with pytest.raises(jaxreg.JaxregError) as told:
        jaxreg.fit(
            model,
            given_["inputs"],
            given_["targets"],
            weights=given_["weights"],
            optimizer=jaxreg.sgd(0.1),
            epochs=case.epochs,
            plan=case.plan,
        )
    assert len(str(told.value)) > 20


ANYTHING = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 2**31, 2**53, 2**64, 1.5, np.nan, np.inf, -0.0, 10**400, 1j, "", "auto", b"x", (), []),
        *({}, {"a": 1}, object(), np.float32(0.5), np.int8(-3), np.array([1, 2]), np.array("x"), len, int, Ellipsis),
        *(datetime.date(2026, 1, 1), float, jnp.zeros(()), jnp.ones((2, 2)), jax.random.key(0), [None], ["weights"]),
    ]
)
NAMES = (
    "optimizer",
    "epochs",
    "loss",
    "batch_size",
    "shuffle",
    "drop_last",
    "weights",
    "record",
    "at",
    "plan",
    "precision",
)


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, min_size=1, max_size=2))
def test_any_argument_is_taken_or_refused(changed: dict[str, Any]) -> None:
    """Where it is taken, there are losses; nothing of another library's comes out."""
    epochs = changed.get("epochs")
    if type(epochs) is int and epochs > 3 and len(changed) > 1:
        return  # step by step, that takes as long as it says
    x = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    options: dict[str, Any] = {"optimizer": jaxreg.sgd(0.1), "epochs": 3, "at": [0], **changed}
    model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("standard"):
        result = None
        with contextlib.suppress(jaxreg.JaxregError):
            result = jaxreg.fit(model, x, 2 * x, **options)
        if result is not None:
            assert np.asarray(result.losses).ndim == 1
            repr(result)
