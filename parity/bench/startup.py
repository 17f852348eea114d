"""Whole processes: a script from its start to its printed result, imports and compilation included."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxreg
from parity._errors import BenchError
from parity.bench import correctness, disturbance, timing, workloads
from parity.programs import BUILT_IN

_JAXREG_SCRIPT = Path(__file__).parent / "scripts" / "line.py"
_CACHE_VARIABLES = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"}
# XLA's own cache of compiled programs, for programs as small as these.
_SMALL_PROGRAM_CACHE = {
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
        memory: bytes that the process has resident at most; ``None`` where the system does not tell.
    """

    name: str
    printed: float
    seconds: tuple[float, ...]
    ratio: timing.Ratio
    memory: int | None


def starts(device: jax.Device, *, repeats: int, say: Callable[[str], None]) -> tuple[list[Start], disturbance.Attempts]:
    """Time the fitted line's scripts, in turns; PyTorch's only where PyTorch is installed.

    Args:
        device: the one that JAX is to use.
        repeats: how often each is started, after once to warm the disk, fill the cache and measure memory.
        say: told of each turn.

    Raises:
        BenchError: a script fails, or a weight that one prints is not float64's within rounding.
    """
    exact, bound = _exact()
    with tempfile.TemporaryDirectory() as folder:
        base = _environment(device.platform, folder)
        cached = base | _SMALL_PROGRAM_CACHE | {"JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "programs")}
        scripts = _scripts(base, cached)
        _weight(_JAXREG_SCRIPT, cached)  # fills the cache
        first = {name: _measured(*each) for name, each in scripts.items()}
        watch = _Checked(exact, bound)
        for name, (weight, _) in first.items():
            watch.after_turn(name, [weight])

        def once() -> timing.Run:
            ways = {name: functools.partial(_weight, *each) for name, each in scripts.items()}
            return timing.interleaved(ways, repeats=repeats, seconds=math.inf, watch=watch, say=say)

        watch.reference = disturbance.reference(device)
        run, attempts = disturbance.settled(once, say, disturbance.cores())
    base_turns = run.ways["jaxreg"].turns
    return [
        Start(
            name,
            first[name][0],
            tuple(calls[0] for calls in times.turns),
            timing.ratio(times.turns, base_turns),
            first[name][1],
        )
        for name, times in run.ways.items()
    ], attempts


def _scripts(base: dict[str, str], cached: dict[str, str]) -> dict[str, tuple[Path, dict[str, str]]]:
    """Return what is started, by name, with its variables; PyTorch's only where it is installed."""
    found = {"jaxreg": (_JAXREG_SCRIPT, base), "jaxreg, compilation cached": (_JAXREG_SCRIPT, cached)}
    if importlib.util.find_spec("torch"):
        found["PyTorch"] = (next(program.path for program in BUILT_IN if program.name == "line"), base)
    return found


class _Checked(timing.Watch):
    """Holds every weight that is printed to float64's."""

    def __init__(self, exact: float, bound: float) -> None:
        self._exact, self._bound = exact, bound

    def after_turn(self, name: str, results: list[Any]) -> None:
        for weight in results:
            if not abs(weight - self._exact) <= self._bound:
                raise BenchError(
                    f"{name} prints the weight {weight}, float64 gives {self._exact}, and rounding explains "
                    f"{self._bound}"
                )


def _environment(platform: str, folder: str) -> dict[str, str]:
    """Return the variables of a script's process: JAX's device, and no other compilation cache."""
    found = {name: value for name, value in os.environ.items() if name not in _CACHE_VARIABLES}
    found["JAX_PLATFORMS"] = "cuda" if platform == "gpu" else platform
    if found.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Else what was installed with its bytecode would start sooner than what was not.
        found["PYTHONPYCACHEPREFIX"] = os.path.join(folder, "bytecode")
    return found


def _exact() -> tuple[float, float]:
    """Return the weight in float64, from the scripts' seed, and how far float32 may be from it."""
    generator = jaxreg.torch_random.Generator(0)
    weight, bias = generator.linear(1, 1)
    assert bias is not None
    x = generator.randn(100, 1)
    y = 2 * x + generator.randn(100, 1)
    line = workloads.named(["line"])[0]
    found = correctness.expected(line, workloads.Data(x, y, weight, bias))
    return float(found.coefficients[0, 0]), float(found.bound[0, 0])


# Run by a small process of its own: the system's count begins with what the process that starts another one has.
_MEASURING_SCRIPT = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("\\n", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def _measured(script: Path, environment: dict[str, str]) -> tuple[float, int | None]:
    """Return the weight that a script prints, and the most bytes that its process has resident."""
    if not importlib.util.find_spec("resource"):
        return _weight(script, environment), None
    done = _run([sys.executable, "-S", "-c", _MEASURING_SCRIPT, sys.executable, str(script)], script, environment)
    unit = 1 if sys.platform == "darwin" else 1024
    return _printed(script, done.stdout), int(done.stderr.split()[-1]) * unit


def _weight(script: Path, environment: dict[str, str]) -> float:
    return _printed(script, _run([sys.executable, str(script)], script, environment).stdout)


def _run(command: list[str], script: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.strip().isdecimal()]
        raise BenchError(
            f"{script} fails with exit code {done.returncode}: {lines[-1] if lines else 'it says nothing'}"
        )
    return done


def _printed(script: Path, output: str) -> float:
    try:
        return float(output.split()[-1])
    except (IndexError, ValueError):
        raise BenchError(f"{script} should print the weight at its end, and prints {output.strip()[-80:]!r}") from None
