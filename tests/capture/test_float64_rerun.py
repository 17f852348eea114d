"""Programs in float64 are float64 everywhere: when timed, when evaluated, and in the JAX code that is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch

import jaxreg
import parity
from parity.porting.jax_source import write
from parity.replay.replay import replay, training
from parity.replay.session import Session


def _program() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1).double()
    loss_fn = torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(20, 2, dtype=torch.float64)
    y = x.sum(1, keepdim=True) + 0.1
    with torch.no_grad():
        model(x[:3])
    for _ in range(15):
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def recording() -> parity.Recording:
    return parity.record(_program)


def test_what_is_timed_is_float64(recording: parity.Recording) -> None:
    (params, _), losses = training(Session.of(parity.port(recording), recording))()
    assert {leaf.dtype.name for leaf in (losses, *params.values())} == {"float64"}
    # Twenty products of two terms and a mean, on both sides.
    assert abs(np.asarray(losses) - recording.observed.losses).max() <= 100 * 2.0**-53 * recording.observed.losses.max()


def test_an_evaluation_before_the_first_step_is_float64(recording: parity.Recording) -> None:
    answer = replay(Session.of(parity.port(recording), recording)).evaluations[0]
    expected = recording.evaluations[0].outputs
    assert recording.evaluations[0].step == 0
    assert answer.dtype == np.float64
    assert abs(answer - expected).max() <= 8 * 2.0**-53 * 4


def test_the_written_code_trains_in_float64(recording: parity.Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "kept.npz")
    code = (
        write(recording, "kept.npz")
        + "\nassert result.losses.dtype == 'float64'\nprint('last', repr(float(result.losses[-1])))\n"
    )
    (tmp_path / "train_jax.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "train_jax.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = float(done.stdout.split("last ")[1])
    assert abs(last - recording.observed.losses[-1]) <= 100 * 2.0**-53 * recording.observed.losses.max()


def _vanishing() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.full((4, 1), 1e-156, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    for _ in range(3):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@jax.numpy_dtype_promotion("standard")  # Optax's own
def test_what_underflows_on_one_side_only_is_no_divergence() -> None:
    """The square of the gradient is 4e-312, which PyTorch keeps and XLA sets to zero."""
    recording = parity.record(_vanishing)
    assert 0 < recording.observed.state["exp_avg_sq"]["weight"].max() < np.finfo(np.float64).tiny
    port = parity.Port(
        {"weight": recording.initial["weight"]},
        lambda params, x: x @ params["weight"].T,
        jaxreg.mse_loss,
        optax.adam(0.01),
    )
    assert parity.check(recording, port).ok
