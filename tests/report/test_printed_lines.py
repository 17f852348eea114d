"""Printed lines on the JAX side: which number is which, in whatever way it was read and written."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parity
from parity.recording import trees
from parity.recording.program_output import NUMBER, Number, PrintedLine
from parity.report import printed_lines
from parity.report.printed_lines import LinePair, counterpart, written

TORCH, JAX = np.float32(1.9748942), np.float32(1.9748940)


@pytest.mark.parametrize(
    ("text", "style", "expected"),
    [
        ("1.9748941659927368", "repr", repr(float(JAX))),
        ("1.9749", ".4f", "1.9749"),
        ("1.974894", ".6f", "1.974894"),
        ("1.9748942", "", "1.9748940"),
        ("1.9748942", "numpy", "1.974894"),
        ("+1.97", "+.2f", "+1.97"),
        ("1.975e+00", ".3e", "1.975e+00"),
        ("1.9749", "round", "1.9749"),
        ("197.489417", ".6%", "197.489405"),
        ("1.9750", ".4f", None),
        ("1.97489", "repr", None),
        ("2.5", ".1f", None),
    ],
)
def test_styles(text: str, style: str, expected: str | None) -> None:
    assert counterpart(text, style, TORCH, JAX) == expected


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([".0f", ".4f", ".3e", "g", ".3%", "repr", "numpy"]),
)
def test_any_number_is_itself_and_no_other(value: float, style: str) -> None:
    number = np.float32(value)
    text = str(number) if style == "numpy" else written("", style, number)
    assert counterpart(text, style, number, number) == text
    other = np.float32(2 * value + 1)
    expected = counterpart(text, style, number, other)
    assert expected == (str(other) if style == "numpy" else written(text, style, other))


def test_what_differs_in_digits_that_were_not_needed_is_shown() -> None:
    """0.5 is printed as such by ``item()``; JAX's 0.50000006 has one decimal in common with it."""
    assert counterpart("0.5", "repr", np.float32(0.5), np.float32(0.50000006)) == "0.5000000596046448"
    assert counterpart("0.5", "numpy", np.float32(0.5), np.float32(0.50000006)) == "0.50000006"
    assert counterpart("1.", "", np.float32(1), np.float32(1.25)) == "1.2500"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Epoch [3/10], 100 rows", []),
        ("('0.weight', tensor([1., -2.5e-05]))", ["1.", "-2.5e-05"]),
        ("0.5s nan inf 1e-05 10. .5", ["0.5", "nan", "inf", "1e-05", "10.", ".5"]),
        ("layers.0.bias 1.e+02", ["1.e+02"]),
    ],
)
def test_numbers_are_found(text: str, numbers: list[str]) -> None:
    assert [match.group() for match in NUMBER.finditer(text)] == numbers


# A line that begins with "?" has a number of unknown origin, one with "=" none of the training's.
PROGRAM = """
import statistics, sys, time
import numpy as np
import torch

torch.manual_seed(0)
x = torch.randn(20, 3)
y = x.sum(1, keepdim=True)
model = torch.nn.Sequential(torch.nn.Linear(3, 1))
layer = model[0]
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
print("start", layer.weight, layer.bias.item())
losses = []
best = float("inf")
def report(name, value):
    print(f"{name}: {value:.4f}")
for epoch in range(2):
    total = plain = 0.0
    for rows, targets in zip(x.split(8), y.split(8)):
        optimizer.zero_grad()
        raw = torch.nn.functional.mse_loss(model(rows), targets)
        loss = raw * 0.5
        print("before", loss.item(), f"{raw.item():.3f}")
        loss.backward()
        print("gradient", layer.weight.grad)
        optimizer.step()
        total += loss.item() * len(rows)
        plain += loss.item()
        losses.append(loss.item())
        best = min(best, losses[-1])
        print(f"after {loss:.4f} {loss.item():.2e} {loss.detach().item():g} {raw} {losses[-1]:8.3f}|{loss.item():.1%}")
    mean = total / len(x)
    print(f"weighted {total / len(x):.3f} {mean:.6f} {plain / 3} sum {plain:.2f}")
    print("all so far", np.mean(losses), statistics.fmean(losses), sum(losses) / len(losses))
    print("Epoch {}: {:.4f} {m:.2f}".format(epoch, mean, m=plain / 3), "and %.3f%%, %d" % (100 * losses[-1], epoch))
    print("round " + str(round(loss.item(), 3)) + " best " + repr(best), -loss.item())
    report("in a function", losses[-1])
    print("lr", end=" ")
    print("no", loss.item(), sep="=")
    sys.stdout.write(f"direct {loss.item():.3f}\\n")
print(model.state_dict())
print(list(model.parameters()))
print(layer.weight.tolist(), layer.bias.detach().numpy(), layer.weight[0, 1].item(), layer.weight.data[0])
weight = layer.weight.detach().numpy()
print("array", weight, weight[0, 1], f"{weight[0][2]}", weight[0])
with torch.no_grad():
    out = model(x[:2])
    print("prediction", out.squeeze(), out[0].item(), f"{model(x[:1]).item()}", model(x[:1]).numpy(), out.view(-1)[1])
print(losses)
print("? took", time.time() - 1.5)
print("?", x.mean().item())
print(f"? a loss {losses[-1]:.3f} beside the time {time.time():.1f}")
print(f"? copy {losses[-1] + 0.25:.3f}")
print(f"?{loss.item() ** 0.5:.4f}")
print(f"= of its own: {0.25} and {epoch} 0.5")
message = f"? made before {loss.item():.3f}"
print(message)
"""


