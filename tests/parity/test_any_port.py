"""Ports of any training, from several JAX libraries, replayed on recordings of PyTorch runs made in the test."""

from __future__ import annotations

import dataclasses
import re
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
from parity._replay import free_run, locked_run, replay, training
from tests.parity.hand_recordings import thinned, train

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
    made = replay(port, recording)
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
    made = replay(port, recording)
    assert sorted(made.free.buffers) == ["bn.running_mean", "bn.running_var"]
    model.eval()
    still = replay(Port.from_nnx(model, mse, optax.sgd(RATE, 0.9)), recording)
    assert abs(still.free64.losses - made.free64.losses).max() > 1e-3
    assert (still.free64.buffers["bn.running_mean"] == 0).all()
    with pytest.raises(PortError, match=r"has state of its own that training changes \(bn.running_mean, bn.runn"):
        replay(dataclasses.replace(port, state=None, apply=lambda p, x: port.apply(p, port.state, x)[0]), recording)


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
    made = replay(Port.from_nnx(twin, loss, optax.adamw(RATE, weight_decay=0.01)), recording)
    np.testing.assert_allclose(made.free.losses, recording.observed.losses, rtol=1e-5)
    assert made.free.state["exp_avg_sq"]["table.weight"].shape == (3, 5, 3)
    assert [leaf.shape for leaf in made.locked.predictions[0]] == [(4, 3, 2), (4, 3)]
    big = dataclasses.replace(recording, batches=(dataclasses.replace(recording.batches[0], targets=classes + 2**40),))
    with pytest.raises(PortError, match=r"integer overflow: 10995116277\d\d in the recorded int64 data"):
        replay(Port.from_nnx(twin, loss, optax.sgd(RATE)), big)


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}, optax.sgd(RATE, 0.9)),
    (torch.optim.Adam, {}, optax.adam(RATE)),
    (torch.optim.AdamW, {"weight_decay": 0.1}, optax.adamw(RATE, weight_decay=0.1)),
    (torch.optim.RMSprop, {}, optax.rmsprop(RATE, decay=0.99, eps_in_sqrt=False)),
    (torch.optim.Adagrad, {}, optax.adagrad(RATE, initial_accumulator_value=0.0, eps=1e-10)),
    (torch.optim.Adam, {}, optax.inject_hyperparams(optax.adam)(RATE)),
    (torch.optim.Adam, {}, optax.adam(lambda count: jnp.where(count > 100, 0.0, RATE))),
    (torch.optim.Adam, {}, optax.multi_transform({"a": optax.adam(RATE), "b": optax.adam(RATE)}, ["a", "b"])),
    (torch.optim.Adam, {}, optax.chain(optax.clip_by_global_norm(1e9), optax.masked(optax.adam(RATE), [True, True]))),
]


@pytest.mark.parametrize(("make", "options", "optimizer"), OPTIMIZERS)
def test_recorded_state_is_what_a_sequence_gives(make: Any, options: Any, optimizer: Any) -> None:
    """Steps that were not kept are leapt over with the recorded state; the kept ones come out as in the whole."""
    recording = _mlp_recording(12, make, **options)
    port = _plain_mlp(recording, optimizer)
    keep = [0, 1, 2, 6, 11]
    whole, part = replay(port, recording), replay(port, thinned(recording, keep))
    assert part.notes == ()
    assert part.judged.all()
    assert whole.locked64.state.keys() == recording.observed.state.keys()
    for field in ("gradients", "weights", "state"):
        for a, b in zip(*(jax.tree.leaves(getattr(run.locked64, field)) for run in (whole, part)), strict=True):
            # A few dozen roundings of numbers below 10, in PyTorch's update and in Optax's.
            np.testing.assert_allclose(a[keep], b, rtol=0, atol=1e-13)
        for a, b in zip(*(jax.tree.leaves(getattr(run.free, field)) for run in (whole, part)), strict=True):
            np.testing.assert_array_equal(a[keep], b)
    np.testing.assert_array_equal(whole.free.losses, part.free.losses)
    assert len(part.free.predictions) == len(part.locked.losses) == 5


def test_a_state_that_the_recording_has_not_is_said() -> None:
    recording = thinned(_mlp_recording(6), [0, 1, 4, 5])
    made = replay(_plain_mlp(recording, optax.sgd(RATE, 0.9)), recording)
    assert made.judged.tolist() == [True, True, False, False]
    assert np.isnan(made.locked.weights["0.bias"][2:]).all()
    assert np.isfinite(made.locked.weights["0.bias"][:2]).all()
    assert "From step 4 on" in made.notes[0]
    assert "trace" in made.notes[0]


def test_own_batches_are_fed_and_kept() -> None:
    recording = _mlp_recording()
    fed = [recording.batches[place] for place in recording.batch_of_step]
    batches: list[Any] = [(batch.inputs, batch.targets) for batch in fed]
    port = dataclasses.replace(_plain_mlp(recording), batches=batches)
    _agree(recording, port)
    swapped = dataclasses.replace(port, batches=[*batches[1:], batches[0]])
    made = replay(swapped, recording)
    assert made.data is not None
    np.testing.assert_array_equal(made.data[0][0], recording.batches[1].inputs)
    assert made.free.losses[0] != recording.observed.losses[0]
    np.testing.assert_allclose(made.locked64.losses, recording.observed.losses, atol=1e-13)
    with pytest.raises(PortError, match="has batches for 5 steps, and PyTorch made 6"):
        replay(dataclasses.replace(port, batches=batches[1:]), recording)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda p, t: (p - t) ** 2}, r"the port's loss has shape \(5, 2\) at step 0, where one number"),
        ({"apply": lambda p, x: _apply_mlp(p, x)[:, :1]}, r"predictions have shape \(5, 1\) at step 0, and PyTorch's"),
        ({"apply": lambda p, x: (_apply_mlp(p, x), x)}, "predicts 2 arrays at step 0, and PyTorch's model 1"),
        ({"apply": lambda p, x: x @ p[1]["kernel"]}, "the port fails when it is run: TypeError"),
        ({"state": {"n": np.zeros(())}}, "own state, which PyTorch keeps in buffers: the port's parameters and"),
        (
            {"params": [{"kernel": np.zeros((4, 4)), "bias": np.zeros(4)}]},
            "'0.weight' (4, 3) does not fit '0.kernel' (4, 4), in either layout",
        ),
    ],
)
def test_what_does_not_fit_says_so(change: dict[str, Any], message: str) -> None:
    recording = _mlp_recording(2)
    with pytest.raises(PortError) as error:
        replay(dataclasses.replace(_plain_mlp(recording), **change), recording)
    assert re.search(message, str(error.value)) or message in str(error.value)


def test_one_run_alone() -> None:
    recording = _mlp_recording(3)
    port, made = _plain_mlp(recording), replay(_plain_mlp(recording), recording)
    alone = locked_run(port, recording, np.float32, precision="highest", device=jax.devices("cpu")[0])
    assert alone.losses.dtype == np.float32
    np.testing.assert_array_equal(free_run(port, recording).losses, made.free.losses)
    (_, _), losses = training(port, recording)()
    np.testing.assert_array_equal(losses, made.free.losses)
