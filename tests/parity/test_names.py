"""Matching PyTorch's parameter names with a port's: found, given, and what is ambiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity import PortError
from parity._names import resolve

LINEAR = {"weight": (2, 3), "bias": (2,)}


def _tree(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: np.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("params", "places"),
    [
        (_tree(kernel=(3, 2), bias=(2,)), {"weight": "kernel.T", "bias": "bias"}),
        (_tree(weight=(2, 3), bias=(2,)), {"weight": "weight", "bias": "bias"}),
        (_tree(w=(3, 2), b=(2,)), {"weight": "w.T", "bias": "b"}),
        (_tree(anything=(3, 2), else_=(2,)), {"weight": "anything.T", "bias": "else_"}),
    ],
)
def test_found_from_names_and_shapes(params: Any, places: dict[str, str]) -> None:
    names = resolve(LINEAR, params, None)
    assert {name: str(place) for name, place in names.places.items()} == places


def test_layers_are_told_apart_by_their_owner() -> None:
    shapes = {"a.weight": (4, 4), "a.bias": (4,), "b.weight": (4, 4), "b.bias": (4,)}
    params = {"a": _tree(kernel=(4, 4), bias=(4,)), "b": _tree(kernel=(4, 4), bias=(4,))}
    places = resolve(shapes, params, None).places
    assert {name: str(place) for name, place in places.items()} == {
        "a.weight": "a.kernel.T", "a.bias": "a.bias", "b.weight": "b.kernel.T", "b.bias": "b.bias"
    }  # fmt: skip


@given(st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_there_and_back(outputs: int, inputs: int, transposed: bool) -> None:
    random = np.random.default_rng(0)
    weights = {"weight": random.normal(size=(outputs, inputs)), "bias": random.normal(size=outputs)}
    shape = (inputs, outputs) if transposed else (outputs, inputs)
    given_names = {"weight": "m.T" if transposed else "m", "bias": "c"}
    names = resolve({k: v.shape for k, v in weights.items()}, _tree(m=shape, c=(outputs,)), given_names)
    params = names.to_port(weights)
    assert params["m"].shape == shape
    back = names.from_port(params)
    assert all((back[name] == weights[name]).all() for name in weights)


@pytest.mark.parametrize(
    ("shapes", "params", "names", "message"),
    [
        (
            {"weight": (3, 3)},
            _tree(matrix=(3, 3)),
            None,
            "'weight' is square, so 'matrix' could be it or its transpose",
        ),
        ({"weight": (2, 3)}, _tree(one=(2, 3), two=(3, 2)), None, "'weight' could be 'one' or 'two'"),
        (LINEAR, _tree(kernel=(3, 2)), None, "'bias' fits no parameter of the port"),
        ({"weight": (2, 3)}, _tree(kernel=(3, 2), bias=(2,)), None, "do not pair up one to one"),
        (
            LINEAR,
            _tree(kernel=(3, 2), bias=(2,)),
            {"weight": "kernel.T"},
            "names leaves out PyTorch's parameter 'bias'",
        ),
        (
            LINEAR,
            _tree(k=(3, 2), b=(2,)),
            {"weight": "kernel.T", "bias": "b"},
            "puts 'weight' at 'kernel.T', which the",
        ),
        (LINEAR, _tree(k=(3, 2), b=(2,)), {"weight": "k", "bias": "b"}, "'weight' (2, 3) does not fit 'k' (3, 2)"),
    ],
)
def test_what_does_not_match_says_what_to_write(shapes: Any, params: Any, names: Any, message: str) -> None:
    with pytest.raises(PortError) as error:
        resolve(shapes, params, names)
    assert message in str(error.value)
    assert "Write names={" in str(error.value)
    assert "PyTorch has weight" in str(error.value)
