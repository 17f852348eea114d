"""Ten programs of different style: recorded and ported with no help, and parity holds on all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from tests.helpers.strategies import Training, trainings

FOLDER = Path(__file__).parent.parent.parent / "examples" / "recordable"
PROGRAMS = sorted(FOLDER.glob("*.py"))
SEEN: dict[str, Callable[[parity.Recording], bool]] = {
    "accumulation": lambda r: r.batches[0].parts == (16,) * 4 and r.loss.settings["scale"] == 0.25,
    "data_loader": lambda r: len({b.inputs.shape for b in r.batches}) == 2 and r.steps == 40,
    "functional_loss": lambda r: r.loss.settings == {"reduction": "mean"} and r.is_plain,
    "loss_by_hand": lambda r: r.loss.settings == {"reduction": "mean"} and r.is_plain,
    "many_outputs": lambda r: r.frozen == ("bias",) and r.loss.settings["scale"] == -1.0,
    "module_subclass": lambda r: r.observed.predictions[0].shape == (60,) and str(r.model).startswith("Linear("),
    "parameter_groups": lambda r: r.rules["weight"]["weight_decay"] == 0.01 and r.learning_rates["bias"][0] == 0.2,
    "scheduler": lambda r: r.learning_rate is None and r.steps == 50,
    "sequential": lambda r: r.loss.settings == {"reduction": "sum", "scale": 0.5} and r.batches[0].inputs.ndim == 2,
    "without_bias": lambda r: r.dtype == "float64" and len(r.evaluations) == 70,
}


@pytest.mark.cases(5)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_program(path: Path) -> None:
    verdict = parity.check(path)
    assert verdict.ok, str(verdict)
    assert SEEN[path.stem](verdict.recording)
    assert all(line.same is not None for line in verdict.printed)
    compile(verdict.jax_code, verdict.jax_file, "exec")


def test_there_are_ten() -> None:
    assert [path.stem for path in PROGRAMS] == sorted(SEEN)
    assert len(PROGRAMS) == 10


def _styled(training: Training, options: dict[str, Any]) -> Callable[[], None]:
    """A training whose style is drawn: how the loss is written, how it is wrapped, batches, groups, schedules."""

    def losses(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        match options["loss"]:
            case "module":
                return torch.nn.MSELoss()(predictions, targets)
            case "functional":
                return torch.nn.functional.mse_loss(predictions, targets)
            case "written":
                return (targets - predictions).pow(2).mean()
        difference = predictions - targets
        return (difference * difference).sum() / targets.numel()

    def program() -> None:
        torch.manual_seed(training.seed)
        x, y = (torch.from_numpy(array) for array in training.data())
        model: torch.nn.Module = torch.nn.Linear(training.inputs, training.outputs, bias=training.bias)
        groups: list[dict[str, Any]] = [{"params": [parameter]} for parameter in model.parameters()]
        if options["groups"] and training.bias:
            groups[1] |= {"lr": 0.5 * training.learning_rate(), "weight_decay": 0.01}
        optimizer = torch.optim.SGD(groups, lr=training.learning_rate(), momentum=options["momentum"])
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5 if options["schedule"] else 1.0)
        model = torch.nn.Sequential(model) if options["wrapped"] else model
        for _ in range(training.steps):
            optimizer.zero_grad()
            size = -(-training.rows // options["passes"])
            for inputs, targets in zip(x.split(size), y.split(size), strict=True):
                losses(model(inputs), targets).backward()
            optimizer.step()
            scheduler.step()

    return program


@pytest.mark.thorough
@given(
    trainings(),
    st.fixed_dictionaries(
        {
            "loss": st.sampled_from(["module", "functional", "written", "by parts"]),
            "wrapped": st.booleans(),
            "groups": st.booleans(),
            "schedule": st.booleans(),
            "momentum": st.sampled_from([0.0, 0.8]),
            "passes": st.sampled_from([1, 1, 3]),
        }
    ),
)
@settings(max_examples=60)
def test_no_alarm_in_any_style(training: Training, options: dict[str, Any]) -> None:
    verdict = parity.check(_styled(training, options))
    assert verdict.ok, f"{verdict.headline}\n{verdict.first_divergence}"
