"""The article's two programs: plain PyTorch scripts that run by themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class BuiltInProgram:
    """A program and what to call it.

    Attributes:
        name: what it is called on the command line and in files.
        title: what it is called in a report.
        path: the script.
        about: one line that says what it trains; empty for a program of a person's own.
        axes: what its input and its target are.
    """

    name: str
    title: str
    path: Path
    about: str
    axes: tuple[str, str] = ("input", "target")


_HERE = Path(__file__).parent

BUILT_IN = (
    BuiltInProgram(
        "line",
        "The fitted line",
        _HERE / "line.py",
        "Linear(1, 1) fitted to 100 noisy points of y = 2x, 1,000 steps",
        ("x", "y"),
    ),
    BuiltInProgram(
        "house_prices",
        "The house prices",
        _HERE / "house_prices.py",
        "price from living area, ten houses, 1,000 epochs, then the price of 2,000 square feet",
        ("living area (square feet)", "price (thousand dollars)"),
    ),
)
