"""Ports of any training, from several JAX libraries, replayed on recordings of PyTorch runs made in the test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from parity import Port, PortError, Recording
from parity.replay.replay import replay
from parity.replay.session import Session
from tests.helpers.hand_recordings import train

RATE = 0.05
pytestmark = pytest.mark.usefixtures("relaxed")


@pytest.fixture
def relaxed() -> Any:
    """Ports are written as people write them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def mse(predictions: Any, targets: Any) -> Any:
    """The loss of most tests."""
    return jnp.mean((predictions - targets) ** 2)


def _data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _mlp() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()


def _mlp_recording(steps: int = 6, make: Callable[..., Any] = torch.optim.SGD, **options: Any) -> Recording:
    model = _mlp()
    batches = [(_data(5, 3, seed=n), _data(5, 2, seed=n + 9)) for n in range(3)]
    optimizer = make(model.parameters(), **{"lr": RATE, **options})
    return train(model, torch.nn.functional.mse_loss, optimizer, batches, [n % 3 for n in range(steps)])


def _plain_mlp(recording: Recording, optimizer: Any = None) -> Port:
    first = recording.initial
    return Port(
        params=[
            {"kernel": first["0.weight"].T, "bias": first["0.bias"]},
            {"kernel": first["2.weight"].T, "bias": first["2.bias"]},
        ],
        apply=_apply_mlp,
        loss=mse,
        optimizer=optimizer or optax.sgd(RATE),
    )


def _apply_mlp(params: Any, inputs: Any) -> Any:
    hidden = jnp.tanh(inputs @ params[0]["kernel"] + params[0]["bias"])
    return hidden @ params[1]["kernel"] + params[1]["bias"]


def _agree(recording: Recording, port: Port, tolerance: float = 1e-12) -> None:
    """Both replays in float64 against the run; a few hundred roundings at most, of numbers near 1."""
    made = replay(Session.of(port, recording))
    for run in (made.locked64, made.free64):
        ours, theirs = run, recording.observed
        np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=tolerance)
        pairs = [(ours.predictions, theirs.predictions), (ours.gradients, dict(theirs.gradients))]
        pairs += [(ours.weights, dict(theirs.weights))]
        pairs += [(values, {name: theirs.buffers[name] for name in values}) for values in [ours.buffers]]
        pairs += [(ours.state[key], dict(theirs.state[key])) for key in theirs.state]
        for a, b in pairs:
            for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                np.testing.assert_allclose(one.reshape(-1), other.reshape(-1), rtol=0, atol=tolerance)


def test_a_list_of_dicts() -> None:
    recording = _mlp_recording()
    _agree(recording, _plain_mlp(recording))
    slow = optax.sgd(RATE * (1 + 1e-6))
    with pytest.raises(AssertionError):
        _agree(recording, _plain_mlp(recording, slow))


def _put(model: nnx.Module, values: dict[str, Any]) -> None:
    for path, value in values.items():
        *owners, last = path.split(".")
        owner: Any = model
        for name in owners:
            owner = owner[int(name)] if name.isdigit() else getattr(owner, name)
        getattr(owner, last)[...] = jnp.asarray(value, jnp.float32)


class Equinoxish:
    """A module as Equinox makes them: a tree whose leaves are arrays and functions alike."""

    def __init__(self, weight: Any, bias: Any, activation: Any, rate: Any = 0.5) -> None:
        self.weight, self.bias, self.activation, self.rate = weight, bias, activation, rate

    def __call__(self, x: Any) -> Any:
        return self.activation(x @ self.weight.T + self.bias)


jax.tree_util.register_pytree_with_keys(
    Equinoxish,
    lambda m: ([(jax.tree_util.GetAttrKey(n), getattr(m, n)) for n in ("weight", "bias", "activation", "rate")], None),
    lambda _, leaves: Equinoxish(*leaves),
)


@pytest.mark.parametrize("make", [optax.sgd, optax.adam])
def test_trees_with_functions_in_them(make: Any) -> None:
    kind = torch.optim.SGD if make is optax.sgd else torch.optim.Adam
    recording = _mlp_recording(make=kind)
    first = recording.initial
    layers = (
        Equinoxish(first["0.weight"], first["0.bias"], jnp.tanh),
        Equinoxish(first["2.weight"], first["2.bias"], lambda x: x),
    )
    _agree(recording, Port(layers, lambda model, x: model[1](model[0](x)), mse, make(RATE)))


class TorchConv(torch.nn.Module):
    """A convolution, BatchNorm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, (3, 2))
        self.bn = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.bn(self.conv(x))).mean((2, 3)))


def _conv_recording(steps: int = 4) -> Recording:
    torch.manual_seed(0)
    model = TorchConv().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.float().double())
    batches = [(_data(4, 2, 6, 5, seed=n), _data(4, 2, seed=n + 9)) for n in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    return train(model, torch.nn.functional.mse_loss, optimizer, batches, [n % 2 for n in range(steps)])


class NnxConv(nnx.Module):
    """The same in NNX; flax keeps the biased variance, so the running one is put right for 4 rows of 4 by 4."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 3, (3, 2), padding="VALID", rngs=rngs)
        self.bn = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(jnp.tanh(self.bn(self.conv(jnp.moveaxis(x, 1, -1)))).mean((1, 2)))


