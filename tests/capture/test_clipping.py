"""Trainings that clip their gradients: compared before it, stepped after it, and the port's clipping judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import parity

MOST = 0.5


def program(clip: Any = None, *, every: int = 1) -> Any:
    def train() -> None:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = torch.randn(12, 5), torch.randn(12, 2)
        for step in range(6):
            loss = torch.nn.functional.mse_loss(model(x), 3 * y)
            optimizer.zero_grad()
            loss.backward()
            if step % every == 0:
                (clip or (lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), MOST)))(model)
            optimizer.step()

    return train


def imported_by_name() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 3)
    for _ in range(3):
        loss = torch.nn.functional.mse_loss(model(x), 5 * x[:, :1])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), max_norm=MOST)
        optimizer.step()


def clipped(most: float, epsilon: float = 1e-6) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
        share = jnp.minimum(1.0, most / (norm + epsilon))
        return jax.tree.map(lambda g: g * share, gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def port(recording: parity.Recording, clip: Any = None) -> parity.Port:
    def apply(params: Any, x: Any) -> Any:
        hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"][None])
        return hidden @ params["2.weight"].T + params["2.bias"][None]

    optimizer = optax.chain(clip or clipped(MOST), optax.sgd(0.1, momentum=0.9))
    return parity.Port(dict(recording.initial), apply, lambda p, t: ((p - t) ** 2).mean(), optimizer)


@pytest.fixture(scope="module")
def recording() -> parity.Recording:
    return parity.record(program())


def test_recorded_gradients_are_those_before_clipping(recording: parity.Recording) -> None:
    assert recording.clipping == {"max_norm": MOST, "norm_type": 2.0}
    norms = np.sqrt(sum((g.reshape(6, -1).astype(float) ** 2).sum(1) for g in recording.observed.gradients.values()))
    assert (norms > 2 * MOST).all()
    assert any("clipped to a norm of 0.5 together" in note for note in recording.notes)


def test_a_recording_with_clipping_is_kept_whole(recording: parity.Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "run.npz")
    assert parity.Recording.load(tmp_path / "run.npz").clipping == recording.clipping


def test_a_port_that_clips_as_pytorch_does_holds(recording: parity.Recording) -> None:
    verdict = parity.check(recording, port)
    assert verdict.ok, str(verdict)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("clip", "cause"),
    [
        (optax.identity(), "gradient clipping missing"),
        (optax.clip_by_global_norm(MOST), "epsilon of the clipped norm"),
        (clipped(2 * MOST), "gradient clipping"),
    ],
)
def test_a_port_that_clips_otherwise_is_told_why(recording: parity.Recording, clip: Any, cause: str) -> None:
    verdict = parity.check(recording, lambda recording: port(recording, clip))
    first = verdict.first_divergence
    assert first is not None
    assert (first.stage, first.step) in {("optimizer state", 0), ("update", 0)}
    assert [found.name for found in verdict.causes] == [cause]


def test_clipping_by_value_holds() -> None:
    def by_value(model: torch.nn.Module) -> None:
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.1)

    verdict = parity.check(program(by_value), lambda recording: port(recording, optax.clip(0.1)))
    assert verdict.recording.clipping == {"clip_value": 0.1}
    assert verdict.ok, str(verdict)


def test_a_function_that_was_imported_by_name_is_noticed_and_put_back() -> None:
    recording = parity.record(imported_by_name, graphs=False)
    assert recording.clipping["max_norm"] == MOST
    assert clip_grad_norm_ is torch.nn.utils.clip_grad_norm_
    with pytest.raises(parity.UnsupportedError, match=r"norm of 0\.5 together, which parity cannot port"):
        parity.port(recording)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (program(every=2), r"at step 1, gradients are not clipped, and at step 0 they are clipped to a norm of 0\.5"),
        (
            program(lambda model: torch.nn.utils.clip_grad_norm_(model[0].parameters(), 1.0)),
            r"but not that of 2\.weight, 2\.bias",
        ),
        (
            program(lambda model: [torch.nn.utils.clip_grad_value_(model.parameters(), v) for v in (1.0, 0.5)]),
            "clipped twice",
        ),
    ],
)
def test_clipping_that_cannot_be_followed_is_refused(train: Any, message: str) -> None:
    with pytest.raises(parity.UnsupportedError, match=message):
        parity.record(train, graphs=False)
