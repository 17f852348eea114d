"""Every example runs, without a warning, and says what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "fit_a_line.py": "Estimated weight: 1.97",
    "line_without_torch.py": "1.974894",
    "house_prices.py": "A house of 2,000 square feet costs about 329 thousand dollars.",
    "minibatch_speed.py": "jaxreg.fit",
    "your_own_data.py": "Weights kept of every step: (300, 3, 2)",
}


def test_every_example_is_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert done.stderr == ""
