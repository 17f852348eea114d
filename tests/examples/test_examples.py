"""Every example runs, without a warning, and says what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "epochs_and_memory.py": "10¹² epochs",
    "fit_a_line.py": "Estimated weight: 1.97",
    "line_without_torch.py": "1.974894",
    "house_prices.py": "A house of 2,000 square feet costs about 329 thousand dollars.",
    "minibatch_speed.py": "jaxreg.fit",
    "your_own_data.py": "Weights kept of every step: (300, 3, 2)",
}


def test_every_example_is_listed_here() -> None:
    # The TPU compiler is not in this environment; .ci/run makes one for it.
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "tpu_compile.py"}


def test_what_the_tpu_compiler_said_is_kept() -> None:
    kept = json.loads((EXAMPLES / "results" / "tpu_compile.json").read_text())
    assert {each["topology"].partition(":")[0] for each in kept} == {"v4", "v5e", "v5p", "v6e"}
    assert max(each["chips"] for each in kept) == 1024
    for topology in kept:
        programs = {each["program"]: each for each in topology["programs"]}
        assert len(programs) == 7, "two loops, one pass, one over batches, sweep, groups and replay"
        assert all(each["fits"] for each in programs.values())
        batches = programs["one pass over batches, on one"]
        assert batches["temporary_bytes"] < batches["argument_bytes"] / 2
        one = programs["one pass over the data"]
        # Nothing as large as the data is copied: there are blocks of rows, and the small matrices of all devices.
        matrices = topology["devices"] * 66 * 128 * 8
        assert one["temporary_bytes"] < 0.12 * one["argument_bytes"] + matrices


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str) -> None:
    # Compiled as people do: an example may say what it measured.
    environment = {**os.environ, "XLA_FLAGS": ""}
    words = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert done.stderr == ""
