"""Programs and ports drawn at random: judged as they run, or refused with one error of our own.

``HYPOTHESIS_PROFILE=thorough pytest --thorough tests/whole/test_fuzz_programs.py`` draws twenty times as many.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from parity import Recording
from parity.report.render import numbers
from tests.helpers.torch_programs import regression, small

pytestmark = pytest.mark.thorough

DATA = [
    "x = torch.randn(12, 3)",
    "x = torch.randn(12, 3, dtype=torch.float64).float()",
    "x = 1e4 * torch.randn(12, 3)",
    "x = 1e-20 * torch.randn(12, 3)",
    "x = torch.zeros(12, 3)",
    "x = torch.randn(12, 3); x[3, 1] = float('nan')",
    "x = torch.randn(12, 3); x[0, 0] = float('inf')",
    "x = torch.randn(1, 3)",
    "x = torch.randn(0, 3)",
    "x = torch.randn(3, 12).T",
    "x = torch.randn(12, 6)[:, ::2]",
    "x = torch.randint(-5, 5, (12, 3)).float()",
]
TARGETS = [
    "y = x.sum(1, keepdim=True)",
    "y = x @ torch.ones(3, 1) + 1",
    "y = x.sum(1)",
    "y = torch.full((len(x), 1), float('nan'))",
    "y = torch.zeros(len(x), 1)",
    "y = 1e20 * x[:, :1]",
]
MODELS = [
    "model = torch.nn.Linear(3, 1)",
    "model = torch.nn.Linear(3, 1, bias=False)",
    "model = torch.nn.Sequential(torch.nn.Linear(3, 1))",
    "model = torch.nn.Linear(3, 2)",
    "model = torch.nn.Linear(3, 1).double().float()",
    "model = torch.nn.Linear(3, 1); model.weight.requires_grad_(False)",
    "model = torch.nn.Linear(3, 1); model.weight.data.zero_()",
    "model = torch.nn.LazyLinear(1)",
    "model = torch.nn.Linear(4, 1)",
]
LOSSES = [
    "loss_fn = torch.nn.MSELoss()",
    "loss_fn = torch.nn.MSELoss(reduction='sum')",
    "loss_fn = torch.nn.MSELoss(reduction='none')",
    "loss_fn = torch.nn.L1Loss()",
    "loss_fn = lambda a, b: ((a - b) ** 2).mean()",
    "loss_fn = lambda a, b: ((a - b) ** 2).mean() + 0.1 * model.weight.pow(2).sum()",
    "loss_fn = lambda a, b: torch.nn.functional.mse_loss(a, b)",
]
OPTIMIZERS = [
    "optimizer = torch.optim.SGD(model.parameters(), lr=0.05)",
    "optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)",
    "optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.05))",
    "optimizer = torch.optim.SGD([{'params': [p], 'lr': 0.01} for p in model.parameters()], lr=1)",
    "optimizer = torch.optim.SGD(model.parameters(), lr=1e30)",
    "optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=True)",
    "optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)",
    "optimizer = torch.optim.Adam(model.parameters())",
]
BACKWARDS = ["loss.backward()", "loss.sum().backward()", "loss.backward(retain_graph=True)", "pass"]
BETWEEN = [
    *("", "print(loss)", "print(f'{float(loss):.3e}')", "print('\\u20ac \\x1b[1m')", "model.weight.data.clamp_(-1, 1)"),
    *("torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)", "optimizer.param_groups[0]['lr'] *= 0.5"),
    *("x = x.flip(0); y = y.flip(0)", "model.eval(); model(x); model.train()", "optimizer.zero_grad(); continue"),
    *("sys.stdout.write('no newline')", "del loss", "threading.Thread(target=print).start()", "os.chdir('/')"),
    *("torch.manual_seed(7)", "random.random()", "warnings.warn('careful')", "model = model.double()"),
]
ENDS = [
    *("", "sys.exit(0)", "sys.exit(3)", "raise ValueError('mine')", "os._exit(0)", "raise KeyboardInterrupt", "1 / 0"),
    *("print(model.state_dict())", "sys.stdout.close()", "print(model.weight, model.bias)", "del model, optimizer"),
]
PARTS = st.tuples(*map(st.sampled_from, (DATA, TARGETS, MODELS, LOSSES, OPTIMIZERS, BACKWARDS, BETWEEN, ENDS)))
PROGRAM = """
import os, random, sys, threading, warnings
import torch
torch.manual_seed(3)
{0}
{1}
{2}
{3}
{4}
for _ in range(3):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    {5}
    optimizer.step()
    {6}
{7}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@settings(max_examples=max(settings().max_examples // 5, 4))
@given(parts=PARTS)
def test_any_program_is_judged_as_it_runs_or_refused(folder: Path, parts: tuple[str, ...]) -> None:
    """Where it fails by itself it is not judged, and that is no fault of ours."""
    file = folder / "train.py"
    file.write_text(PROGRAM.format(*parts))
    run = [sys.executable, "-W", "ignore"]
    check = "import sys; from parity.cli import main; sys.exit(main(['check', '-q', '--json', *sys.argv[1:]]))"
    alone = subprocess.run([*run, str(file)], capture_output=True, cwd=folder)
    judged = subprocess.run([*run, "-c", check, "verdict.json", str(file)], capture_output=True, cwd=folder)
    told = judged.stderr.decode()
    verdict = folder / "verdict.json"
    try:
        assert judged.returncode in (0, 1, 2, 130), told
        assert "fault of parity" not in told, told
        if alone.returncode:
            assert judged.returncode in (2, 130), told
            assert not verdict.exists()
        elif judged.returncode == 2 and not verdict.exists():
            assert "parity: " in told
        elif judged.returncode == 2:  # it was run, and nothing finite was compared
            assert json.loads(verdict.read_text())["verdict"]["outcome"] == "not judged"
        else:
            assert json.loads(verdict.read_text())["verdict"]["ok"] == (judged.returncode == 0)
    finally:
        verdict.unlink(missing_ok=True)


def _ends() -> Any:
    sys.exit(0)


# Ways to change one of a port's functions or values, and whether the training stays what it was.
ODD: dict[str, tuple[Any, bool]] = {
    "as it is": (lambda right: right, True),
    "in float64": (lambda right: np.asarray(right, np.float64), True),
    "none": (lambda right: None, False),
    "text": (lambda right: "three", False),
    "a tuple": (lambda right: (right, right), False),
    "not a number": (lambda right: right * np.nan, False),
    "infinite": (lambda right: right + np.inf, False),
    "complex": (lambda right: right + 1j, False),
    "whole numbers": (lambda right: right.astype(int), False),
    "one more axis": (lambda right: right[None], False),
    "half of it": (lambda right: 0.5 * right, False),
    "nothing": (lambda right: right.reshape(-1)[:0], False),
    "raises": (lambda right: right["mine"]["yours"], False),
    "ends": (lambda right: _ends(), False),
    "leaves": (lambda right: os._exit(0), False),
    "a generator": (lambda right: (each for each in [right]), False),
    "an object": (lambda right: object(), False),
    "keys": (lambda right: jax.random.key(0), False),
}


@pytest.fixture(scope="module")
def recording() -> Recording:
    return parity.record(regression(small(2), optimizer={"momentum": 0.9}))


@pytest.mark.filterwarnings("ignore:Python iterable type:DeprecationWarning")  # JAX, of a generator in a tree
@settings(max_examples=max(settings().max_examples // 5, 4))
@given(
    where=st.sampled_from(["params", "apply", "loss", "optimizer", "build", "names", "batches"]),
    odd=st.sampled_from(list(ODD)),
)
def test_any_port_is_judged_or_refused(recording: Recording, where: str, odd: str) -> None:
    """Where it is another training, or none, it is never called the same."""
    change, same = ODD[odd]
    right = parity.port(recording)

    def build(recording: Recording) -> Any:
        if where == "params":
            return dataclasses.replace(right, params=jax.tree.map(change, right.params))
        if where == "apply":
            return dataclasses.replace(right, apply=lambda params, x: change(right.apply(params, x)))
        if where == "loss":
            return dataclasses.replace(right, loss=lambda predictions, y: change(right.loss(predictions, y)))
        if where == "optimizer":
            own = right.optimizer
            update = lambda *given: (jax.tree.map(change, own.update(*given)[0]), own.update(*given)[1])  # noqa: E731
            return dataclasses.replace(right, optimizer=optax.GradientTransformation(own.init, update))
        if where == "names":
            return dataclasses.replace(right, names={"weight": change(np.ones(2))})
        if where == "batches":
            batches = [(batch.inputs, batch.targets) for batch in recording.batches]
            return dataclasses.replace(right, batches=[(change(x), y) for x, y in batches])
        return change(np.ones(3)) if odd != "as it is" else right

    try:
        verdict = parity.check(recording, build)
    except parity.ParityError:
        assert odd != "as it is" or where == "names"
    else:
        assert not verdict.ok or same
        str(verdict)
        verdict.to_markdown()
        json.dumps(numbers.encode(verdict.to_dict()), allow_nan=False)
