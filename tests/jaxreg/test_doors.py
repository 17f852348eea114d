"""What people really hand over: pandas, trained tensors, PyTorch's losses, labels; as numbers or one clear error."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from flax import nnx

import jaxreg

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = (X @ np.array([[1.0], [2.0], [-1.0]]) + 0.5).astype(np.float32)
FRAME = pd.DataFrame(X, columns=list("abc"))
NAMES = ["p", "q"] * 4


def model() -> Any:
    return jaxreg.Linear(3, 1, rngs=nnx.Rngs(0))


def fitted(x: Any = X, y: Any = Y, **options: Any) -> Any:
    return jaxreg.fit(model(), x, y, **({"optimizer": jaxreg.sgd(0.1), "epochs": 3} | options))


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.astype("Float32"),
        FRAME.astype(object),
        FRAME.assign(a=pd.Categorical(FRAME["a"])),
        FRAME.set_index(pd.Index(list("hgfedcba"))),
    ],
    ids=["frame", "nullable", "objects", "category of numbers", "another index"],
)
def test_a_pandas_frame_trains_as_its_numbers(frame: Any) -> None:
    assert np.array_equal(fitted(frame, pd.DataFrame(Y)).losses, fitted().losses)
    assert np.array_equal(model()(frame), model()(X))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (FRAME.assign(a=pd.Categorical(NAMES)), "inputs, column 'a' must hold numbers, got 'p' at row 0"),
        (FRAME.assign(b=NAMES), "inputs, column 'b' must hold numbers, got 'p' at row 0"),
        (FRAME.assign(c=pd.array([1, None] * 4, "Int64")), "inputs, column 'c' must .* a missing value at row 1"),
        (FRAME.assign(a=pd.Timestamp("2020-01-01")), r"inputs, column 'a' must hold numbers, got .*2020"),
    ],
    ids=["category", "strings", "missing", "dates"],
)
def test_what_is_no_number_in_a_frame_is_told(inputs: Any, words: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=words):
        fitted(inputs)


@pytest.mark.parametrize(
    ("targets", "fix"),
    [
        (pd.Series(Y[:, 0]), r"write targets\.to_frame\(\)$"),
        (Y[:, 0].tolist(), r"write numpy\.reshape\(targets, \(8, 1\)\)$"),
        (torch.tensor(Y[:, 0]), r"write targets\.reshape\(\(8, 1\)\)"),
    ],
    ids=["series", "list", "tensor"],
)
def test_the_advice_on_a_shape_is_for_what_was_given(targets: Any, fix: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=fix):
        fitted(y=targets)


@pytest.mark.parametrize("groups", [pd.Series(NAMES), pd.Categorical(NAMES), NAMES], ids=["series", "category", "list"])
def test_labels_of_groups(groups: Any) -> None:
    result = jaxreg.fit_groups(model(), FRAME, Y, groups=groups, optimizer=jaxreg.sgd(0.1), epochs=2)
    assert result.labels.tolist() == ["p", "q"]
    alone = fitted(X[::2], Y[::2], epochs=2)
    np.testing.assert_allclose(result.losses[0, -1], alone.losses[-1], rtol=2.0**-20)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([*NAMES[:7], None], "missing label at row 7"),
        (pd.Series([*NAMES[:7], pd.NA]), "missing label at row 7"),
        (np.array([0, 1, np.nan, 1, 0, 1, 0, 1]), "missing label at row 2"),
        (np.ma.masked_array(np.arange(8) % 2, np.arange(8) == 3), "missing label at row 3"),
        (np.array([1, "one"] * 4, object), "labels of one kind, which can be sorted, got int and str"),
    ],
    ids=["None", "NA", "NaN", "masked", "two kinds"],
)
def test_labels_that_are_none(groups: Any, words: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.fit_groups(model(), X, Y, groups=groups, optimizer=jaxreg.sgd(0.1), epochs=2)


def test_a_sweeps_settings_and_targets() -> None:
    plain = jaxreg.sweep(
        model(), X, settings={"learning_rate": [0.1, 0.2], "targets": [Y, 2 * Y]}, epochs=3
    )  # fmt: skip
    for rates in (jnp.asarray([0.1, 0.2]), pd.Series([0.1, 0.2]), torch.tensor([0.1, 0.2])):
        targets = [pd.DataFrame(Y), (2 * Y).astype(">f4")]
        found = jaxreg.sweep(model(), FRAME, settings={"learning_rate": rates, "targets": targets}, epochs=3)
        np.testing.assert_allclose(found.losses, plain.losses, rtol=2.0**-18)
    with pytest.raises(jaxreg.ArgumentError, match=r'to_dict\("records"\)'):
        jaxreg.sweep(model(), X, Y, settings=pd.DataFrame({"learning_rate": [0.1]}), epochs=3)


def test_a_sweep_from_the_model_and_from_seeds() -> None:
    def kernel(epochs: int, seeds: Any) -> Any:
        return jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1], "seed": seeds}, epochs=epochs).params

    for seeds in ([None, 7], [7, None]):
        start = kernel(0, seeds)["kernel"]
        drawn = jaxreg.Linear(3, 1, rngs=nnx.Rngs(7)).kernel[...]
        assert np.array_equal(start[seeds.index(None)], model().kernel[...])
        assert np.array_equal(start[seeds.index(7)], drawn)
    with pytest.raises(jaxreg.ArgumentError, match=r"seed must be an integer.*got 1\.5"):
        kernel(0, [1.5])


LOSSES = [jaxreg.mse_loss, jaxreg.l1_loss, jaxreg.smooth_l1_loss, jaxreg.huber_loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_losses_have_the_same_rule(loss: Any) -> None:
    p, t = jnp.asarray([1.0, 4.0]), jnp.asarray([0.0, 2.0])
    with pytest.raises(jaxreg.ArgumentError, match=r"weights must be numbers of at least 0, got -1.0 at row 1"):
        loss(p, t, weights=np.array([1.0, -1.0], np.float32))
    with pytest.raises(jaxreg.ArgumentError, match="weights are all 0"):
        loss(p, t, weights=np.zeros(2, np.float32))
    assert np.isnan(loss(p, t, weights=np.array([1.0, np.nan], np.float32)))
    each = loss(p, t, weights=[1.0, np.nan], reduction="none")
    assert np.array_equal(np.isnan(each), [False, True])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_take_what_fit_takes(loss: Any) -> None:
    p, t, w = np.array([1.0, 4.0], ">f4"), pd.Series([0.0, 2.0], dtype="float32"), torch.tensor([3.0, 1.0])
    expected = loss(jnp.asarray([1.0, 4.0]), jnp.asarray([0.0, 2.0]), weights=jnp.asarray([3.0, 1.0]))
    assert float(loss(p, t, weights=w)) == float(expected)
    with pytest.raises(jaxreg.ArgumentError, match="targets is masked at row 1"):
        loss(p, np.ma.masked_array([0.0, 2.0], [False, True]))
    with pytest.raises(jaxreg.ArgumentError, match="weights must hold real numbers, got complex64"):
        loss(jnp.ones(2), jnp.ones(2), weights=np.ones(2, np.complex64))


def test_nan_weights_spread_through_a_training() -> None:
    weights = np.where(np.arange(8) == 2, np.nan, 1).astype(np.float32)
    for plan in ("stepwise", "compressed", "spectral"):
        result = fitted(weights=weights, plan=plan)
        assert np.isnan(result.losses).all()
        assert np.isnan(result.model.kernel[...]).all()


F = torch.nn.functional
REFUSED_LOSSES: dict[str, tuple[Any, str]] = {
    "a module": (torch.nn.MSELoss(), r"got PyTorch's MSELoss; take jaxreg\.mse_loss$"),
    "a sum": (torch.nn.MSELoss(reduction="sum"), r"functools\.partial\(jaxreg\.mse_loss, reduction='sum'\)$"),
    "a threshold": (torch.nn.HuberLoss(delta=2.0), r"functools\.partial\(jaxreg\.huber_loss, delta=2\.0\)$"),
    "a function": (F.l1_loss, r"got PyTorch's l1_loss; take jaxreg\.l1_loss$"),
    "a part of one": (functools.partial(F.smooth_l1_loss, beta=0.5), r"take jaxreg\.smooth_l1_loss"),
    "one that is not here": (torch.nn.CrossEntropyLoss(), "PyTorch's CrossEntropyLoss; write it with jax.numpy"),
    "the class": (torch.nn.MSELoss, r"PyTorch's MSELoss; take jaxreg\.mse_loss"),
    "inside a function": (lambda p, t: F.mse_loss(p, t), "PyTorch was called with JAX's arrays"),
    "an operation inside": (lambda p, t: torch.mean((p - t) ** 2), "PyTorch was called with JAX's arrays"),
    "a tensor inside": (lambda p, t: torch.as_tensor(p).mean(), "PyTorch was called with JAX's arrays"),
    "of each row": (lambda p, t: (p - t) ** 2, r"loss must give one number, got an array of shape \(8, 1\); take its"),
    "nothing": (lambda p, t: None, "loss must give one number that JAX computed, got NoneType"),
    "a count": (lambda p, t: jnp.sum(p > t), "loss must give a real floating number.*int32"),
    "a name": ("mse", "loss must be a function of predictions and targets such as jaxreg.mse_loss, got 'mse'"),
    "no loss": (None, "loss must be a function .* got None"),
}


@pytest.mark.parametrize("name", REFUSED_LOSSES)
def test_a_loss_that_cannot_be_traced_is_told(name: str) -> None:
    loss, words = REFUSED_LOSSES[name]
    with pytest.raises(jaxreg.ArgumentError, match=words):
        fitted(loss=loss)


def test_every_entry_refuses_pytorchs_losses() -> None:
    loss: Any = torch.nn.MSELoss()
    with pytest.raises(jaxreg.ArgumentError, match="PyTorch's MSELoss"):
        jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1]}, epochs=2, loss=loss)
    with pytest.raises(jaxreg.ArgumentError, match="PyTorch's MSELoss"):
        jaxreg.fit_groups(model(), X, Y, groups=NAMES, epochs=2, loss=loss, optimizer=jaxreg.sgd(0.1))


def test_an_error_of_the_users_own_is_left_alone() -> None:
    with pytest.raises(KeyError, match="mine"):
        fitted(loss=lambda p, t: {"other": p}["mine"])


def test_the_state_dict_has_the_same_door() -> None:
    weight = np.arange(3, dtype=np.float32)[None]
    bias = np.array([4.0], np.float32)
    given: list[Any] = [
        {"weight": weight.astype(">f4"), "bias": bias.astype(">f4")},
        {"weight": torch.nn.Parameter(torch.tensor(weight)), "bias": torch.nn.Parameter(torch.tensor(bias))},
        {"weight": pd.DataFrame(weight), "bias": pd.Series(bias)},
    ]
    for mapping in given:
        loaded = jaxreg.state_dict.load(model(), mapping)
        assert np.array_equal(loaded.kernel[...], weight.T)
        assert np.array_equal(loaded.bias[...], bias)
    half = jaxreg.Linear(3, 1, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    tensors = {"weight": torch.tensor(weight).bfloat16(), "bias": torch.nn.Parameter(torch.tensor(bias).bfloat16())}
    assert jaxreg.state_dict.load(half, tensors).kernel[...].dtype == jnp.bfloat16
    with pytest.raises(jaxreg.ArgumentError, match="'weight' is masked at row 0, column 1"):
        jaxreg.state_dict.load(model(), {"weight": np.ma.masked_array(weight, weight == 1), "bias": bias})
    with pytest.raises(jaxreg.ArgumentError, match="'bias' must hold numbers, got a missing value"):
        jaxreg.state_dict.load(model(), {"weight": weight, "bias": None})


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_a_tensor_without_plain_numbers(tensor: Any) -> None:
    with pytest.raises(jaxreg.ArgumentError, match="inputs is a tensor that has no plain numbers"):
        fitted(tensor)


def test_what_else_was_told_in_jaxs_words_only() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"precision must be one that .* got 'medium'"):
        fitted(precision="medium")


def test_traced_numbers_in_a_list() -> None:
    def last(x: Any) -> Any:
        return fitted([x, *jnp.asarray(X[1:])]).losses[-1]

    assert float(jax.jit(last)(jnp.asarray(X[0]))) == pytest.approx(float(fitted().losses[-1]), rel=1e-5)


def test_an_optimizer_can_be_pickled() -> None:
    for optimizer in (jaxreg.sgd(0.1, momentum=0.9), jaxreg.sgd(jaxreg.lr_scheduler.step_lr(0.1, 3, 0.5))):
        for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
            assert np.array_equal(fitted(optimizer=other).losses, fitted(optimizer=optimizer).losses)


def test_an_optimizer_without_a_hash_is_told() -> None:
    @dataclasses.dataclass
    class Mine:
        init: Any = jaxreg.sgd(0.1).init
        update: Any = jaxreg.sgd(0.1).update

    with pytest.raises(jaxreg.ArgumentError, match=r"optimizer must have a hash.*Mine has none"):
        fitted(optimizer=Mine())


FURTHER: dict[str, tuple[Any, str]] = {
    "time spans": (X.astype("m8[s]"), "inputs must hold numbers, got datetime.timedelta.* at row 0"),
    "keys": (jax.random.split(jax.random.key(0), 8), "inputs must hold numbers, got keys for random ones"),
    "a dictionary": ({"a": [1.0] * 8}, "inputs must hold numbers, got {'a'"),
    "trained tensors in a list": (
        [torch.ones(3, requires_grad=True)] * 8,
        "inputs must hold numbers, got list: .*grad",
    ),
}


@pytest.mark.parametrize("name", FURTHER)
def test_what_else_is_no_number(name: str) -> None:
    inputs, words = FURTHER[name]
    with pytest.raises(jaxreg.ArgumentError, match=words):
        fitted(inputs)


def test_what_else_holds_numbers() -> None:
    frame = pd.DataFrame(X, columns=list("aab"))
    decimals = np.vectorize(lambda x: decimal.Decimal(float(x)), otypes=[object])(X)
    for inputs in (frame, decimals):
        assert np.array_equal(fitted(inputs).losses, fitted().losses)
    assert np.array_equal(fitted(at=pd.Series([0, 2])).losses, fitted().losses[np.array([0, 2])])
    with pytest.raises(jaxreg.ArgumentError, match="at is masked at row 1"):
        fitted(at=np.ma.masked_array([0, 2], [False, True]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": None}, "settings must be a dictionary of lists or a list of dictionaries, got None"),
        ({"optimizer": jaxreg.sgd(0.1)}, "optimizer must be a function that makes .* got PyTorchSGD, which is made"),
        ({"optimizer": lambda learning_rate: learning_rate}, "optimizer must be an Optax transformation .* got float"),
    ],
    ids=["no settings", "an optimizer that is made", "no optimizer"],
)
def test_a_sweep_of_nothing_is_told(options: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"settings": {"learning_rate": [0.1]}, "epochs": 2} | options
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.sweep(model(), X, Y, **given)
