"""Small programs of many kinds, recorded and no more: which are judged, and why the others are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import parity
from tests.helpers.field_parts import DATA, LINEAR, MSE, OWN_OPTIMIZER, SGD, TWO, loss, module
from tests.helpers.refused_programs import REFUSED, STILL_REFUSED

JUDGED = {
    "average by hand": loss("((model(x) - y) ** 2).sum() / (2 * len(x))"),
    "called by keyword": loss("F.mse_loss(model(input=x), y)"),
    "compiled": loss(MSE, LINEAR + "model = torch.compile(model, backend='eager')" + SGD),
    "lazy, called before": loss(MSE, "model = torch.nn.LazyLinear(1)\nmodel(x)" + SGD),
    "flattened": loss("F.mse_loss(model(x).flatten(), y.flatten())"),
    "squeezed": loss("F.mse_loss(model(x).squeeze(), y.squeeze())"),
    "viewed": loss("F.mse_loss(model(x).view(-1), y.view(-1))"),
    "GradScaler that is off": loss(MSE, LINEAR + SGD + "scaler = torch.amp.GradScaler('cpu', enabled=False)\n")
    .replace("loss.backward()", "scaler.scale(loss).backward()")
    .replace("optimizer.step()", "scaler.step(optimizer); scaler.update()"),
    "closure called before the step": LINEAR
    + SGD
    + f"""
def closure():
    optimizer.zero_grad()
    loss = {MSE}
    loss.backward()
    return loss

for _ in range(3):
    closure()
    optimizer.step()
""",
    "one optimizer with two groups": loss(
        MSE,
        LINEAR
        + "optimizer = torch.optim.SGD([{'params': [model.weight]}, {'params': [model.bias], 'lr': 0.2}], lr=0.1)",
    ),
    "OneCycleLR that leaves momentum": loss(
        MSE,
        LINEAR
        + SGD
        + "plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=False)\n",
    )
    + "    plan.step()\n",
}

# What a refusal advises, for models that parity records and does not port by itself.
RECORDED = {
    "a branch that counts zero": loss(
        MSE,
        module("self.a(t) + (t.sum() > 0) * self.b(t)", TWO) + SGD,
    ),
    "a penalty that the model returns": loss(
        "F.mse_loss((made := model(x))[0], y) + 0.1 * made[1]",
        module("(self.linear(t), self.linear.weight.abs().sum())") + SGD,
    ),
    "two models in one": loss(
        MSE, module("self.b(self.a(t))", "self.a, self.b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)") + SGD
    ),
    "a judge alone": loss(
        "model(torch.cat([x, maker(x).detach()])).mean()", LINEAR + "maker = torch.nn.Linear(3, 3)\n" + SGD
    ),
    "a maker alone": loss(
        "F.linear(maker(x), judge).mean()",
        "maker, judge = torch.nn.Linear(3, 3), torch.ones(1, 3)\noptimizer = torch.optim.Adam(maker.parameters())\n",
    ),
    "a network that was not cleared to None": loss(MSE).replace("zero_grad()", "zero_grad(set_to_none=False)"),
    "an optimizer of one's own": loss(MSE, OWN_OPTIMIZER + LINEAR + "optimizer = Own(model.parameters())\n"),
}


def record(tmp_path: Path, text: str, **options: Any) -> parity.Recording:
    path = tmp_path / "train.py"
    path.write_text(DATA + text)
    return parity.record(path, **options)


@pytest.mark.parametrize("what", RECORDED)
def test_the_advice_can_be_followed(what: str, tmp_path: Path) -> None:
    assert record(tmp_path, RECORDED[what]).steps == 3


@pytest.mark.cases(4)
@pytest.mark.parametrize("what", JUDGED)
@pytest.mark.filterwarnings("ignore:Using .torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_is_judged(what: str, tmp_path: Path) -> None:
    """As the advice of a refusal says, among others."""
    recording = record(tmp_path, JUDGED[what])
    assert not recording.notes
    parity.port(recording)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_is_refused_for_its_reason(what: str, tmp_path: Path) -> None:
    text, reason = REFUSED[what]
    with pytest.raises(parity.UnsupportedError) as error:
        parity.port(record(tmp_path, text, graphs=False))
    assert re.search(reason, str(error.value)), str(error.value)
    if "broadcast" not in what and "clipped by" not in what:
        assert re.search(r"\. In train\.py, line \d+: \S", str(error.value)), "where it is"


FED = {
    "batch normalization": (
        "torch.nn.Sequential(torch.nn.BatchNorm1d(3, affine=False), torch.nn.Linear(3, 1))",
        "BatchNorm1d",
    ),
    "powers": (module("self.linear(torch.cat([t[:, :1], t[:, :1] ** 2, t[:, :1] ** 3], 1))"), "getitem, pow, cat"),
    "a mean taken off": (
        module(
            "self.linear(t - self.mean)", "self.linear = torch.nn.Linear(3, 1); self.register_buffer('mean', x.mean(0))"
        ),
        "sub",
    ),
    "nothing": ("torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity(), torch.nn.Linear(3, 1))", ""),
    "a shape alone": (module("self.linear(t.unsqueeze(1).contiguous()).squeeze(1)"), ""),
}


@pytest.mark.parametrize("what", FED)
def test_what_comes_before_the_linear_layer_is_said_to_be_data(what: str, tmp_path: Path) -> None:
    made, names = FED[what]
    made = made if "class" in made else f"model = {made}"
    recording = record(tmp_path, loss(MSE, made + SGD))
    parity.port(recording)
    told = (
        f"What the model makes of its input before its linear layer ({names}) is PyTorch's on both sides: JAX is fed "
        "the result as data, and what is judged is the training of the layer.",
    )
    assert recording.notes == (told if names else ())


def test_an_error_of_the_program_is_the_programs_own(tmp_path: Path) -> None:
    """PyTorch calls hooks in another way where a forward pass raises; that once gave a warning of ours."""
    with pytest.raises(parity.ProgramError, match="train raised ZeroDivisionError") as error:
        record(tmp_path, module("t / (1 // 0)") + "model(x)")
    assert "parity" not in error.value.program_traceback


def test_a_call_that_pytorch_refuses_is_refused_by_pytorch(tmp_path: Path) -> None:
    text = loss(MSE).replace("optimizer.step", "torch.nn.utils.clip_grad_norm_(model.parameters())\n    optimizer.step")
    with pytest.raises(parity.ProgramError, match="train raised TypeError") as error:
        record(tmp_path, text)
    assert "max_norm" in error.value.program_traceback
    assert "KeyError" not in error.value.program_traceback


@pytest.mark.cases(3)
@pytest.mark.parametrize("what", sorted(REFUSED.keys() - STILL_REFUSED))
def test_what_is_not_one_model_and_one_loss_is_judged_by_its_graph(what: str, tmp_path: Path) -> None:
    recording = record(tmp_path, REFUSED[what][0])
    assert (recording.whole or recording).graphs
    verdict = parity.check(recording)
    assert verdict.ok, str(verdict)
