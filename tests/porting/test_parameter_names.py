"""Matching PyTorch's parameter names with a port's: found, given, and what is ambiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity import PortError
from parity.porting.parameter_names import resolve

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


SQUARE = np.arange(9.0).reshape(3, 3)
HOSTILE = np.array([[np.nan, 1.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("name", "values", "leaf", "own", "place"),
    [
        ("rnn.weight_hh_l0", SQUARE, "weight_hh_l0", SQUARE, "weight_hh_l0"),
        ("rnn.weight_hh_l0", SQUARE, "weight_hh_l0", SQUARE.T, "weight_hh_l0.T"),
        ("rnn.weight_hh_l0", SQUARE, "weight_hh_l0", 2 * SQUARE, "weight_hh_l0"),
        ("rnn.weight_hh_l0", SQUARE, "hidden", SQUARE, "hidden"),
        ("rnn.weight_hh_l0", SQUARE, "hidden", SQUARE.T, "hidden.T"),
        ("rnn.weight_hh_l0", HOSTILE, "hidden", HOSTILE.T, "hidden.T"),
        ("w", SQUARE, "w", SQUARE, "w"),
        ("w", np.zeros((3, 3)), "w", np.zeros((3, 3)), "w"),
        ("kernel", SQUARE, "kernel", SQUARE.T, "kernel.T"),
        ("weight", SQUARE, "weight", SQUARE.T, "weight.T"),
        ("weight", SQUARE, "kernel", SQUARE, "kernel.T"),
        ("conv.kernels", np.arange(16.0).reshape(2, 2, 2, 2), "k", np.arange(16.0).reshape(2, 2, 2, 2), "k"),
    ],
)
def test_a_square_one_is_told_by_the_recordings_own_names_and_values(
    name: str, values: Any, leaf: str, own: Any, place: str
) -> None:
    """The last but one: Flax's ``kernel`` is turned whatever it holds, so that a copy that was not turned is found."""
    places = resolve({name: values.shape}, {leaf: own}, None, {name: values}).places
    assert str(places[name]) == place


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.eye(3)])
def test_a_square_one_whose_values_tell_nothing_is_asked_for(values: Any) -> None:
    with pytest.raises(PortError, match="'a' is square, so 'b' could be it or its transpose"):
        resolve({"a": (3, 3)}, {"b": values}, None, {"a": values})


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


@pytest.mark.parametrize(
    ("shape", "leaf", "text"),
    [
        ((5, 4, 3, 2), (3, 2, 4, 5), "m.T"),
        ((5, 1, 3), (3, 1, 5), "m.T"),
        ((6, 4), (4, 2, 3), "m.T"),
        ((6,), (2, 3), "m"),
        ((4, 6), (2, 3, 4), "m.T"),
        ((5, 4, 3), (5, 4, 3), "m"),
    ],
)
def test_layouts_there_and_back(shape: tuple[int, ...], leaf: tuple[int, ...], text: str) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    names = resolve({"weight": shape}, _tree(m=leaf), {"weight": text})
    kept = names.to_port({"weight": values})["m"]
    assert kept.shape == leaf
    turned = np.moveaxis(values, (0, 1), (-1, -2)) if text.endswith(".T") else values
    np.testing.assert_array_equal(kept, turned.reshape(leaf))
    np.testing.assert_array_equal(names.from_port({"m": kept})["weight"], values)


def test_a_fused_parameter_is_kept_in_parts() -> None:
    shapes = {"in_proj_weight": (12, 4), "in_proj_bias": (12,)}
    params = {part: _tree(kernel=(4, 2, 2), bias=(2, 2)) for part in ("key", "query", "value")}
    given_names = {
        "in_proj_weight": [f"{part}.kernel.T" for part in ("query", "key", "value")],
        "in_proj_bias": [f"{part}.bias" for part in ("query", "key", "value")],
    }
    names = resolve(shapes, params, given_names)
    random = np.random.default_rng(0)
    values = {name: random.normal(size=shape) for name, shape in shapes.items()}
    kept = names.to_port(values)
    x = random.normal(size=4)
    mapped = x @ kept["key"]["kernel"].reshape(4, 4) + kept["key"]["bias"].reshape(4)
    np.testing.assert_allclose(mapped, (values["in_proj_weight"] @ x + values["in_proj_bias"])[4:8], rtol=1e-12)
    back = names.from_port(kept)
    assert all((back[name] == values[name]).all() for name in values)
    with pytest.raises(
        PortError, match=r"'in_proj_bias' \(12,\) does not fit 'query.bias' \(2, 2\), 'key.bias' \(2, 2"
    ):
        resolve(shapes, params, given_names | {"in_proj_bias": ["query.bias", "key.bias"]})


