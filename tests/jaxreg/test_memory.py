"""How much memory there is, as machine, process and container tell, and what is said at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jaxreg
from jaxreg import _memory
from tests.jaxreg.plans.test_edges import X, Y, model


def group(folder: Path, monkeypatch: pytest.MonkeyPatch, most: str, taken: str, files: str = "") -> None:
    for name, content in (("memory.max", most), ("memory.current", taken), ("memory.stat", files)):
        (folder / name).write_text(f"{content}\n")
    monkeypatch.setattr(_memory, "_CONTROL_GROUPS", ((str(folder), "memory.max", "memory.current", "inactive_file "),))


def test_a_container_has_no_more_than_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path, monkeypatch, "5000000", "2000000", "anon 7\ninactive_file 300000")
    assert _memory.host_memory() == 3300000
    group(tmp_path, monkeypatch, "5000000", "6000000")
    assert _memory.host_memory() == 0


@pytest.mark.parametrize(("most", "taken"), [("max", "7"), ("", ""), ("9223372036854771712", "7")])
def test_a_container_without_a_limit_has_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, taken: str
) -> None:
    group(tmp_path, monkeypatch, most, taken)
    free = _memory.host_memory()
    assert free is not None
    assert 2**20 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_process_has_what_its_limit_leaves() -> None:
    most = 3 * 2**30
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({most}, {most}))"
    code += "; from jaxreg import _memory; print(_memory.host_memory())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 0 < int(told.stdout) < 3 * 2**30


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 256000000 bytes."),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 7 bytes."),
        MemoryError("Unable to allocate 7 GiB for an array"),
    ],
    ids=["exhausted", "dispatching", "NumPy"],
)
@pytest.mark.parametrize("door", ["fit", "sweep", "fit_groups"])
def test_memory_that_is_used_up_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, door: str) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise error

    for place in ("_plans.spectral.Spectral.run", "_sweeps.run.run"):
        monkeypatch.setattr(f"jaxreg.{place}", full)
    calls: dict[str, Any] = {
        "fit": lambda: jaxreg.fit(model(), X, Y, optimizer=jaxreg.sgd(0.1), epochs=3),
        "sweep": lambda: jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1, 0.2]}, epochs=3),
        "fit_groups": lambda: jaxreg.fit_groups(
            model(), X, Y, groups=np.arange(len(X)) % 3, optimizer=jaxreg.sgd(0.1), epochs=3
        ),
    }
    with pytest.raises(jaxreg.JaxregError, match=r"memory is used up: .*\. Take fewer trainings at once"):
        calls[door]()


def test_other_errors_of_jax_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault of XLA's own")

    monkeypatch.setattr("jaxreg._plans.spectral.Spectral.run", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault of XLA's own"):
        jaxreg.fit(jaxreg.Linear(1, 1, rngs=nnx.Rngs(0)), Y, Y, optimizer=jaxreg.sgd(0.1), epochs=3)
