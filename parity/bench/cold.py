"""Whole processes: a script from its start to its printed result, imports and compilation included."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jaxreg
from parity._errors import BenchError
from parity.bench import clock, same, workloads
from parity.programs import BUILT_IN

_OURS = Path(__file__).parent / "scripts" / "line.py"
# XLA's own cache of compiled programs, for programs as small as these.
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Start(NamedTuple):
    """One script.

    Attributes:
        name: what it is called in tables.
        printed: the weight that it prints.
        seconds: of each process.
        ratio: how many times as long it takes as jaxreg's, without a cache.
    """

    name: str
    printed: float
    seconds: tuple[float, ...]
    ratio: clock.Ratio


def starts(platform: str, *, repeats: int, say: Callable[[str], None]) -> list[Start]:
    """Time the fitted line's scripts, in turns.

    Args:
        platform: of the device that JAX is to use.
        repeats: how often each is started, after once to warm the disk and fill the cache.
        say: told of each turn.

    Raises:
        BenchError: a script fails, or they print different weights.
    """
    exact, bound = _exact()
    torch_line = next(program.path for program in BUILT_IN if program.name == "line")
    with tempfile.TemporaryDirectory() as folder:
        base = {**os.environ, "JAX_PLATFORMS": "cuda" if platform == "gpu" else platform}
        if base.pop("PYTHONDONTWRITEBYTECODE", ""):
            # Else what was installed with its bytecode would start sooner than what was not.
            base["PYTHONPYCACHEPREFIX"] = os.path.join(folder, "bytecode")
        cached = base | _CACHE | {"JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "programs")}
        ways = {
            "jaxreg": (_OURS, base),
            "jaxreg, compilation cached": (_OURS, cached),
            "PyTorch": (torch_line, base),
        }
        printed = {name: _weight(*way) for name, way in ways.items()}
        taken = clock.interleaved(
            {name: lambda way=way: _weight(*way) for name, way in ways.items()},  # type: ignore[misc]
            repeats=repeats,
            seconds=math.inf,
            say=say,
        )
    for name, weight in printed.items():
        if not abs(weight - exact) <= bound:
            raise BenchError(f"{name} prints the weight {weight}, float64 gives {exact}, and rounding explains {bound}")
    return [
        Start(name, printed[name], tuple(calls[0] for calls in turns), clock.ratio(turns, taken["jaxreg"]))
        for name, turns in taken.items()
    ]


def _exact() -> tuple[float, float]:
    """The weight in float64, from the scripts' seed, and how far float32 may be from it."""
    generator = jaxreg.torch_random.Generator(0)
    weight, bias = generator.linear(1, 1)
    assert bias is not None
    x = generator.randn(100, 1)
    y = 2 * x + generator.randn(100, 1)
    line = workloads.named(["line"])[0]
    found = same.expected(line, workloads.Data(x, y, weight, bias))
    return float(found.coefficients[0, 0]), float(found.bound[0, 0])


def _weight(script: Path, environment: dict[str, Any]) -> float:
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{script.name} fails: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1])
