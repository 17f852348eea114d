"""What is refused is refused for its true reason, and what parity said to be wrong is right."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
import torch

import parity
from parity import cli
from parity.replay import replay
from parity.replay.session import Session
from tests.helpers.torch_programs import regression, small

F = torch.nn.functional
X = torch.linspace(-1, 1, 24).reshape(8, 3)
Y = X.sum(1, keepdim=True)


def train(
    model: Any,
    value: Callable[[Any], Any] | None = None,
    change: Callable[[Any], None] = lambda model: None,
    steps: int = 2,
) -> Callable[[], None]:
    """A program: ``model`` makes the model, ``value`` its loss, ``change`` what is done before each step."""

    def program() -> None:
        torch.manual_seed(0)
        made = model()
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            (value or (lambda model: F.mse_loss(model(X), Y)))(made).backward()
            change(made)
            optimizer.step()

    return program


def linear() -> torch.nn.Module:
    return torch.nn.Linear(3, 1)


def halved(model: Any) -> None:
    model.weight.grad *= 0.5


def replaced(model: Any) -> None:
    model.weight.grad = model.weight.grad.clone()


def plain_tensors() -> None:
    w = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    F.mse_loss(X @ w, Y).backward()
    optimizer.step()


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def never_stepped() -> None:
    F.mse_loss(linear()(X), Y).backward()


def backward_elsewhere() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    in_a_thread(F.mse_loss(model(X), Y).backward)
    optimizer.step()


def patched_backward() -> None:
    own = torch.Tensor.backward
    torch.Tensor.backward = lambda self, *given, **named: own(self, *given, **named)  # type: ignore[method-assign]
    try:
        train(linear)()
    finally:
        torch.Tensor.backward = own  # type: ignore[method-assign]


REFUSED = {
    "a training in a thread": (lambda: in_a_thread(train(linear)), "the training runs in a thread of its own"),
    "backward in a thread": (backward_elsewhere, r"there are gradients, and no backward\(\) that parity saw"),
    "no step": (never_stepped, r"never stepped an optimizer\. It calls backward\(\), .* where it changes the weights"),
    "forward called directly": (
        train(linear, lambda model: F.mse_loss(model.forward(X), Y)),
        r"no module's output: parity records modules that are called, as model\(x\), and neither model\.forward",
    ),
    "plain tensors": (plain_tensors, r"no module's output: .* nor plain tensors"),
    "a penalty on weights": (
        train(linear, lambda model: F.mse_loss(model(X), Y) + model.weight.square().sum()),
        "beside the model's output.* a penalty on squared weights can be the optimizer's weight_decay",
    ),
    "weights made in the training": (
        train(lambda: torch.nn.LazyLinear(1)),
        "weights are made in its first call.* Call the model once on an input before the training",
    ),
    "a gradient changed in place": (
        train(linear, change=halved),
        r"the gradient of weight is changed between backward\(\) and optimizer\.step\(\)",
    ),
    "a scripted module": (
        train(lambda: torch.jit.script(torch.nn.Linear(3, 1))),
        "the model is a scripted module.* Train the module that torch.jit.script",
    ),
    "a gradient put in its place": (train(linear, change=replaced), "the gradient of weight is changed between"),
}


def test_a_function_in_the_place_of_backward_changes_nothing() -> None:
    assert parity.record(patched_backward).steps == 2


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_reason_is_the_true_one(what: str) -> None:
    program, reason = REFUSED[what]
    with pytest.raises(parity.UnsupportedError, match=reason):
        parity.record(program, graphs=False)


def hooked() -> torch.nn.Module:
    model = linear()
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


NOT_PORTED = {
    "a hook that changes predictions": (
        train(hooked),
        r"the loss is a loss of its own \(mul\(predictions, 2\) then .*hangs a forward hook on its model: what",
    ),
    "a loss of one's own": (
        train(linear, lambda model: F.mse_loss(model(X), Y).sqrt()),
        r"the loss is a loss of its own \(mse_loss\(.*\) then sqrt\(made0\)\), which parity cannot port by itself",
    ),
    "another loss, of a module that holds one layer": (
        train(lambda: torch.nn.Sequential(torch.nn.Linear(3, 1)), lambda model: F.l1_loss(model(X), Y)),
        "the loss is a torch.nn.functional.l1_loss, which",
    ),
}


@pytest.mark.parametrize("what", NOT_PORTED)
def test_what_cannot_be_ported_is_named(what: str) -> None:
    program, reason = NOT_PORTED[what]
    recording = parity.record(program, graphs=False)
    with pytest.raises(parity.UnsupportedError, match=reason):
        parity.port(recording)


def test_a_model_called_by_keyword_is_judged() -> None:
    assert parity.check(train(linear, lambda model: F.mse_loss(model(input=X), Y))).ok


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("inputs", "targets", "reason"),
    [
        (X, Y.masked_fill(Y > 1, math.inf), "The targets of that step hold inf or NaN. Look at the data."),
        (X.masked_fill(X > 0.9, math.nan), Y, "The inputs of that step hold inf or NaN. Look at the data."),
        (X, 1e30 * Y, "The loss is not finite at the first step already"),
    ],
)
def test_what_is_not_finite_is_told_with_its_reason(inputs: Any, targets: Any, reason: str) -> None:
    verdict = parity.check(train(linear, lambda model: F.mse_loss(model(inputs), targets), steps=1))
    assert reason in verdict.sentences[-1] or any(reason in sentence for sentence in verdict.sentences)
    assert not any("smaller learning rate" in sentence for sentence in verdict.sentences)
    if verdict.ok:
        assert not verdict.causes


PROGRAM = """
import os, torch
torch.manual_seed(0)
x = torch.linspace(-1, 1, 8).reshape(8, 1)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(x), 2 * x).backward()
    optimizer.step()
