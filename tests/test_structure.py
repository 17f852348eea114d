"""The project's own shape: its public faces, the direction of its imports, its sizes, its README."""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The rooms in the order in which data goes through them; each may import from those before it.
ROOMS = [
    "_errors",
    "_given",
    "_words",
    "_terminal",
    "_arguments",
    "rounding",
    "_torch",
    "_trees",
    "_archive",
    "_output",
    "_content",
    "_lines",
    "_recording",
    "_where",
    "_leaving",
    "_inputs",
    "_chance",
    "_tape",
    "_loss",
    "_known",
    "_clipping",
    "_clip_watch",
    "_thinning",
    "_seen",
    "_passes",
    "_supported",
    "_reads",
    "_averages",
    "_look",
    "_print_call",
    "_written",
    "_refused",
    "_stack",
    "_hooks",
    "_thresholds",
    "_arbiter",
    "_run_program",
    "_record",
    "_nnx",
    "_optax_state",
    "_ports",
    "_tables",
    "_holders",
    "_reference",
    "_layout",
    "_matching",
    "_names",
    "_translate",
    "_feed",
    "_steps",
    "_locked",
    "_shapes",
    "_drive",
    "_replay",
    "_carried",
    "_affine",
    "_torch_rules",
    "_flat_optimizer",
    "_followed",
    "_sampled",
    "_bounds",
    "_relative",
    "_pairs",
    "_accuracy_loss",
    "_judge",
    "_outcome",
    "_conventions",
    "causes",
    "_timing",
    "_measure",
    "_printed",
    "_jax_code",
    "report",
    "_matrix",
    "_series",
    "_divergence",
    "_document",
    "_verdict",
    "_check",
    "_across",
    "pytest_plugin",
    "programs",
    "bench",
    "cli",
    "__main__",
]


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


def test_rooms_import_only_from_rooms_before_them() -> None:
    for path in _sources("parity"):
        own = path.relative_to(ROOT / "parity").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] == "parity" and len(parts) > 1 and parts[1] in ROOMS and parts[1] != own:
                assert ROOMS.index(parts[1]) < ROOMS.index(own), f"{path.name} imports {name}"


def test_torch_is_imported_in_its_own_rooms_only() -> None:
    allowed = {
        *("_arbiter", "_hooks", "_inputs", "_known", "_loss", "_measure", "_passes", "_run_program", "_seen"),
        *("_clip_watch", "_look", "_print_call", "_reads", "_refused", "_stack", "_supported", "_tape", "_where"),
        *("programs", "bench"),
    }
    found = {
        path.relative_to(ROOT / "parity").parts[0].removesuffix(".py")
        for path in _sources("parity")
        if any(name.split(".")[0] == "torch" for name in _imports(path))
    }
    assert found == allowed


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


def test_readme_code_runs(tmp_path: Path) -> None:
    """The Python blocks, one after the other, as one program in an empty folder with the line program in it."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    (tmp_path / "train.py").write_text((ROOT / "parity" / "programs" / "line.py").read_text())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


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
