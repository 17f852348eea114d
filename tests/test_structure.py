"""The project's own shape: its public faces, the direction of its imports, its sizes, its README."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The rooms of each package in the order in which data goes through them; each may import from those before it.
ROOMS = {
    "jaxreg": [
        *(
            "_types",
            "_errors",
            "_validation",
            "_precision",
            "_files",
            "_forked",
            "_traced",
            "_memory",
            "_tree_paths",
            "_arrays",
        ),
        *("torch_random", "_nn", "_calls", "_optim", "lr_scheduler", "state_dict"),
        *("_statistics", "_plans", "_training", "_sweeps"),
    ],
    "parity": [
        *("_errors", "_types", "_words", "_validation", "programs", "rounding"),
        *("recording", "optimizers", "capture", "porting", "replay", "bounds", "judging", "causes", "report"),
        *("_matrix", "_verdict", "_check", "pytest_plugin", "bench", "cli", "__main__"),
    ],
}
# The rooms of parity that import torch.
WITH_TORCH = {"bench", "capture", "cli", "programs"}


def _sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports when it runs; imports for the type checker alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ["jaxreg", "parity"])
def test_public_names_are_sorted_and_there(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'parity' has no attribute 'recrod'"):
        importlib.import_module("parity").recrod  # noqa: B018


def test_jaxreg_imports_neither_torch_nor_parity() -> None:
    for path in _sources("jaxreg"):
        assert not [name for name in _imports(path) if name.split(".")[0] in ("torch", "parity")], path
    code = "import sys, jaxreg; assert not {'torch', 'parity'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_from_rooms_before_them(package: str) -> None:
    rooms = ROOMS[package]
    for path in _sources(package):
        own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in rooms, f"{path} is in no room"
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] == package and len(parts) > 1 and parts[1] in rooms and parts[1] != own:
                assert rooms.index(parts[1]) < rooms.index(own), f"{path} imports {name}"


@pytest.mark.parametrize("package", ROOMS)
def test_no_files_import_each_other(package: str) -> None:
    """Nor any in a longer circle."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in _sources(package)}
    graph = {name: {other for other in _imports(path) if other in files} - {name} for name, path in files.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_torch_is_imported_in_its_own_rooms_only() -> None:
    found = {
        path.relative_to(ROOT / "parity").parts[0].removesuffix(".py")
        for path in _sources("parity")
        if any(name.split(".")[0] == "torch" for name in _imports(path))
    }
    assert found == WITH_TORCH


def test_files_are_short() -> None:
    lengths = [
        len(path.read_text(encoding="utf-8").splitlines())
        for package in ("jaxreg", "parity")
        for path in _sources(package)
    ]
    assert max(lengths) <= 350
    assert statistics.median(lengths) <= 150


def test_modules_open_with_what_they_are_for() -> None:
    for package in ("jaxreg", "parity", "tests", "examples"):
        for path in _sources(package):
            text = path.read_text(encoding="utf-8")
            assert not text or ast.get_docstring(ast.parse(text)), path


def test_importing_jaxreg_adds_only_what_it_needs_to_flax() -> None:
    """Optax, jaxtyping and safetensors, all small; the time it takes stands in the README."""
    code = "import sys, flax.nnx; before = set(sys.modules); import jaxreg; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.split(".")[0] for name in done.stdout.split()}
    assert packages <= {"jaxreg", "optax", "jaxtyping", "safetensors", "wadler_lindig"}


def test_readme_names_the_two_commands_first() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert commands[:2] == [
        "python3 -m venv .venv && .venv/bin/pip install -qc constraints.txt -e '.[parity]' && .venv/bin/parity report",
        "python3 -m venv .venv && .venv/bin/pip install -qc constraints.txt -e '.[test]' && .venv/bin/pytest",
    ]
    assert README.index(commands[1]) < 2500


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["parity"],
        *project["optional-dependencies"]["test"],
    ]
    names = {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in wanted} - {"jaxreg"}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert names <= {name.lower() for name in pinned}
    assert pinned["torch"] == "2.13.0"


def test_faults_can_be_put_in_where_they_are_meant_to() -> None:
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before) == 1, mutant