@st.composite
def _models(draw: st.DrawFn) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Layers by PyTorch's names, the port's tree with some of them renamed, and what is true of them."""
    shapes: dict[str, Any] = {}
    tree: dict[str, Any] = {}
    truth: dict[str, str] = {}
    keep = draw(st.sampled_from(["same", "beginning", "counted", "fresh"]))
    count = draw(st.integers(1, 5))
    skipped = 0
    for index in range(count):
        skipped += draw(st.integers(0, 1))
        # A Sequential counts its activations too, which a port's list may leave out.
        owner = f"net.{index + skipped}"
        other = {"same": owner, "beginning": f"layers_{index + skipped}", "counted": f"layers.{index}"}.get(
            keep, "abcdef"[index]
        )
        width = st.integers(2, 3)
        kind = draw(st.sampled_from(["linear", "conv", "norm"]))
        rank = {"linear": 2, "conv": 4, "norm": 1}[kind]
        shape = tuple(draw(width) for _ in range(rank))
        turned = (*shape[2:], shape[1], shape[0]) if rank > 1 else shape
        role = draw(st.sampled_from(["kernel", "w"] if rank > 1 else ["scale", "gamma"]))
        shapes[f"{owner}.weight"] = shape
        tree[f"{other}.{role}"] = np.zeros(turned)
        truth[f"{owner}.weight"] = f"{other}.{role}.T" if rank > 1 else f"{other}.{role}"
        if draw(st.booleans()):
            shapes[f"{owner}.bias"] = shape[:1]
            tree[f"{other}.bias"] = np.zeros(shape[:1])
            truth[f"{owner}.bias"] = f"{other}.bias"
    return shapes, dict(draw(st.permutations(list(tree.items())))), truth


@given(_models())
def test_models_are_matched_rightly_or_refused(model: tuple[dict[str, Any], Any, dict[str, str]]) -> None:
    shapes, tree, truth = model
    try:
        places = resolve(shapes, tree, None).places
    except PortError:
        return
    assert {name: str(place) for name, place in places.items()} == truth


def test_equal_layers_of_other_names_are_refused_with_a_proposal() -> None:
    shapes = {"fc1.weight": (4, 4), "fc2.weight": (4, 4), "fc1.bias": (4,), "fc2.bias": (4,)}
    params = {f"Dense_{n}": _tree(kernel=(4, 4), bias=(4,)) for n in range(2)}
    with pytest.raises(PortError) as error:
        resolve(shapes, params, None)
    assert "'fc1.weight' could be 'Dense_0.kernel' or 'Dense_1.kernel'" in str(error.value)
    assert "names={'fc1.weight': 'Dense_0.kernel.T', 'fc2.weight': 'Dense_1.kernel.T', 'fc1.bias'" in str(error.value)


def test_the_copy_of_a_tied_weight_is_told_to_be_taken_out() -> None:
    shapes = {"embed.weight": (7, 4), "middle.weight": (4, 4)}
    own = {"embed.weight": np.zeros((7, 4)), "middle.weight": np.zeros((4, 4)), "head.weight": np.zeros((7, 4))}
    with pytest.raises(PortError, match=r"if 'head\.weight' is 'embed\.weight' once more") as error:
        resolve(shapes, own, None)
    assert "names=" not in str(error.value)
    # A parameter that is kept in parts is no copy.
    shapes = {"in_proj_weight": (12, 4), "out_proj.weight": (4, 4)}
    parts = {"q": np.zeros((4, 4)), "k": np.zeros((4, 4)), "v": np.zeros((4, 4)), "out_proj.weight": np.zeros((4, 4))}
    with pytest.raises(PortError, match="Write names="):
        resolve(shapes, parts, None)
