"""Recording any training: what is seen equals what the program computes, and float64 what the program does in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import parity
from tests.helpers.any_programs import KINDS, Attention, Kind, classes, cross_entropy, mlp, optimizer

ADAM = optimizer(torch.optim.Adam, lr=0.01)


def _watched(kind: Kind, steps: int, dtype: torch.dtype) -> dict[str, list[Any]]:
    """The same training without any recording."""
    seen: dict[str, list[Any]] = {"losses": [], "weights": [], "gradients": [], "state": [], "buffers": []}

    def look(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        named = dict(model.named_parameters())
        seen["losses"].append(loss.item())
        seen["weights"].append({k: p.detach().numpy().copy() for k, p in named.items()})
        seen["gradients"].append({k: p.grad.numpy().copy() for k, p in named.items() if p.grad is not None})
        seen["buffers"].append({k: b.numpy().copy() for k, b in model.named_buffers()})
        seen["state"].append(
            {
                key: {k: optimizer.state[p][key].numpy().copy() for k, p in named.items()}
                for key, value in optimizer.state[next(iter(named.values()))].items()
                if isinstance(value, torch.Tensor) and value.ndim
            }
        )

    if dtype == torch.float32:
        kind.run(steps, dtype, look)
    else:
        _doubly(kind, steps, look)
    return seen


def _doubly(kind: Kind, steps: int, look: Callable[..., None]) -> None:
    """In double precision, from the random numbers of the single-precision training."""
    monkeypatch = pytest.MonkeyPatch()
    zeros = torch.zeros
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "zeros", lambda *size, **options: zeros(*size, **{**options, "dtype": torch.float64}))
    # NAdam keeps scalars in the default dtype.
    handles = [
        register_optimizer_step_pre_hook(lambda *_: torch.set_default_dtype(torch.float64)),
        register_optimizer_step_post_hook(lambda *_: torch.set_default_dtype(torch.float32)),
    ]
    try:
        kind.run(steps, torch.float64, look)
    finally:
        monkeypatch.undo()
        for handle in handles:
            handle.remove()


def _check_equal(trace: Any, seen: dict[str, list[Any]]) -> None:
    assert trace.losses.tolist() == seen["losses"]
    for step, weights in enumerate(seen["weights"]):
        for name, values in weights.items():
            assert (trace.weights[name][step] == values).all(), (step, name)
            assert (trace.gradients[name][step] == seen["gradients"][step][name]).all(), (step, name)
        for name, values in trace.buffers.items():
            assert (values[step] == seen["buffers"][step][name]).all(), (step, name)
        assert trace.state.keys() == seen["state"][step].keys()
        for key, tensors in trace.state.items():
            for name, values in tensors.items():
                assert (values[step] == seen["state"][step][key][name]).all(), (step, key, name)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_recorded_is_what_the_program_computes(name: str) -> None:
    recording = parity.record(KINDS[name].program())
    _check_equal(recording.observed, _watched(KINDS[name], 4, torch.float32))


@pytest.mark.parametrize("name", KINDS)
def test_the_free_arbiter_is_the_same_program_in_double_precision(name: str) -> None:
    recording = parity.record(KINDS[name].program())
    _check_equal(recording.arbiter_free, _watched(KINDS[name], 4, torch.float64))
    assert recording.arbiter_free.weights[next(iter(recording.initial))].dtype == np.float64


def test_what_models_take_and_give_are_trees() -> None:
    attention = parity.record(KINDS["attention"].program(1))
    batch = attention.batches[0]
    assert {k: (v.shape, v.dtype) for k, v in batch.inputs.items()} == {
        "ids": ((4, 6), np.int64),
        "mask": ((4, 6), np.bool_),
    }
    assert list(attention.observed.predictions[0]) == ["logits", "shares"]
    # The targets, the mask that weighs the tokens, and their number, in the order in which the loss takes them.
    assert [target.shape for target in batch.targets] == [(24,), (24,), ()]
    assert attention.loss.type == "a loss of its own"
    assert attention.loss.settings["operations"][0] == "view(predictions['logits'], -1, 11)"
    assert "places" in attention.initial_buffers
    assert attention.observed.buffers == {}
    two = parity.record(KINDS["two"].program(1))
    assert list(two.batches[0].inputs) == ["a", "b"]
    first, none, second = two.observed.predictions[0]
    assert (first.shape, none, second.shape) == ((7, 4), None, (7,))
    assert "inputs {a: (7, 3), b: (7, 2)}" in repr(two)


def test_settings_and_known_losses_are_readable() -> None:
    recording = parity.record(KINDS["mlp"].program())
    assert recording.loss.type == "torch.nn.functional.cross_entropy"
    assert recording.loss.settings == {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    assert recording.rules["0.weight"]["betas"] == (0.9, 0.999)
    assert recording.learning_rates["0.weight"].tolist() == [0.01, 0.01, 0.005, 0.005]
    assert parity.record(KINDS["conv"].program()).loss.type == "torch.nn.modules.loss.CrossEntropyLoss"
    grouped = parity.record(KINDS["attention"].program()).rules
    assert (grouped["head.weight"]["weight_decay"], grouped["head.bias"]["weight_decay"]) == (0.1, 0.0)
    assert grouped["head.weight"]["amsgrad"] is True
    assert recording.environment["matmul_precision"] == "highest"


@pytest.mark.parametrize("key", ["sum", "exp_avg"])
def test_the_state_before_the_first_step(key: str) -> None:
    recording = parity.record(KINDS["adagrad" if key == "sum" else "mlp"].program())
    before = recording.state_before()[key]["0.weight"]
    assert (before[0] == (0.25 if key == "sum" else 0.0)).all()
    assert (before[1:] == recording.observed.state[key]["0.weight"][:-1]).all()


def test_the_first_steps_alone() -> None:
    whole, cut = parity.record(KINDS["conv"].program()), parity.record(KINDS["conv"].program(2))
    first = whole.first(2)
    assert first.steps == 2
    assert len(first.batches) == 2
    for name in ("observed", "arbiter_locked", "arbiter_free"):
        one, other = getattr(first, name), getattr(cut, name)
        assert (one.losses == other.losses).all()
        assert all((one.weights[key] == other.weights[key]).all() for key in other.weights)
        assert all((one.buffers[key] == other.buffers[key]).all() for key in other.buffers)
    with pytest.raises(ValueError, match="expected steps from 1 to 4, got 5"):
        whole.first(5)


def test_a_loss_that_the_model_returns() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    kind = Kind(Own, ADAM, classes, lambda model, batch: model(x=batch["x"], labels=batch["y"])["loss"])
    recording = parity.record(kind.program(2))
    assert list(recording.batches[0].inputs) == ["x", "labels"]
    assert recording.batches[0].targets == ()
    assert recording.loss.settings["operations"] == ("predictions['loss']",)
    _check_equal(recording.arbiter_free, _watched(kind, 2, torch.float64))


def test_passes_of_several_tensors_add_up() -> None:
    kind = KINDS["two"]

    def program() -> None:
        torch.manual_seed(5)
        model = kind.model()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            sgd.zero_grad()
            for _ in range(3):
                batch = kind.data()
                loss = (model(batch["a"], b=batch["b"])[2] - batch["w"]).abs().mean() / 3
                loss.backward()
            sgd.step()

    recording = parity.record(program)
    batch = recording.batches[0]
    assert batch.parts == (7, 7, 7)
    assert [inputs["a"].shape for inputs, _ in batch.passes()] == [(7, 3)] * 3
    scale = np.finfo(np.float32).eps * 21
    assert (abs(recording.arbiter_free.losses - recording.observed.losses) <= scale * recording.observed.losses).all()


# -- dropout and other chance


def _dropping(dropout: float) -> Kind:
    old = KINDS["attention"]
    return Kind(lambda: Attention(dropout), old.optimizer, old.data, old.loss)


def test_dropout_is_refused_or_switched_off() -> None:
    with pytest.raises(parity.UnsupportedError, match=r"attend \(MultiheadAttention\).*dropout=False \(--no-dropout\)"):
        parity.record(_dropping(0.3).program(), graphs=False)
    without = parity.record(_dropping(0.3).program(), dropout=False)
    assert "Dropout was switched off for the recording." in without.notes

    def no_chance() -> None:
        torch.manual_seed(5)
        _dropping(0.0).run()

    # The random numbers that dropout would have drawn are not drawn, so the data is that of a model without it.
    plain = parity.record(no_chance)
    assert (without.observed.losses == plain.observed.losses).all()
    assert (without.arbiter_free.losses == plain.arbiter_free.losses).all()


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3, 2, dropout=0.5), nn.GRU(4, 3, 2, dropout=0.5)])
def test_dropout_between_recurrent_layers(layer: nn.Module) -> None:
    kind = Kind(lambda: layer, ADAM, classes, lambda model, batch: model(batch["x"])[0].square().mean())
    with pytest.raises(parity.UnsupportedError, match=r"the loss cannot be followed: (lstm|gru) draws random numbers"):
        parity.record(kind.program())
    recording = parity.record(kind.program(), dropout=False)
    off = abs(recording.arbiter_locked.losses - recording.observed.losses)
    assert (off <= 2.0**-20 * recording.observed.losses).all()


def test_dropout_in_evaluations_alone_is_no_matter() -> None:
    def program() -> None:
        model = _dropping(0.5).model()
        adam = ADAM(model)
        batch = KINDS["attention"].data()
        model.eval()
        KINDS["attention"].loss(model, batch).backward()
        adam.step()

    assert parity.record(program).steps == 1


# -- what is refused


def _noisy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    out = model(batch["x"])
    return F.cross_entropy(F.dropout(out, 0.5), batch["y"])


def _changing() -> Callable[[Any, Any], torch.Tensor]:
    smoothing = iter([0.0, 0.1])
    return lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"], label_smoothing=next(smoothing))


def _rebuilt() -> Callable[[Any, Any], torch.Tensor]:
    signs = iter([torch.relu, torch.tanh])
    return lambda model, batch: F.cross_entropy(next(signs)(model(batch["x"])), batch["y"])


def _penalised(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return cross_entropy(model, batch) + 0.1 * sum(p.square().sum() for p in model.parameters())


def _several(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return cross_entropy(model, batch) + mlp()(batch["x"]).mean()


def _in_place(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    loss = (model(batch["x"]) + batch["x"][:, :3]).mean()
    batch["x"].zero_()
    return loss


def _through_view(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    out = model(batch["x"]) * 1
    out[:, 0].mul_(2.0)
    return out.mean()


def _vector(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    class Backwards:
        def backward(self) -> None:
            out.backward(torch.ones_like(out))

    out = model(batch["x"])
    return Backwards()  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (_noisy, "at step 0, the loss draws random numbers (dropout)"),
        (_changing(), "at step 1, another loss is taken than at step 0"),
        (_changing(), "than at step 0: cross_entropy is given"),
        (_rebuilt(), "the loss is tanh, cross_entropy, and relu, cross_entropy at first"),
        (_penalised, "a penalty on squared weights can be the optimizer's weight_decay"),
        (_several, "one loss is taken of several models (Sequential)"),
        (_through_view, "the loss cannot be followed: a tensor was changed in place through a view of it"),
        (_vector, "backward() is called on a tensor of shape (9, 3)"),
    ],
)  # fmt: skip
def test_losses_that_cannot_be_followed_are_named(loss: Any, message: str) -> None:
    kind = Kind(mlp, ADAM, classes, loss)
    with pytest.raises(parity.UnsupportedError) as error:
        parity.record(lambda: kind.run(2, seen=lambda *_: None), graphs=False)
    assert message in str(error.value)


def test_a_target_changed_before_backward_is_named() -> None:
    def program() -> None:
        model = mlp()
        adam, batch = ADAM(model), classes()
        weights = torch.ones(9)
        loss = (model(batch["x"]).mean(1) + weights).mean()
        weights.zero_()
        loss.backward()
        adam.step()

    with pytest.raises(
        parity.UnsupportedError, match="a tensor that goes into the loss is changed in place before the step"
    ):
        parity.record(program)


def test_buffers_changed_outside_the_steps_are_named() -> None:
    kind = KINDS["conv"]

    def look(model: nn.Module, *_: Any) -> None:
        with torch.no_grad():
            model(torch.ones(2, 1, 6, 6))

    with pytest.raises(parity.UnsupportedError, match=r"at step 1, 1\.running_mean was changed since the last step"):
        parity.record(lambda: kind.run(2, seen=look), graphs=False)


def test_a_mode_left_on_is_named() -> None:
    with pytest.raises(parity.UnsupportedError, match="at step 1, 1 is in evaluation mode and was in training mode"):
        parity.record(lambda: KINDS["conv"].run(2, seen=lambda model, *_: model.eval()), graphs=False)


def test_a_model_that_float64_breaks_is_named() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.hidden = [torch.ones(4)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(torch.addmv(self.hidden[0], torch.eye(4), self.hidden[0]) + x)
            return out

    with pytest.raises(parity.UnsupportedError, match="Single trained, but fails when it is run again in float64"):
        parity.record(Kind(Single, ADAM, classes, cross_entropy).program(), graphs=False)
