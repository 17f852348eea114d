"""The door for data: what holds numbers trains as they do, and what does not is refused by its place."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxreg
from jaxreg._arrays import as_array

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = X.sum(1, keepdims=True)


class Sparse:
    """What SciPy's sparse matrices look like."""

    nnz, shape = 3, (8, 3)

    def toarray(self) -> Any:
        return X


class Column:
    """What a pandas column looks like: values of any kind, ``None`` where one is missing."""

    def __init__(self, values: Any, name: Any = None) -> None:
        self.held, self.name, self.dtype, self.array, self.index = np.asarray(values), name, None, None, None

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.held if dtype is None else self.held.astype(dtype)

    def astype(self, kind: Any) -> Column:
        return Column(self.held.astype(kind), self.name)

    def notna(self) -> Any:
        return np.array([value is not None for value in self.held.tolist()])

    def where(self, known: Any, other: Any) -> Column:
        return Column(np.where(known, self.held, other), self.name)


class Frame:
    """What a pandas frame looks like."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.held, self.columns, self.dtypes = columns, list(columns), None

    def __getitem__(self, name: str) -> Column:
        return Column(self.held[name], name)

    def __len__(self) -> int:
        return len(next(iter(self.held.values())))


def frame(**changes: Any) -> Frame:
    return Frame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], **changes})


HELD: dict[str, Any] = {
    "big-endian": X.astype(">f4"),
    "objects": X.astype(object),
    "long doubles": X.astype(np.longdouble),
    "an empty mask": np.ma.masked_array(X, mask=np.zeros_like(X, bool)),
    "a list": X.tolist(),
    "a tensor that is trained": torch.tensor(X, requires_grad=True),
    "a frame": frame(),
    "a frame with a column of objects": frame(b=X[:, 1].astype(object)),
    "a JAX array": jnp.asarray(X),
}


@pytest.mark.parametrize("what", HELD)
def test_what_holds_numbers_is_those_numbers(what: str) -> None:
    assert np.array_equal(np.asarray(as_array("inputs", HELD[what]), np.float32), X)


def test_sixteen_bits_are_kept() -> None:
    halves = torch.tensor(X).bfloat16()
    assert np.array_equal(as_array("inputs", halves), halves.float().numpy())
    assert as_array("inputs", X.astype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


@given(st.sampled_from("bhilBHILfdg?"), st.sampled_from("<>"))
def test_every_kind_of_number_in_either_byte_order(kind: str, order: Any) -> None:
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(np.dtype(kind).newbyteorder(order))
    found = as_array("inputs", values)
    assert found.dtype.isnative
    assert found.dtype.itemsize <= 8
    assert np.array_equal(found, [[0, 1], [1, 0], [1, 1]])


def test_arrays_that_are_right_are_not_copied() -> None:
    assert as_array("inputs", X) is X
    held = jnp.asarray(X)
    assert as_array("inputs", held) is held


masked = np.ma.masked_array(X, mask=X > 0.9)
words = X.astype(object)
words[2, 1] = "seven"
REFUSED: dict[str, tuple[Any, str]] = {
    "a mask": (masked, r"inputs is masked at row 7, column 1; fill it or leave the row out"),
    "a word among objects": (words, r"inputs must hold numbers, got 'seven' at row 2, column 1; convert"),
    "strings": (X.astype(str), r"inputs must hold numbers, got '-1.0' at row 0, column 0"),
    "dates": (
        np.zeros((8, 3), "M8[D]"),
        r"inputs must hold numbers, got datetime.date\(1970, 1, 1\) at row 0",
    ),
    "complex numbers": (X.astype(np.complex64), r"inputs must hold real numbers, got complex64; take \.real"),
    "complex numbers of JAX's": (jnp.asarray(X, np.complex64), "inputs must hold real numbers, got complex64"),
    "a sparse matrix": (Sparse(), r"inputs is sparse, got Sparse; write inputs\.toarray\(\)"),
    "rows of two lengths": ([[1.0, 2.0], [3.0]], "inputs must have rows of one length"),
    "a missing value": (
        frame(b=np.array([1.0, None] * 4, object)),
        r"inputs, column 'b' must hold numbers, got a missing value at row 1; fill it",
    ),
    "a column of words": (
        frame(c=np.array(["u"] * 8, object)),
        r"inputs, column 'c' must hold numbers, got 'u' at",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_number_is_told_with_its_place(what: str) -> None:
    value, message = REFUSED[what]
    with pytest.raises(jaxreg.ArgumentError, match=message):
        as_array("inputs", value)


def model() -> jaxreg.Linear:
    return jaxreg.Linear(3, 1, rngs=nnx.Rngs(0))


def fitted(x: Any, y: Any, **more: Any) -> Any:
    return jaxreg.fit(model(), x, y, optimizer=jaxreg.sgd(0.1), epochs=3, **more)


def swept(x: Any, y: Any, **more: Any) -> Any:
    return jaxreg.sweep(model(), x, y, settings={"learning_rate": [0.1]}, epochs=3, **more)


def grouped(x: Any, y: Any, **more: Any) -> Any:
    groups = np.arange(8) % 2
    return jaxreg.fit_groups(model(), x, y, groups=groups, optimizer=jaxreg.sgd(0.1), epochs=3, **more)


def summed(x: Any, y: Any, **more: Any) -> Any:
    return types.SimpleNamespace(losses=np.asarray(jaxreg.SufficientStatistics.of(x, y, **more).root))


ENTRIES = [fitted, swept, grouped, summed]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_has_the_same_door(entry: Callable[..., Any]) -> None:
    expected = np.asarray(entry(X, Y).losses)
    assert np.array_equal(entry(X.astype(">f4"), Y.astype(">f4")).losses, expected)
    with pytest.raises(jaxreg.ArgumentError, match="inputs is masked at row 7"):
        entry(masked, Y)
    with pytest.raises(jaxreg.ArgumentError, match="targets must hold real numbers, got complex64"):
        entry(X, Y.astype(np.complex64))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(8, np.float32), "weights are all 0"),
        (np.array([1, 1, -1, 1, 1, 1, 1, 1], np.float32), r"at least 0, got -1\.0 at row 2"),
        (np.array([1, np.nan, 1, 1, 1, 1, 1, -np.inf], np.float32), "at least 0, got -inf at row 7"),
    ],
)
def test_weights_have_one_rule(entry: Callable[..., Any], weights: Any, message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=message):
        entry(X, Y, weights=weights)
