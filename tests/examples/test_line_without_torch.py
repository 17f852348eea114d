"""The example that trains the article's line from the seed alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "line_without_torch.py"

# What `parity/programs/line.py` prints.
PRINTED = 1.9748941659927368


def test_it_is_pytorchs_run_where_pytorch_cannot_be_imported() -> None:
    program = """
import runpy, sys
sys.modules["torch"] = None
names = runpy.run_path(sys.argv[1])
model = names["model"]
print(*(array.tobytes().hex() for array in (model.kernel[...], model.bias[...], names["x"], names["y"])))
"""
    done = subprocess.run([sys.executable, "-c", program, EXAMPLE], capture_output=True, text=True, check=True)
    printed, drawn = done.stdout.strip().splitlines()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Linear(1, 1)
        x = torch.randn(100, 1)
        y = 2 * x + torch.randn(100, 1)
    theirs = (model.weight, model.bias, x, y)
    assert drawn.split() == [tensor.detach().numpy().tobytes().hex() for tensor in theirs]
    label, value = printed.split(": ")
    assert label == "Estimated weight"
    # Six significant digits, and one more.
    assert float(value) == pytest.approx(PRINTED, rel=1e-7)
