"""``parity bench`` from end to end, with few ways and small workloads."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np
import pytest

import jaxreg
from parity import cli
from parity._terminal import HOLDS, NOT_JUDGED, PARTS
from parity.bench import cold, limits, peers, run, workloads
from parity.bench.peers import Peer


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
    """A way of jaxreg's, one of NumPy's and a wrong one, limits that need no measuring, and a wide terminal."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(run, "OURS", peers.OURS[:1])
    monkeypatch.setattr(run, "OTHERS", FEW)
    monkeypatch.setattr(run, "_torch_peers", list)
    monkeypatch.setattr(run, "measure", lambda *_: limits.Limits(1e10, 1e11, 5e10))


def bench(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["bench", *words, "-q", "--repeats", "2", "--seconds", "0.2", "-o", str(folder)])
    return code, json.loads((folder / "bench.json").read_text())


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
    printed = capsys.readouterr().out
    assert "not the same" in printed
    assert "not here (needs a sundial)" in printed
    assert "broken (it fails here: OSError: no compiler)" in printed
    page = (tmp_path / "bench.html").read_text()
    assert "needs a sundial" in page
    assert "://" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


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
    monkeypatch.setattr("jaxreg._room.host_memory", lambda: 2**28)
    monkeypatch.setattr(workloads, "data", lambda workload: pytest.fail("the data were made"))
    assert cli.main(["bench", "square", "-q", "-o", str(tmp_path)]) == NOT_JUDGED
    share = re.search(r"give --size ([\d.]+)", capsys.readouterr().err)
    assert share
    assert 2 * workloads.named(["square"])[0].scaled(float(share[1])).bytes < 2**28


@pytest.mark.parametrize("word", ["0", "-1", "2", "x", "nan"])
def test_a_size_is_a_share(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--size", word])
    assert "expected a" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", '{"version": 0, "workloads": [], "starts": []}', "[1]"])
def test_a_file_that_is_no_benchmark(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").write_text(content)
    words = ["bench", "line", "-q", "-o", str(tmp_path), "--compare", str(tmp_path / "old.json")]
    assert cli.main(words) == NOT_JUDGED
    assert "old.json is" in capsys.readouterr().err


def test_whole_processes_print_one_weight() -> None:
    starts = cold.starts("cpu", repeats=1, say=lambda line: None)
    assert [start.name for start in starts] == ["jaxreg", "jaxreg, compilation cached", "PyTorch"]
    # PyTorch's own digits; the plan that jaxreg takes rounds less.
    assert starts[2].printed == 1.9748941659927368
    assert starts[0].printed == starts[1].printed == pytest.approx(1.9748972, abs=2**-23)


def _drifting(workload: Any, data: Any, device: Any) -> Any:
    """Right when it is first looked at, and wrong when it is timed."""
    honest, calls = peers.OTHERS[0].prepare(workload, data, device), iter(range(10**6))
    return lambda: honest() + np.float32(0 if next(calls) == 0 else 1e-3)


def test_the_timed_weights_are_the_ones_that_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "OTHERS", [Peer("drifting", _drifting)])
    _, made = bench(tmp_path, "line")
    ways = {peer["name"]: peer for peer in made["workloads"][0]["peers"]}
    assert ways["jaxreg"]["same"]
    assert not ways["drifting"]["same"]
    assert ways["drifting"]["ratio"] is None


@pytest.mark.parametrize(("name", "kind"), [("line", "FitResult"), ("sweep", "SweepResult")])
def test_the_clock_runs_until_the_model_is_made(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [workload] = workloads.named([name])
    small = dataclasses.replace(workload, rows=20, columns=2, epochs=3, settings=min(workload.settings, 4))
    seen: list[str] = []

    def watched(*_: Any) -> None:
        seen.append(kind)

    result = getattr(jaxreg, kind)
    made = result.model.func if name == "line" else result.model

    def model(self: Any, *given: Any) -> Any:
        watched()
        return made(self, *given)

    monkeypatch.setattr(result, "model", property(model) if name == "line" else model)
    found = peers.OURS[0].prepare(small, workloads.data(small), jax.devices()[0])()
    assert seen == [kind]
    assert type(found) is np.ndarray