os.system("echo hello from a child")
os.write(1, b"raw bytes\\n")
os.chdir(os.environ["ELSEWHERE"])
"""


@pytest.mark.thorough
def test_json_has_a_stream_of_its_own_and_files_are_where_they_were_asked_for(tmp_path: Path) -> None:
    """And a line is there within a second of what loading alone takes."""
    (tmp_path / "train.py").write_text(PROGRAM)
    (tmp_path / "elsewhere").mkdir()
    words = [sys.executable, "-m", "parity", "check", "train.py", "--json", "-", "--markdown", "told.md"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env=_environment(ELSEWHERE=str(tmp_path / "elsewhere"))
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"]["ok"]
    assert "hello from a child" in done.stderr
    assert done.stderr.startswith("parity: loading PyTorch and JAX\n")
    assert (tmp_path / "told.md").is_file()
    assert not list((tmp_path / "elsewhere").iterdir())


def _environment(**more: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(parity.__file__).parent.parent), **more}


def test_the_first_line_comes_before_anything_heavy_is_loaded() -> None:
    code = (
        "import sys, parity.cli as cli\n"
        "heavy = {'torch', 'jax', 'flax', 'scipy', 'rich', 'altair'}\n"
        "class Seen(Exception): pass\n"
        "class Stream:\n"
        "    def write(self, text):\n"
        "        assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "        raise Seen(text)\n"
        "    def flush(self): pass\n"
        "sys.stderr = Stream()\n"
        "try: cli.main(['check', 'x.py'])\n"
        "except Seen as seen: print(seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.stdout.startswith("parity: loading"), done.stderr


def test_a_recording_is_judged_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parity.record(train(linear)).save(tmp_path / "run.npz")
    assert cli.main(["check", str(tmp_path / "run.npz"), "-q"]) == 0
    assert "Parity holds" in capsys.readouterr().out


def test_a_fault_of_our_own_is_not_the_programs_nor_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hook raises while the program runs, and what the replay itself raises."""
    recording = parity.record(regression(small()))

    def wrong(*_: object, **__: object) -> None:
        raise KeyError("of ours")

    with monkeypatch.context() as patch:
        patch.setattr("parity.capture.module_calls.taken", wrong)
        with pytest.raises(parity.UnsupportedError, match="cannot be followed while it is recorded"):
            parity.record(regression(small()))
    with monkeypatch.context() as patch:
        patch.setattr("parity.replay.session.batches.numbers", None)
        with pytest.raises(TypeError, match="not callable"):
            parity.check(recording)
    # What JAX refuses of the port, with no line of the port's on the way.
    session = Session.of(parity.port(recording), recording)
    with pytest.raises(parity.PortError, match=r"the port fails when it is run.*not supported"):
        replay.locked_run(session, precision="TF32_TF32_F32", device=jax.devices("cpu")[0])
    # The same, raised by the port's own code.
    port = dataclasses.replace(parity.port(recording), loss=wrong)
    with pytest.raises(parity.PortError, match=r"the port fails when it is run.*of ours"):
        parity.check(recording, port)
