"""``parity bench`` from end to end, with few ways and small workloads."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np
import pytest

import jaxreg
from parity import cli
from parity.bench import caches, comparison, disturbance, environment, peers, roofline, run, timing, workloads
from parity.bench.peers import Peer
from parity.cli.terminal import HOLDS, NOT_JUDGED, PARTS


def _wrong(workload: Any, data: Any, device: Any) -> Any:
    return lambda: np.append(data.weight, data.bias) + np.float32(1e-3)


def _broken(workload: Any, data: Any, device: Any) -> Any:
    raise OSError("no compiler\nand a long story")


FEW = [
    peers.OTHERS[0],
    Peer("a wrong way", _wrong, peers.OTHERS[0].unfit),
    Peer("not here", _wrong, lambda *_: "needs a sundial"),
    Peer("broken", _broken),
]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way of jaxreg's, one of NumPy's and a wrong one, limits that need no measuring, and a wide terminal.

    Whatever else the machine does, a run is made once; the caches are small.
    """
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(run, "OURS", peers.OURS[:1])
    monkeypatch.setattr(run, "OTHERS", FEW)
    monkeypatch.setattr(run, "_torch_peers", list)
    monkeypatch.setattr(disturbance, "ATTEMPTS", 1)
    monkeypatch.setattr(caches, "last_level", lambda: 2**20)
    monkeypatch.setattr(run, "measure", lambda *_: roofline.Limits(1e10, 1e11, 5e10))


def bench(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["bench", *words, "-q", "--repeats", "2", "--seconds", "5", "-o", str(folder)])
    return code, json.loads((folder / "bench.json").read_text())


@pytest.mark.thorough
def test_what_is_the_same_has_a_ratio_and_what_is_not_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = bench(tmp_path, "line", "groups", "--size", "0.001")
    assert code == PARTS, "a wrong way is timed"
    jsonschema.validate(made, json.loads(files("parity.bench").joinpath("schema.json").read_text()))
    ways = {peer["name"]: peer for peer in made["workloads"][0]["peers"]}
    assert ways["jaxreg"]["ratio"]["median"] == 1
    assert ways["NumPy loop"]["same"]
    assert ways["NumPy loop"]["ratio"]["median"] > 1
    assert not ways["a wrong way"]["same"]
    assert ways["a wrong way"]["ratio"] is None
    assert ways["not here"]["seconds"] == []
    for name in ("jaxreg", "NumPy loop"):
        assert len(ways[name]["cold_seconds"]) == len(ways[name]["seconds"]) == 2
        assert ways[name]["cold_ratio"]["low"] is not None
        assert ways[name]["memory"] is not None
    assert ways["a wrong way"]["cold_ratio"] is None
    assert made["cold"] == {
        "cache": 2**20,
        "touched": 2**21,
        "said": "Before a cold call, 2 MiB of other data are read and written. The last-level cache is 1 MiB.",
    }
    assert len(made["workloads"][0]["machine"]["attempts"]) == 1
    printed = capsys.readouterr().out
    assert "not the same" in printed
    assert "not here (needs a sundial)" in printed
    assert "broken (it failed here: OSError: no compiler)" in printed
    page = (tmp_path / "bench.html").read_text()
    assert "needs a sundial" in page
    assert made["clock"]["training"] in page
    assert made["clock"]["training"] in " ".join(printed.split())
    assert "://" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.thorough
def test_a_comparison_names_what_became_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OTHERS", FEW[:1])
    code, made = bench(tmp_path / "new", "house_prices")
    assert code == HOLDS
    for peer in made["workloads"][0]["peers"]:
        factor = {"jaxreg": 1e-3, "NumPy loop": 1e3}[peer["name"]]
        peer["seconds"] = [[factor * call for call in turn] for turn in peer["seconds"]]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(made))
    capsys.readouterr()
    bench(tmp_path / "new", "house_prices", "--compare", str(old))
    lines = capsys.readouterr().out.splitlines()
    assert any(re.search(r"house_prices\s+jaxreg .*slower", line) for line in lines)
    assert any(re.search(r"house_prices\s+NumPy loop .*quicker", line) for line in lines)
    assert "What changed" in (tmp_path / "new" / "bench.html").read_text()


OLD = Path(__file__).parent / "version_1.json"