def _biased(recording: Recording) -> Recording:
    """PyTorch's running variance as it would be without Bessel's correction, which flax does not make."""
    count = 4 * 4 * 4
    var = recording.observed.buffers["bn.running_var"]
    start = 0.9 ** np.arange(1, len(var) + 1)[:, None]
    buffers = dict(recording.observed.buffers) | {"bn.running_var": start + (var - start) * (count - 1) / count}
    return dataclasses.replace(recording, observed=dataclasses.replace(recording.observed, buffers=buffers))


def test_nnx_convolution_with_batch_norm() -> None:
    recording, model = _biased(_conv_recording()), NnxConv()
    first = recording.initial
    _put(model, {
        "conv.kernel": first["conv.weight"].transpose(2, 3, 1, 0), "conv.bias": first["conv.bias"],
        "head.kernel": first["head.weight"].T, "head.bias": first["head.bias"],
    })  # fmt: skip
    port = Port.from_nnx(model, mse, optax.sgd(RATE, 0.9))
    assert port._module is model
    _agree(recording, port)
    made = replay(Session.of(port, recording))
    assert sorted(made.free.buffers) == ["bn.running_mean", "bn.running_var"]
    model.eval()
    still = replay(Session.of(Port.from_nnx(model, mse, optax.sgd(RATE, 0.9)), recording))
    assert abs(still.free64.losses - made.free64.losses).max() > 1e-3
    assert (still.free64.buffers["bn.running_mean"] == 0).all()
    with pytest.raises(PortError, match=r"has state of its own that training changes \(bn.running_mean, bn.runn"):
        replay(
            Session.of(
                dataclasses.replace(port, state=None, apply=lambda p, x: port.apply(p, port.state, x)[0]), recording
            )
        )


class LinenConv(linen.Module):
    """The same in Linen."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(3, (3, 2), padding="VALID")(jnp.moveaxis(x, 1, -1))
        x = linen.BatchNorm(use_running_average=False, momentum=0.9)(x)
        return linen.Dense(2)(jnp.tanh(x).mean((1, 2)))


def test_linen_convolution_with_batch_norm() -> None:
    recording, module = _biased(_conv_recording()), LinenConv()
    first = recording.initial
    variables = module.init(jax.random.key(0), jnp.ones((1, 2, 6, 5)))
    params = {
        "Conv_0": {"kernel": first["conv.weight"].transpose(2, 3, 1, 0), "bias": first["conv.bias"]},
        "BatchNorm_0": {"scale": first["bn.weight"], "bias": first["bn.bias"]},
        "Dense_0": {"kernel": first["head.weight"].T, "bias": first["head.bias"]},
    }

    def apply(params: Any, state: Any, x: Any) -> Any:
        made, after = module.apply({"params": params, "batch_stats": state}, x, mutable=["batch_stats"])
        return made, after["batch_stats"]

    port = Port(params, apply, mse, optax.sgd(RATE, 0.9), state=variables["batch_stats"])
    _agree(recording, port)


class TorchTwo(torch.nn.Module):
    """Two inputs, one of whole numbers, by name; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 3)
        self.mix = torch.nn.Linear(3, 2)

    def forward(self, tokens: Any, scale: Any) -> Any:
        found = self.table(tokens)
        return self.mix(found * scale), found.sum(-1)


class NnxTwo(nnx.Module):
    """The same in NNX."""

    def __init__(self) -> None:
        self.table = nnx.Embed(5, 3, rngs=nnx.Rngs(0))
        self.mix = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, tokens: Any, scale: Any) -> Any:
        found = self.table(tokens)
        return self.mix(found * scale), found.sum(-1)


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_several_inputs_and_outputs(kind: str) -> None:
    torch.manual_seed(0)
    model = TorchTwo()
    tokens = np.random.default_rng(0).integers(0, 5, (4, 3))
    scale = _data(4, 3, 1).astype(np.float32)
    inputs: Any = (tokens, scale) if kind == "tuple" else {"scale": scale, "tokens": tokens}
    classes = np.random.default_rng(1).integers(0, 2, (4, 3))

    def torch_loss(made: Any, wanted: Any) -> Any:
        return torch.nn.functional.cross_entropy(made[0].flatten(0, 1), wanted.flatten()) + (made[1] ** 2).mean()

    def loss(made: Any, wanted: Any) -> Any:
        assert wanted.dtype == jnp.int32
        entropy = optax.softmax_cross_entropy_with_integer_labels(made[0], wanted).mean()
        return entropy + (made[1] ** 2).mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    recording = train(model, torch_loss, optimizer, [(inputs, classes)], [0] * 3)
    twin = NnxTwo()
    first = recording.initial
    _put(
        twin,
        {"table.embedding": first["table.weight"], "mix.kernel": first["mix.weight"].T, "mix.bias": first["mix.bias"]},
    )
    made = replay(Session.of(Port.from_nnx(twin, loss, optax.adamw(RATE, weight_decay=0.01)), recording))
    np.testing.assert_allclose(made.free.losses, recording.observed.losses, rtol=1e-5)
    assert made.free.state["exp_avg_sq"]["table.weight"].shape == (3, 5, 3)
    assert [leaf.shape for leaf in made.locked.predictions[0]] == [(4, 3, 2), (4, 3)]
    big = dataclasses.replace(recording, batches=(dataclasses.replace(recording.batches[0], targets=classes + 2**40),))
    with pytest.raises(PortError, match=r"integer overflow: 10995116277\d\d in the recorded int64 data"):
        replay(Session.of(Port.from_nnx(twin, loss, optax.sgd(RATE)), big))
