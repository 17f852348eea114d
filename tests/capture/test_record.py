"""Recording: what is seen, that nothing is changed or left behind, and what is refused."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.overrides
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

import parity
from parity.programs import BUILT_IN
from tests.helpers.torch_programs import minibatches, regression, small


def _by_hand(steps: int) -> dict[str, list[Any]]:
    """The same training as ``regression(small(steps))``, written down without hooks."""
    training = small(steps)
    torch.manual_seed(training.seed)
    x, y = (torch.from_numpy(array) for array in training.data())
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate())
    seen: dict[str, list[Any]] = {"loss": [], "prediction": [], "gradient": [], "weight": []}
    for _ in range(steps):
        prediction = model(x)
        loss = torch.nn.functional.mse_loss(prediction, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model.weight.grad is not None
        values = (loss, prediction, model.weight.grad, model.weight)
        for name, value in zip(seen, values, strict=True):
            seen[name].append(value.detach().numpy().copy())
    return seen


def test_every_value_is_what_the_program_computes() -> None:
    recording = parity.record(regression(small(9)))
    expected = _by_hand(9)
    assert (recording.observed.losses == np.array(expected["loss"])).all()
    assert (np.array(recording.observed.predictions) == np.array(expected["prediction"])).all()
    assert (recording.observed.gradients["weight"] == np.array(expected["gradient"])).all()
    assert (recording.observed.weights["weight"] == np.array(expected["weight"])).all()
    assert recording.observed.state == {}
    assert str(recording.model) == "Linear(in_features=3, out_features=2, bias=True)"
    assert str(recording.loss) == "MSELoss(reduction='mean')"
    assert len(recording.batches) == 1


def test_nothing_is_left_behind() -> None:
    states = torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.manual_seed
    paths, argv, modules = list(sys.path), list(sys.argv), sys.modules["__main__"]
    parity.record(BUILT_IN[0].path, seed=3, argv=["--epochs", "2"])
    assert not module_hooks._global_forward_hooks
    assert not module_hooks._global_forward_pre_hooks
    assert not optimizer_hooks._global_optimizer_pre_hooks
    assert not optimizer_hooks._global_optimizer_post_hooks
    assert torch.overrides._get_current_function_mode() is None
    assert (torch.get_rng_state() == states[0]).all()
    assert (random.getstate(), torch.get_default_dtype(), torch.manual_seed) == states[1:]
    assert (sys.path, sys.argv, sys.modules["__main__"]) == (paths, argv, modules)


def test_momentum_buffers_are_seen() -> None:
    recording = parity.record(regression(small(4), optimizer={"momentum": 0.9}))
    buffers = recording.observed.state["momentum_buffer"]["weight"]
    gradients = recording.observed.gradients["weight"]
    assert (buffers[0] == gradients[0]).all()
    expected = np.float32(0.9) * buffers[0] + gradients[1]
    assert (abs(buffers[1] - expected) <= 2.0**-22 * (abs(expected) + abs(buffers[0]))).all()


def test_batches_and_learning_rates_are_seen() -> None:
    recording = parity.record(minibatches())
    assert recording.steps == 12
    assert sorted({len(batch.inputs) for batch in recording.batches}) == [2, 16]
    assert recording.learning_rates["weight"].tolist() == [0.05] * 4 + [0.025] * 4 + [0.0125] * 4


def test_evaluations_and_printed_lines_know_their_place() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model, loss_fn = torch.nn.Linear(1, 1), torch.nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.ones(4, 1)
        for _ in range(3):
            loss = loss_fn(model(x), 2 * x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"loss {loss.item():.3f}", end="\n")
            with torch.no_grad():
                print(f"at two {model(torch.tensor([[2.0]])).item()}")
        print("no newline at the end", end="")

    verdict = parity.check(program)
    recording = verdict.recording
    assert [evaluation.step for evaluation in recording.evaluations] == [1, 2, 3]
    assert [line.step for line in recording.printed] == [1, 1, 2, 2, 3, 3, 3]
    sources = [number.source for line in recording.printed for number in line.numbers]
    kinds = [(source.kind, source.first) if source else () for source in sources]
    assert kinds == [("loss", 0), ("evaluation", 0), ("loss", 1), ("evaluation", 1), ("loss", 2), ("evaluation", 2)]
    assert recording.printed[-1].text == "no newline at the end"
    assert all(line.jax is not None for line in verdict.printed)
    for evaluation, answer in zip(recording.evaluations, verdict.replay.evaluations, strict=True):
        assert answer.shape == evaluation.outputs.shape


@pytest.mark.thorough
def test_lines_printed_between_passes_and_after_an_idle_backward() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = torch.randn(6, 2), torch.randn(6, 1)
        for _ in range(2):
            optimizer.zero_grad()
            for part, target in zip(x.split(2), y.split(2), strict=True):
                loss = ((model(part) - target) ** 2).mean()
                loss.backward()
                print(f"pass {loss.item():.6f}")
            optimizer.step()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        print(f"idle {loss.item():.6f}, weight {model.weight[0, 0].item():.6f}")

    verdict = parity.check(program)
    assert verdict.ok, str(verdict)
    assert [line.step for line in verdict.recording.printed] == [0, 0, 0, 1, 1, 1, 2]
    # A part of a step's loss is none, and a loss that no step follows has no counterpart.
    assert [line.jax for line in verdict.printed] == [None] * 7


def test_modules_beside_the_script_are_found_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "their_helper.py").write_text("RATE = 0.1\n")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\nfrom their_helper import RATE\n"
        "assert __name__ == '__main__' and sys.argv[1:] == ['--fast']\n"
        "m, l = torch.nn.Linear(1, 1), torch.nn.MSELoss()\no = torch.optim.SGD(m.parameters(), lr=RATE)\n"
        "l(m(torch.ones(2, 1)), torch.ones(2, 1)).backward()\no.step()\n"
    )
    assert parity.record(script, argv=["--fast"]).steps == 1
    assert "their_helper" not in sys.modules


# -- what is refused


def _loop(
    *,
    model: Callable[[], torch.nn.Module] = lambda: torch.nn.Linear(2, 1),
    loss_fn: Callable[[], Any] = torch.nn.MSELoss,
    optimizer: Callable[[Any], Any] = lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    body: Callable[[Any, Any, Any, Any, Any], None] | None = None,
) -> Callable[[], None]:
    def program() -> None:
        torch.manual_seed(0)
        net, criterion = model(), loss_fn()
        opt = optimizer(net)
        x, y = torch.randn(6, 2), torch.randn(6, 1)
        for _ in range(3):
            if body is not None:
                body(net, criterion, opt, x, y)
                continue
            opt.zero_grad()
            criterion(net(x), y).backward()
            opt.step()

    return program


def _accumulate(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    criterion(net(x), y).backward()
    opt.step()


def _two_kinds(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    criterion(net(x), y).backward()
    (0.1 * criterion(net(x), y)).backward()
    opt.step()


def _penalty(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    (criterion(net(x), y) + 0.1 * net.weight.abs().sum()).backward()
    opt.step()


def _scale_changes(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    (float(net.bias.detach()) * criterion(net(x), y)).backward()
    opt.step()


def _twice(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    (criterion(net(x), y) + criterion(net(-x), y)).backward()
    opt.step()


def _freed(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    net.bias.requires_grad_(bool(opt.state))
    opt.zero_grad()
    criterion(net(x), y).backward()
    opt.step()


def _edited(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    criterion(net(x), y).backward()
    opt.step()
    with torch.no_grad():
        net.weight.clamp_(-0.01, 0.01)


def _closure(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    def closure() -> Any:
        opt.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        return loss

    opt.step(closure)


def _momentum_changed(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    criterion(net(x), y).backward()
    opt.step()
    opt.param_groups[0]["momentum"] = 0.5


def _swallowing(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    """An error raised in a hook would be lost here; a problem that is kept is not."""
    try:
        _closure(net, criterion, opt, x, y)
    except Exception:
        return


def _bfloat16(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
    opt.zero_grad()
    criterion(net(x.bfloat16()), y.bfloat16()).backward()
    opt.step()


def _stranger(model: Any) -> Any:
    return torch.optim.SGD([*model.parameters(), torch.nn.Parameter(torch.zeros(3))], lr=0.1)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_loop(body=lambda *_: None), "never stepped an optimizer"),
        (_loop(body=_accumulate), "at step 1, gradients of earlier steps are added up"),
        (_loop(body=_two_kinds), "at step 0, different losses are added up in one step"),
        (_loop(body=_scale_changes), "at step 1, another loss is taken than at step 0"),
        (_loop(body=_swallowing), "at step 0, optimizer.step() is given a closure"),
        (
            _loop(body=_penalty),
            "at step 0, the loss takes a tensor of shape () that is trained or was made of what is trained",
        ),
        (
            _loop(body=_freed, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)),
            "at step 1, bias is frozen or freed on the way",
        ),
        (_loop(body=_twice), "at step 0, one loss is taken of 2 calls of Linear"),
        (_loop(body=_edited), "at step 1, weight was changed since the last step, outside the optimizer"),
        (_loop(body=_closure), "optimizer.step() is given a closure"),
        (_loop(body=_momentum_changed), "the optimizer's momentum changes from 0 to 0.5"),
        (_loop(optimizer=_stranger), "the optimizer holds 1 parameter that no recorded module owns"),
        (
            _loop(model=lambda: torch.nn.Linear(2, 1).bfloat16(), body=_bfloat16),
            "there is a tensor of torch.bfloat16, which NumPy, and so a recording, has not",
        ),
    ],
)
def test_what_cannot_be_recorded_is_named(program: Callable[[], None], message: str) -> None:
    with pytest.raises((parity.UnsupportedError, parity.ProgramError)) as error:
        parity.record(program, graphs=False)
    assert message in str(error.value)
    assert str(error.value).startswith("program")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            _loop(model=lambda: torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1))),
            "the model is a torch.nn.modules.container.Sequential, which parity cannot port by itself",
        ),
        (_loop(loss_fn=torch.nn.L1Loss), "the loss is a torch.nn.modules.loss.L1Loss, which parity cannot port"),
        (
            _loop(optimizer=lambda model: torch.optim.Adam(model.parameters())),
            "the optimizer is a torch.optim.adam.Adam, which parity cannot port by itself; it ports torch.nn.Linear "
            "with torch.nn.MSELoss and torch.optim.SGD",
        ),
    ],
)
def test_what_cannot_be_ported_is_named(program: Callable[[], None], message: str) -> None:
    recording = parity.record(program, graphs=False)
    with pytest.raises(parity.UnsupportedError) as error:
        parity.port(recording)
    assert message in str(error.value)
    assert "--port FILE.py:NAME" in str(error.value)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_broadcasting_in_the_program_is_named() -> None:
    def body(net: Any, criterion: Any, opt: Any, x: Any, y: Any) -> None:
        opt.zero_grad()
        criterion(net(x), y.squeeze(1)).backward()
        opt.step()

    recording = parity.record(_loop(body=body))
    with pytest.raises(
        parity.UnsupportedError, match=r"broadcasts predictions \(6, 1\) against targets \(6,\) to \(6, 6\)"
    ):
        parity.port(recording)


def test_an_error_of_the_program_is_its_own(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("def inner():\n    raise ValueError('of theirs')\n\ninner()\n")
    with pytest.raises(parity.ProgramError, match=r"^broken raised ValueError") as error:
        parity.record(script)
    trace = error.value.program_traceback
    assert trace.startswith("Traceback")
    assert "of theirs" in trace
    assert trace.count('File "') == 2
    assert "parity" not in trace.replace(str(tmp_path), "")


@pytest.mark.parametrize(("code", "fails"), [("0", False), ("None", False), ("3", True), ("'no data'", True)])
def test_leaving_early(tmp_path: Path, code: str, fails: bool) -> None:
    script = tmp_path / "leaves.py"
    script.write_text(f"import sys\nsys.exit({code})\n")
    with pytest.raises(parity.ProgramError if fails else parity.UnsupportedError) as error:
        parity.record(script)
    assert ("exited with status" in str(error.value)) == fails
