"""What a port's steps start from and are fed: optimizer state of every kind, its own batches, and what does not fit."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from parity import PortError
from parity.replay.replay import free_run, locked_run, replay, training
from parity.replay.session import Session
from tests.helpers.hand_recordings import thinned
from tests.porting.test_any_port import RATE, _agree, _apply_mlp, _mlp_recording, _plain_mlp, relaxed

__all__ = ["relaxed"]  # the fixture
pytestmark = pytest.mark.usefixtures("relaxed")

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


@pytest.mark.cases(1)
@pytest.mark.parametrize(("make", "options", "optimizer"), OPTIMIZERS)
def test_recorded_state_is_what_a_sequence_gives(make: Any, options: Any, optimizer: Any) -> None:
    """Steps that were not kept are leapt over with the recorded state; the kept ones come out as in the whole."""
    recording = _mlp_recording(12, make, **options)
    port = _plain_mlp(recording, optimizer)
    keep = [0, 1, 2, 6, 11]
    whole, part = replay(Session.of(port, recording)), replay(Session.of(port, thinned(recording, keep)))
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
    made = replay(Session.of(_plain_mlp(recording, optax.sgd(RATE, 0.9)), recording))
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
    made = replay(Session.of(swapped, recording))
    assert made.data is not None
    np.testing.assert_array_equal(made.data[0][0], recording.batches[1].inputs)
    assert made.free.losses[0] != recording.observed.losses[0]
    np.testing.assert_allclose(made.locked64.losses, recording.observed.losses, atol=1e-13)
    with pytest.raises(PortError, match="has batches for 5 steps, and PyTorch made 6"):
        replay(Session.of(dataclasses.replace(port, batches=batches[1:]), recording))


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
        replay(Session.of(dataclasses.replace(_plain_mlp(recording), **change), recording))
    assert re.search(message, str(error.value)) or message in str(error.value)


def test_one_run_alone() -> None:
    recording = _mlp_recording(3)
    port, made = _plain_mlp(recording), replay(Session.of(_plain_mlp(recording), recording))
    alone = locked_run(Session.of(port, recording), np.float32, precision="highest", device=jax.devices("cpu")[0])
    assert alone.losses.dtype == np.float32
    np.testing.assert_array_equal(free_run(Session.of(port, recording)).losses, made.free.losses)
    (_, _), losses = training(Session.of(port, recording))()
    np.testing.assert_array_equal(losses, made.free.losses)