TRAINER = """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(40, 3)
y = x.sum(1, keepdim=True)


class Meter:
    def __init__(self):
        self.sum, self.count, self.avg = 0.0, 0, 0.0

    def update(self, value, n):
        self.sum += value * n
        self.count += n
        self.avg = self.sum / self.count


class Trainer:
    def __init__(self):
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.loader = DataLoader(TensorDataset(x, y), batch_size=8)
        self.history = []

    def epoch(self, number):
        meter, running = Meter(), 0.0
        for i, (rows, targets) in enumerate(self.loader):
            loss = torch.nn.functional.mse_loss(self.model(rows), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            meter.update(loss.item(), rows.size(0))
            running += loss.item()
            self.history.append(loss.item())
            if i % 2 == 1:
                print(f"[{number + 1}, {i + 1:5d}] loss: {running / 2:.3f}")
                running = 0.0
            if i == 0:
                print(f"loss: {loss.item():>7f}  [{(i + 1) * len(rows):>5d}/{len(self.loader.dataset):>5d}]")
        print(f"Epoch {number} {meter.avg:.5f} {meter.sum / meter.count:.4f} last {self.history[-1]:.3f}")
        print("Epoch: {} ({:.0f}%)\\tLoss: {:.6f}".format(number, 100.0 * i / len(self.loader), loss.item()))
        print("? validation", torch.nn.functional.mse_loss(self.model(x), y).item())
        return meter.avg


trainer = Trainer()
for number in range(2):
    average = trainer.epoch(number)
    print("returned", average, f"{average=:.4f}")
    print(f"of the last five {sum(trainer.history[-5:]) / 5:.4f}")
print(dict(trainer.model.named_parameters()))
for name, parameter in trainer.model.named_parameters():
    print(name, parameter.data)
weight, bias = trainer.model.parameters()
print(f"y = {weight[0][0].item():.2f}x + {bias.item():.2f}", weight[0, 1].item())
print("Result: y = %.3f + %8.3f x" % (bias.item(), weight[0, 0].item()))
print("=", trainer.model)
"""


@pytest.fixture(scope="module", params=[PROGRAM, TRAINER])
def doubled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[LinePair]:
    """The lines of a program above, with a JAX side whose every number is twice PyTorch's."""
    path: Path = tmp_path_factory.mktemp("printed") / "train.py"
    path.write_text(request.param)
    return list(_doubled(parity.record(path)))


def _doubled(recording: parity.Recording) -> tuple[LinePair, ...]:
    observed = recording.observed

    def twice(tree: Any) -> Any:
        return trees.mapped(lambda array: 2 * array, tree)

    free = dataclasses.replace(
        observed,
        losses=2 * observed.losses,
        predictions=tuple(map(twice, observed.predictions)),
        **{name: twice(dict(getattr(observed, name))) for name in ("weights", "gradients", "buffers")},
    )
    replay: Any = types.SimpleNamespace(
        free=free,
        initial=twice(dict(recording.initial)),
        initial_buffers={},
        evaluations=tuple(twice(one.outputs) for one in recording.evaluations),
    )
    return printed_lines.side_by_side(recording, replay)


