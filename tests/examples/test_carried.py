"""Programs from PyTorch's and Flax's documentation, carried by hand, are judged rightly; so are ports that differ."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import parity

CARRIED = Path(__file__).parents[2] / "examples" / "carried"
# Each program with what recording it needs.
PROGRAMS: dict[str, Any] = {
    "blitz_cifar": {},
    "flax_mlp": {"dropout": False},
    "flax_mnist": {},
    "language_model": {},
    "mnist_cnn": {},
    "polynomial": {},
    "quickstart": {},
    "tagger": {},
}


def _judge(name: str, builder: str, monkeypatch: pytest.MonkeyPatch) -> parity.Verdict:
    """The program and its port; the ports are written as people write them, and mix dtypes and ranks."""
    monkeypatch.setattr(sys, "path", [str(CARRIED), *sys.path])
    build = runpy.run_path(str(CARRIED / f"{name}_port.py"))[builder]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return parity.check(CARRIED / f"{name}.py", build, **PROGRAMS[name])


def test_every_program_is_listed_here() -> None:
    assert {path.stem for path in CARRIED.glob("*.py") if not path.stem.endswith("_port")} == set(PROGRAMS)


@pytest.mark.parametrize(
    "name",
    # Of the deep ones, whose rounding takes minutes to follow, one is enough to see that the way through is open.
    [n if n in ("flax_mlp", "polynomial") else pytest.param(n, marks=pytest.mark.thorough) for n in PROGRAMS],
)
def test_a_program_carried_by_hand_is_the_same_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = _judge(name, "build", monkeypatch)
    assert verdict.ok, str(verdict)


@pytest.mark.parametrize(
    ("name", "builder", "stage", "cause"),
    [
        ("flax_mnist", "as_documented", "model state", "BatchNorm biased variance"),
        ("polynomial", "with_epsilon_inside", "update", "epsilon inside the root"),
    ],
)
def test_a_port_that_follows_another_librarys_habit_is_told_why(
    name: str, builder: str, stage: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = _judge(name, builder, monkeypatch)
    assert verdict.first_divergence is not None
    assert (verdict.first_divergence.stage, verdict.first_divergence.step) == (stage, 0)
    assert [found.name for found in verdict.causes] == [cause]