@pytest.mark.thorough
def test_a_file_of_version_1_is_still_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OTHERS", FEW[:1])
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    old = json.loads(OLD.read_text())
    old["environment"]["processor"] = "an abacus"
    old["environment"]["flags"]["XLA_FLAGS"] = "--slowly"
    for peer, factor in zip(old["workloads"][0]["peers"][:2], (1e-3, 1.0), strict=False):
        peer["seconds"] = [[factor * call for call in turn] for turn in peer["seconds"]]
    (tmp_path / "old.json").write_text(json.dumps(old))
    bench(tmp_path, "line", "--compare", str(tmp_path / "old.json"))
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if re.search(r"line\s+jaxreg ", line)]
    assert "slower" in line
    # Of the calls, not of the median that stands in the file.
    assert line.split()[2] == "453"
    assert line.split()[3] == "ns"
    words = " ".join(printed.split())
    assert "The two files define a time differently." in words
    assert "Another machine: processor was an abacus, and is" in words
    assert "Another setting: XLA_FLAGS was --slowly, and is not set now." in words


def test_a_file_of_version_2_is_still_compared_with() -> None:
    old = comparison.load(Path(__file__).parent / "version_2.json")
    changes = comparison.changes(old, old)
    assert [(change["workload"], change["peer"]) for change in changes] == [
        ("line", "jaxreg"),
        ("line", "PyTorch by hand"),
    ]
    assert {change["ratio"]["median"] for change in changes} == {1.0}
    assert comparison.remarks(old, old) == []


def test_two_runs_with_nothing_in_common_are_told_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "bench", lambda *_, **__: pytest.fail("it is timed"))
    assert cli.main(["bench", "line", "--size", "0.5", "-q", "-o", str(tmp_path), "--compare", str(OLD)]) == NOT_JUDGED
    assert "no workload of the same size in common" in capsys.readouterr().err


def test_what_was_timed_is_kept_where_no_way_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = json.loads(OLD.read_text())
    old["workloads"][0]["peers"] = old["workloads"][0]["peers"][5:]
    (tmp_path / "old.json").write_text(json.dumps(old))
    bench(tmp_path, "line", "--ways", "numpy", "--compare", str(tmp_path / "old.json"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "The two runs have no way in common that was the same training on one workload and size." in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lime"], "there is no workload 'lime'; there are line, house_prices"),
        (["line", "--ways", "numpy,abacus"], "there is no way to train with 'abacus' in its name; there are 'jaxreg'"),
        (["line", "--device", "abacus"], "there is no device 'abacus' here; JAX finds cpu"),
        (["line", "--compare", "none.json"], "cannot read none.json"),
    ],
)
def test_what_cannot_be_run_is_one_message(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words, "-q", "-o", str(tmp_path / "out")]) == NOT_JUDGED
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_only_some_ways(tmp_path: Path) -> None:
    assert cli.main(["bench", "house_prices", "--ways", " NumPy,", "-q", "-o", str(tmp_path), "--repeats", "1"]) == 0
    timed = json.loads((tmp_path / "bench.json").read_text())["workloads"][0]["peers"]
    ran = {peer["name"] for peer in timed if not peer["why_not"]}
    assert ran == {"jaxreg", "NumPy loop"}


def test_what_does_not_fit_is_said_before_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jaxreg._memory.host_memory", lambda: 2**28)
    monkeypatch.setattr(workloads, "data", lambda workload: pytest.fail("the data were made"))
    assert cli.main(["bench", "square", "-q", "-o", str(tmp_path)]) == NOT_JUDGED
    [square, sweep] = workloads.named(["square", "sweep"])
    share = re.search(r"give --size ([\d.]+)", capsys.readouterr().err)
    assert share
    assert 2 * square.scaled(float(share[1])).bytes < 2**28
    # The advice is a share of the whole, whatever was asked for.
    assert cli.main(["bench", "square", "--size", "0.9", "-q", "-o", str(tmp_path)]) == NOT_JUDGED
    assert f"give --size {share[1]}" in capsys.readouterr().err
    # Fewer settings take as many data.
    monkeypatch.setattr("jaxreg._memory.host_memory", lambda: sweep.bytes)
    assert cli.main(["bench", "sweep", "-q", "-o", str(tmp_path)]) == NOT_JUDGED
    assert "no --size makes it fit" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-1", "2", "x", "nan"])
