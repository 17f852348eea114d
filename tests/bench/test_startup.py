"""Whole processes: each prints the one weight, and is told where it fails."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import pytest

from parity._errors import BenchError
from parity.bench import disturbance, startup


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does, a run is made once."""
    monkeypatch.setattr(disturbance, "ATTEMPTS", 1)


def test_whole_processes_print_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, ran = [], subprocess.run

    def watched(*words: Any, **given: Any) -> Any:
        seen.append(given["env"].get("JAX_COMPILATION_CACHE_DIR"))
        return ran(*words, **given)

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "the user's own")
    monkeypatch.setattr(subprocess, "run", watched)
    starts, attempts = startup.starts(jax.devices("cpu")[0], repeats=1, say=lambda line: None)
    assert [start.name for start in starts] == ["jaxreg", "jaxreg, compilation cached", "PyTorch"]
    # PyTorch's own digits; the plan that jaxreg takes rounds less.
    assert starts[2].printed == 1.9748941659927368
    assert starts[0].printed == starts[1].printed == pytest.approx(1.9748972, abs=2**-23)
    assert len(attempts.signs) == 1
    # Their own memory, not that of this process, which the system's count begins with.
    assert all(start.memory and 30 * 2**20 < start.memory < 2**31 for start in starts)
    assert "the user's own" not in seen, "what is said not to be cached would be"
    assert seen.count(None) == 4


def test_without_pytorch_its_script_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(startup._scripts({}, {})) == ["jaxreg", "jaxreg, compilation cached"]


def test_a_script_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    for text, message in {
        "raise SystemExit('no licence')": "fails with exit code 1: no licence",
        "raise SystemExit(3)": "fails with exit code 3: it says nothing",
        "print('done')": "should print the weight at its end, and prints 'done'",
        "": "should print the weight at its end, and prints ''",
    }.items():
        script = tmp_path / "script.py"
        script.write_text(text)
        for start in (startup._weight, startup._measured):
            with pytest.raises(BenchError, match=re.escape(f"{script} {message}")):
                start(script, dict(os.environ))
