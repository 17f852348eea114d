"""Trainings that are followed as graphs: of any tensors, any losses, with what they draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import parity

STEPS = 3


def trained(
    make: Callable[[], Any], loss: Callable[[Any, torch.Tensor], Any], optimizer: Any = None
) -> Callable[[], None]:
    """A program that trains what ``make`` gives, a module or a list of tensors, on some rows."""

    def program() -> None:
        torch.manual_seed(0)
        model = make()
        tensors = list(model.parameters()) if isinstance(model, nn.Module) else model
        opt = optimizer(tensors) if optimizer else torch.optim.SGD(tensors, lr=0.1)
        rows = torch.randn(6, 3)
        for _ in range(STEPS):
            opt.zero_grad()
            loss(model, rows).backward()
            opt.step()

    return program


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def tensors() -> list[torch.Tensor]:
    return [torch.randn(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)]


def _line(held: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    return ((rows @ held[0] + held[1] - 1) ** 2).mean()


def _noisy(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(model(rows + torch.randn_like(rows)), rows[:, :1])


def _penalised(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(model(rows), rows[:, :1]) + 0.01 * sum((p * p).sum() for p in model.parameters())


def _masked(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return (model(rows)[rows[:, 0] > 0] ** 2).sum()


def _filled(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    made = torch.zeros(6, 2)
    made[:, 0] = model(rows).squeeze(1)
    made[1:, 1] = made[:-1, 0].clone()
    return (made**2).mean()


CASES: dict[str, Any] = {
    "plain tensors": (tensors, _line),
    "noise": (mlp, _noisy),
    "a penalty": (mlp, _penalised),
    "dropout": (lambda: nn.Sequential(mlp(), nn.Dropout(0.5)), lambda m, x: m(x).square().mean()),
    "chosen rows": (mlp, _masked),
    "elements put in place": (mlp, _filled),
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
                   lambda m, x: F.huber_loss(m(x), x[:, :1])),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 5, 0.0, batch_first=True),
                  lambda m, x: m(x.reshape(-1)[:16].reshape(1, 4, 4)).square().mean()),
    "an LSTM": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), lambda m, x: m(x.unsqueeze(1))[0].square().mean()),
    "attention with dropout": (lambda: nn.TransformerEncoderLayer(4, 2, 5, 0.3, batch_first=True),
                               lambda m, x: m(x.reshape(-1)[:16].reshape(1, 4, 4)).square().mean()),
    "normalised weights": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(),
                                                 nn.utils.parametrizations.spectral_norm(nn.Linear(4, 1))),
                           lambda m, x: m(x).square().mean()),
    "a vector's gradient": (mlp, None),
}  # fmt: skip


@pytest.mark.cases(4)
@pytest.mark.parametrize("what", CASES)
def test_it_holds(what: str) -> None:
    make, loss = CASES[what]
    verdict = parity.check(trained(make, loss or (lambda m, x: _Vector(m(x)))))
    assert verdict.recording.graphs
    assert verdict.ok, str(verdict)


class _Vector:
    """What ``backward`` is called on with a gradient."""

    def __init__(self, made: torch.Tensor) -> None:
        self._made = made

    def backward(self) -> None:
        self._made.backward(torch.linspace(0.1, 1, 6).reshape(6, 1))


def _recording() -> parity.Recording:
    recording = parity.record(trained(mlp, _noisy))
    return recording.whole or recording


def test_what_is_drawn_is_fed_again() -> None:
    recording = _recording()
    fed = [batch.inputs["step 0"]["tensors"] for batch in recording.batches]
    assert len(fed) == STEPS
    assert not np.array_equal(fed[0][0], fed[1][0])


def test_a_wrong_draw_parts() -> None:
    """The port of a training with noise, on the draws of another step, is another training."""
    recording = _recording()
    good = parity.port(recording)
    shifted = {
        id(batch.inputs["step 0"]["tensors"][0]): recording.batches[(k + 1) % STEPS].inputs
        for k, batch in enumerate(recording.batches)
    }
    assert len(shifted) == STEPS
    batches = [(recording.batches[(k + 1) % STEPS].inputs, ()) for k in range(STEPS)]
    bad = parity.Port(good.params, good.apply, good.loss, good.optimizer, good.names, good.state, batches)
    assert not parity.check(recording, bad).ok


def test_numbers_that_change_are_inputs() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = mlp()
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        rows = torch.randn(6, 3)
        for step in range(STEPS):
            opt.zero_grad()
            (model(rows).square().mean() * (0.5 + 0.1 * step)).backward()
            opt.step()

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)
    assert len(verdict.recording.graphs) == 1
    assert [batch.inputs["step 0"]["numbers"].tolist() for batch in verdict.recording.batches] == [
        [0.5], [0.6], [0.7]
    ]  # fmt: skip


def test_gradients_added_up_are_one_step() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        rows = torch.randn(6, 3)
        for _ in range(STEPS):
            opt.zero_grad()
            F.mse_loss(model(rows[:2]), rows[:2, :1]).backward()
            (2 * F.l1_loss(model(rows[2:]), rows[2:, :1])).backward()
            opt.step()

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)
    assert [len(graph.roots) for graph in verdict.recording.graphs.values()] == [2]


def test_a_recording_of_graphs_is_read_back(tmp_path: Any) -> None:
    recording = _recording()
    recording.save(tmp_path / "r.npz")
    again = parity.Recording.load(tmp_path / "r.npz")
    assert again.graphs.keys() == recording.graphs.keys()
    assert again.graphs["step 0"].operations[0].name == recording.graphs["step 0"].operations[0].name
    assert parity.check(again).ok


def test_names_are_the_programs_own() -> None:
    def program() -> None:
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(3, 2), nn.Linear(2, 3)
        scale = torch.ones(1, requires_grad=True)
        opt = torch.optim.SGD([*encoder.parameters(), *decoder.parameters(), scale], lr=0.1)
        rows = torch.randn(6, 3)
        for _ in range(2):
            opt.zero_grad()
            (decoder(encoder(rows)) * scale - rows).square().mean().backward()
            opt.step()

    recording = parity.record(program)
    assert list(recording.initial) == ["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", "scale"]


@pytest.mark.parametrize("change", ["stop", "wrong"])
def test_faults_of_a_port_are_caught(change: str) -> None:
    """A port with a gradient that stops, or with another constant, is another training."""
    import jax

    recording = _recording()
    good = parity.port(recording)

    def apply(params: Any, inputs: Any) -> Any:
        made = good.apply(params, inputs)
        factor = 1.001 if change == "wrong" else 1.0
        loss = made["loss"] * factor
        return {**made, "loss": jax.lax.stop_gradient(loss) if change == "stop" else loss}

    bad = parity.Port(good.params, apply, good.loss, good.optimizer, good.names)
    assert not parity.check(recording, bad).ok


def test_gradients_from_autograd_grad_are_followed() -> None:
    def program() -> None:
        torch.manual_seed(0)
        weight, rows = torch.randn(3, 1, requires_grad=True), torch.randn(6, 3)
        opt = torch.optim.SGD([weight], lr=0.01, momentum=0.9)
        for _ in range(STEPS):
            (weight.grad,) = torch.autograd.grad(((rows @ weight - 1) ** 2).sum(), [weight])
            opt.step()

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)


def test_a_gradient_of_ones_own_is_refused() -> None:
    def program() -> None:
        weight = torch.ones(3, 1, requires_grad=True)
        opt = torch.optim.SGD([weight], lr=0.01)
        for _ in range(STEPS):
            (weight**2).sum().backward()
            weight.grad = weight.grad * 0.5 if weight.grad is not None else None
            opt.step()
            opt.zero_grad()

    with pytest.raises(parity.UnsupportedError):
        parity.record(program)


def test_a_network_that_the_program_copies_is_fed_as_it_is_given() -> None:
    """As a target network: no gradient goes through it, and the program itself changes it."""

    def program() -> None:
        torch.manual_seed(0)
        policy, target = mlp(), mlp()
        opt = torch.optim.SGD(policy.parameters(), lr=0.1)
        rows = torch.randn(6, 3)
        for _ in range(STEPS):
            with torch.no_grad():
                wanted = 1 + 0.9 * target(rows)
            opt.zero_grad()
            F.mse_loss(policy(rows), wanted).backward()
            opt.step()
            target.load_state_dict(policy.state_dict())

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)


def test_no_gradient_goes_through_data() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        rows = torch.randn(6, 3)
        for _ in range(2):
            opt.zero_grad()
            made = model(rows)
            (made * made.data + made.detach()).mean().backward()
            opt.step()

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)


def test_the_first_steps_of_a_recording_are_those_of_its_graphs() -> None:
    recording = parity.record(trained(mlp, lambda m, x: F.l1_loss(m(x), x[:, :1])))
    first = recording.first(2)
    assert first.whole is not None
    assert (first.steps, first.whole.steps) == (2, 2)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_optimizer_made_anew_goes_on_where_it_keeps_nothing(momentum: float) -> None:
    def program() -> None:
        torch.manual_seed(0)
        model, rows = mlp(), torch.randn(6, 3)
        for _ in range(2):
            opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
            for _ in range(2):
                opt.zero_grad()
                F.l1_loss(model(rows), rows[:, :1]).backward()
                opt.step()

    if not momentum:
        assert parity.record(program).steps == 4
        return
    with pytest.raises(parity.UnsupportedError, match="another SGD than at step 0"):
        parity.record(program)


def test_an_optimizer_with_many_gradients_a_step_is_named() -> None:
    def program() -> None:
        model = mlp()
        opt = torch.optim.LBFGS(model.parameters())

        def closure() -> torch.Tensor:
            opt.zero_grad()
            loss = model(torch.ones(2, 3)).square().mean()
            loss.backward()
            return loss

        opt.step(closure)

    with pytest.raises(parity.UnsupportedError, match="LBFGS calls its closure several times a step"):
        parity.record(program)