def test_a_size_is_a_share(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--size", word])
    assert "expected a" in capsys.readouterr().err


_V = '{"version": 1, "starts": [], "workloads": '
_SIZES = '"name": "line", "rows": 100, "columns": 1, "epochs": 1000, "batch": 0, "settings": 0, "groups": 0'


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", '{"version": 0, "workloads": [], "starts": []}', "[1]", "[" * 10**5),
        *(_V + "5}", _V + "[5]}", _V + '[{"name": "line"}]}', _V + '[], "environment": 3}'),
        *(
            _V + f'[{{{_SIZES}, "peers": [{{"name": "jaxreg", "same": true, "seconds": {seconds}}}]}}]}}'
            for seconds in ("7", "[[]]", "[[0]]", "[[NaN]]", '[["1"]]', "[7]")
        ),
    ],
)
def test_a_file_that_is_no_benchmark(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").write_text(content)
    words = ["bench", "line", "-q", "-o", str(tmp_path), "--compare", str(tmp_path / "old.json")]
    assert cli.main(words) == NOT_JUDGED
    assert "old.json is" in capsys.readouterr().err


def _faulty(*wrong: int) -> Callable[[Any, Any, Any], Any]:
    """NumPy's way, wrong in these calls, counted from 0."""

    def prepare(workload: Any, data: Any, device: Any) -> Any:
        honest, calls = peers.OTHERS[0].prepare(workload, data, device), iter(range(10**6))
        return lambda: honest() + np.float32(1e-3 if next(calls) in wrong else 0)

    return prepare


@pytest.mark.thorough
def test_every_timed_weight_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call, 0, is not timed; of a turn of 5 calls call 1 warms, 2 to 4 are warm ones, and 5 is cold."""
    monkeypatch.setattr(timing, "_CALLS_PER_TURN", 3)
    monkeypatch.setattr(timing, "_TURN_SECONDS", math.inf)
    faults = {"never": (), "every": tuple(range(1, 99)), "warm": (2,), "cold": (5,), "last": (10,), "before": (0,)}
    monkeypatch.setattr(run, "OTHERS", [Peer(name, _faulty(*calls)) for name, calls in faults.items()])
    code = cli.main(["bench", "house_prices", "-q", "--repeats", "2", "-o", str(tmp_path)])
    ways = {peer["name"]: peer for peer in json.loads((tmp_path / "bench.json").read_text())["workloads"][0]["peers"]}
    assert code == PARTS
    assert {name for name in faults if ways[name]["same"]} == {"never"}
    assert all((ways[name]["ratio"] is None) == (name != "never") for name in faults)
    assert ways["jaxreg"]["same"]


@pytest.mark.thorough
def test_a_way_that_fails_when_it_is_timed_takes_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(workload: Any, data: Any, device: Any) -> Any:
        honest, calls = peers.OTHERS[0].prepare(workload, data, device), iter(range(10**6))
        return lambda: honest() if next(calls) < 1 else _broken(workload, data, device)

    monkeypatch.setattr(run, "OTHERS", [FEW[0], Peer("once", prepare)])
    code, made = bench(tmp_path, "house_prices")
    ways = {peer["name"]: peer for peer in made["workloads"][0]["peers"]}
    assert code == HOLDS
    assert ways["once"]["why_not"] == "it failed in a later call: OSError: no compiler"
    assert ways["once"]["seconds"] == []
    assert ways["NumPy loop"]["ratio"]


@pytest.mark.parametrize(
    ("name", "kind"), [("line", "FitResult"), ("sweep", "SweepResult"), ("groups", "GroupsResult")]
)
def test_the_clock_runs_until_model_and_losses_are_there(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [workload] = workloads.named([name])
    small = dataclasses.replace(
        workload, rows=20, columns=2, epochs=3, settings=min(workload.settings, 4), groups=min(workload.groups, 3)
    )
    seen: list[str] = []
    result, ready = getattr(jaxreg, kind), jax.block_until_ready
    made = result.model.func if name == "line" else result.model

    def model(self: Any, *given: Any) -> Any:
        seen.append(kind)
        return made(self, *given)

    def waited(tree: Any) -> Any:
        seen.extend("losses" for leaf in jax.tree.leaves(tree) if leaf.shape[:1] == shape)
        return ready(tree)

    way = peers.OURS[0].prepare(small, workloads.data(small), jax.devices()[0])
    shape = {"line": (3,), "sweep": (4,), "groups": (3,)}[name]
    monkeypatch.setattr(jax, "block_until_ready", waited)
    monkeypatch.setattr(result, "model", property(model) if name == "line" else model)
    found = way()
    assert seen.count(kind) == 1
    assert "losses" in seen
    assert type(found) is np.ndarray


def test_a_commit_is_told_only_of_the_tree_that_the_package_is_kept_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Installed inside another project, that one's commit says nothing of it."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "environment.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    assert environment._git() is None
    subprocess.run([*git, "add", "environment.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert re.fullmatch(r"[0-9a-f]{12}", environment._git() or "")
