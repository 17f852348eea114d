"""The machine and the libraries that a benchmark ran on, as a plain document."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

from parity.report.render.numbers import JsonDict

_LOG = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
# Variables that change what is timed. A compilation cache makes a first training quick that was compiled before.
_FLAG_VARIABLES = ("XLA_FLAGS", "OMP_NUM_THREADS", "JAX_COMPILATION_CACHE_DIR")


def environment(device: jax.Device) -> JsonDict:
    """Return what a time depends on: device, clocks, threads, versions, flags, and the commit."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device.device_kind,
        "device_platform": device.platform,
        "driver": getattr(device.client, "platform_version", ""),
        "clocks": _clocks(device.platform),
        "threads": _threads(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "flags": {name: os.environ[name] for name in _FLAG_VARIABLES if name in os.environ},
        "precision": jax.config.jax_default_matmul_precision or "highest",  # type: ignore[attr-defined]
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _threads() -> JsonDict:
    """Count the threads that the libraries compute with."""
    found: JsonDict = {
        "cores allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    }
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found


def _clocks(platform_name: str) -> JsonDict:
    """Read clock rates in MHz: of the processor's cores now, of a GPU now and at most."""
    if platform_name == "gpu":
        words = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
        command = ["nvidia-smi", f"--query-gpu={words}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
            return dict(zip(words.split(","), map(float, done.stdout.splitlines()[0].split(",")), strict=True))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            _LOG.debug("the GPU's clocks are not known: %r", error)
            return {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        return {"cores": found} if found else {}
    return {}


def _git() -> str | None:
    """Return the commit of the tree that this package is kept in, with a mark where files are changed.

    ``None`` where it is kept in none: it may be installed inside a tree that is another project's.
    """
    here = Path(__file__)
    try:
        _said_by_git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _said_by_git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.debug("no commit is known: %r", error)
        return None


def _said_by_git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