def _unit(text: str) -> float:
    """What the last printed digit counts."""
    mantissa, _, exponent = text.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


def test_every_number_is_known_by_where_it_came_from(doubled: list[LinePair]) -> None:
    assert len(doubled) > 20
    for line in doubled:
        if line.torch.startswith("?"):
            assert line.jax is None, line
            continue
        assert line.jax is not None, line
        times = 1 if line.torch.startswith("=") else 2
        numbers = [[match.group() for match in NUMBER.finditer(text)] for text in (line.torch, line.jax)]
        assert len(numbers[0]) == len(numbers[1])
        for torch, jax in zip(*numbers, strict=True):
            assert abs(float(jax) - times * float(torch)) <= 1.5 * max(_unit(torch), _unit(jax)) + 1e-12, line


CHANCE = """
import torch

torch.manual_seed(0)
x = torch.randn(40, 3)
y = x @ torch.tensor([[1.0], [2.0], [3.0]]) + 0.03 * torch.randn(40, 1)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(12):
    total = 0.0
    for rows, targets in zip(x.split(10), y.split(10)):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(rows), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch} mean loss {total / 4:.3f}")
    nearly = round(loss.item(), 3) + 0.0
    print(f"{nearly:.3f}")
"""


def test_a_mean_is_the_mean_of_its_own_losses_and_nothing_is_matched_by_chance(tmp_path: Path) -> None:
    """At three decimals, an epoch's mean soon looks like a batch's loss; so does another number."""
    (tmp_path / "train.py").write_text(CHANCE)
    recording = parity.record(tmp_path / "train.py")
    means, others = recording.printed[::2], recording.printed[1::2]
    sources = [line.numbers[0].source for line in means]
    assert [(s.first, s.last, s.divisor) for s in sources if s] == [(4 * n, 4 * n + 3, 4.0) for n in range(12)]
    assert not any(line.numbers for line in others)
    assert {line.jax for line in _doubled(recording)[1::2]} == {None}
    cut = recording.first(10)
    assert [line.step for line in cut.printed] == [4, 4, 8, 8]


def test_a_line_of_unknown_origin_is_said_to_be_no_more() -> None:
    recording: Any = types.SimpleNamespace(printed=(PrintedLine("took 12.75 seconds", 1), PrintedLine("done", 1)))
    lines = printed_lines.side_by_side(recording, types.SimpleNamespace())  # type: ignore[arg-type]
    assert [line.same for line in lines] == [None, True]
    known = dataclasses.replace(recording.printed[0], numbers=(Number(5, 10, None),))
    recording.printed = (known,)
    assert printed_lines.side_by_side(recording, types.SimpleNamespace())[0].same  # type: ignore[arg-type]


def test_a_recording_is_not_larger_for_all_that_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.capture.output_origins._MOST", 3)
    (tmp_path / "train.py").write_text(CHANCE)
    recording = parity.record(tmp_path / "train.py")
    assert sum(len(line.numbers) for line in recording.printed) == 3
    recording.save(tmp_path / "run.npz")
    assert parity.Recording.load(tmp_path / "run.npz").printed == recording.printed


# A million characters in one write, in a hundred thousand, and in as many lines of one write.
MUCH = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss = model(torch.ones(4, 2)).square().mean()
loss.backward()
optimizer.step()
print("0.12345 " * 125_000)
for _ in range(100_000):
    print("0.12345", end="   ")
print()
print("0.12345\\n" * 125_000)
print(f"loss {loss.item():.4f}")
"""


@pytest.mark.thorough
def test_much_that_is_printed_takes_no_more_time_than_it_is_long(tmp_path: Path) -> None:
    """It took the square of that: all was put together anew with each piece, and looked through for each number."""
    (tmp_path / "train.py").write_text(MUCH)
    recording = parity.record(tmp_path / "train.py")
    assert [len(line.text) for line in recording.printed[:2]] == [1_000_000, 1_000_000]
    assert len(recording.printed) == 3 + 125_001
    lines = _doubled(recording)
    assert {line.jax for line in lines[:-1] if line.torch} == {None}
    assert _unit(recording.printed[-1].text)
    assert lines[-1].jax != lines[-1].torch
