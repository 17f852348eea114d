"""The command line: exit codes, messages, files, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import parity
from parity import cli

GOOD = """\
import torch
torch.manual_seed(0)
x = torch.randn(20, 2)
y = x.sum(1, keepdim=True)
model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("loss", loss.item())
"""

PORT = """\
import dataclasses
import jaxreg
import parity

def right(recording):
    return parity.port(recording)

def wrong(recording):
    return dataclasses.replace(parity.port(recording), optimizer=jaxreg.sgd(0.2))

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's working folder with a program and a port in it."""
    (tmp_path / "train.py").write_text(GOOD)
    (tmp_path / "port.py").write_text(PORT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("train.py", "port.py", "__pycache__"))


def test_report_leaves_everything_that_is_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "train.py", "-o", "out", "--repeats", "2"]) == 0
    kept = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    assert {"report.html", "report.json", "report.md", "train_jax.py", "train.recording.npz"} <= kept
    out, err = capsys.readouterr()
    assert "Parity holds" in out
    assert "out/report.html" in out.replace("\\", "/")
    assert [line.partition(" (")[0] for line in err.splitlines()] == [
        "parity: loading PyTorch and JAX",
        "train: recorded 5 steps in PyTorch, and ran them again in float64",
        "train: replayed them in JAX",
        "train: derived the rounding bounds",
        "train: held every stage against its bounds: 13 checks",
        "train: timed both sides 2 times",
        f"report: wrote {len(kept)} files",
    ]
    document = json.loads(Path("out/report.json").read_text())
    assert document["command"] == "parity report train.py -o out --repeats 2"
    assert document["programs"][0]["timing"]["repeats"] == 2


@pytest.mark.thorough
def test_the_jax_code_in_a_report_runs_and_gives_the_same_weights(folder: Path) -> None:
    assert cli.main(["report", "train.py", "-q", "-o", "out"]) == 0
    done = subprocess.run([sys.executable, "out/train_jax.py"], capture_output=True, text=True, check=True)
    recording = parity.Recording.load("out/train.recording.npz")
    assert "FitResult(5 steps" in done.stdout
    weight = done.stdout.split("weight: ")[1].split("\n")[0]
    printed = [float(word) for word in weight.strip("[] ").split()]
    # NumPy prints eight digits.
    assert printed == pytest.approx(recording.observed.weights["weight"][-1].ravel().tolist(), rel=1e-6)


def test_check_prints_a_table_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "train.py", "-q"]) == 0
    assert "final weights" in capsys.readouterr().out
    assert cli.main(["check", "train.py", "-q", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["ok"] is True
    assert cli.main(["check", "train.py", "-q", "--json", "verdict.json"]) == 0
    assert json.loads(Path("verdict.json").read_text())["name"] == "train"
    assert _left(folder) == ["verdict.json"]


def test_check_writes_markdown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "train.py", "-q", "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("### ✅ train.py: Parity holds")
    words = ["--port", "port.py:wrong", "--markdown", "comment.md", "--json", "-"]
    assert cli.main(["check", "train.py", "-q", *words]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["matrix"] is None
    comment = Path("comment.md").read_text(encoding="utf-8")
    assert comment.startswith("### ❌ train.py: The two sides part at step 0: update, weight.")
    assert "| update | 2 of 2 tensors, first weight |" in comment


def test_check_shows_the_matrix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "train.py", "--matrix"]) == 0
    out, err = capsys.readouterr()
    assert "train: replayed every step on cpu at precision highest" in err
    rows = [line.split() for line in out.splitlines() if line.startswith("cpu ")]
    assert [row[1] for row in rows] == ["highest", "high", "default", "BF16_BF16_F32"]
    assert all(row[2::2] == ["✓"] * 4 for row in rows)


def test_a_port_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "train.py", "-q", "--port", "port.py:right"]) == 0
    assert cli.main(["check", "train.py", "-q", "--port", "port.py:wrong"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "The two sides part at step 0: update, weight." in out


@pytest.mark.thorough
def test_two_programs_of_one_name_do_not_overwrite_each_other(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "train.py").write_text(GOOD)
    assert cli.main(["report", "train.py", "other/train.py", "-q", "-o", "out"]) == 0
    assert Path("out/train_jax.py").exists()
    assert "train-2.recording.npz" in Path("out/train-2_jax.py").read_text()


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed[:2] == ["line", "house_prices"], "programs"
    assert listed[2:] == ["line", "house_prices", "tall", "square", "wide", "minibatch", "sweep", "groups"]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["report", "--help"], ["check", "--help"], ["bench", "--help"], ["list", "--help"]):
        with pytest.raises(SystemExit) as leave:
            cli.main(words)
        assert leave.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert "parity check train.py --port port.py:port" in text
    assert "def test_port(parity)" in text
    assert "--markdown FILE" in text
    assert "--matrix" in text


NO_STEP = "import torch\ntorch.nn.Linear(1, 1)(torch.ones(1, 1))\n"
STRANGER = GOOD.replace("model.parameters()", "[torch.nn.Parameter(torch.zeros(3))]").replace(
    "loss.backward()", "loss.backward()"
)


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        (None, ["report", "nowhere.py"], "there is no program nowhere.py; name a Python script"),
        (None, ["check", "."], "is a folder; name a Python script in it"),
        (
            "raise KeyError('theirs')",
            ["report", "bad.py"],
            "bad raised KeyError; it must run to its end by itself first",
        ),
        ("def broken(:\n", ["report", "bad.py"], "bad raised SyntaxError"),
        (NO_STEP, ["report", "bad.py"], "bad ran to its end and never stepped an optimizer"),
        (
            GOOD.replace("torch.nn.MSELoss()", "(lambda p, y: torch.special.erfcx(p - y).mean())"),
            ["report", "bad.py"],
            "the program calls torch's special_erfcx, which parity cannot port by itself",
        ),
        (
            GOOD.replace("torch.optim.SGD", "torch.optim.NAdam"),
            ["report", "bad.py"],
            "the optimizer is a torch.optim.nadam.NAdam, which parity cannot port by itself",
        ),
        (STRANGER, ["report", "bad.py"], "no gradient reached any parameter of the optimizer"),
        (None, ["report", "train.py", "-o", "train.py"], "train.py"),
        (None, ["report", "train.py", "-o", "train.py/inside"], "train.py"),
        (None, ["check", "train.py", "--json", "no/such/folder.json"], "cannot write no/such/folder.json"),
        (None, ["check", "train.py", "--markdown", "no/such/folder.md"], "cannot write no/such/folder.md"),
        (None, ["check", "train.py", "--json", "-", "--markdown", "-"], "give one of them a file"),
        (None, ["check", "train.py", "--port", "port.py"], "--port takes FILE.py:NAME, such as port.py:build"),
        (None, ["check", "train.py", "--port", "gone.py:build"], "there is no file gone.py"),
        (None, ["check", "train.py", "--port", "port.py:gone"], "port.py has no 'gone'; it defines"),
        (None, ["check", "train.py", "--port", "port.py:number"], "expected a parity.Port or a function from the"),
        (None, ["report", "train.py", "train.py", "--port", "port.py:right"], "--port goes with one program, got 2"),
    ],
)
def test_bad_input_is_one_message_and_nothing_half_written(
    folder: Path, capsys: pytest.CaptureFixture[str], program: str | None, words: list[str], message: str
) -> None:
    if program is not None:
        (folder / "bad.py").write_text(program)
    before = _left(folder)
    assert cli.main([*words, "-q"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "parity/" not in err.replace(str(folder), "")
    assert _left(folder) == before
    assert (folder / "train.py").read_text() == GOOD


def test_a_programs_own_traceback_is_shown_and_not_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.py").write_text("def inner():\n    return {}['theirs']\n\ninner()\n")
    assert cli.main(["check", "bad.py", "-q"]) == 2
    err = capsys.readouterr().err
    assert "KeyError: 'theirs'" in err
    assert "return {}['theirs']" in err
    assert "runpy" not in err
    assert "_run_program" not in err


@pytest.mark.parametrize("words", [[], ["reprot"], ["report", "--repeats", "-1"], ["check"], ["report", "--seed", "x"]])
def test_bad_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main(words)
    assert leave.value.code == 2
    assert "parity" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_diverging_program_is_parity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hot.py").write_text(GOOD.replace("lr=0.1", "lr=100.0").replace("range(5)", "range(60)"))
    assert cli.main(["report", "hot.py", "-q", "-o", "out"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "Both trainings diverge: " in words
    assert "That is parity too." in words


def _without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.modules[{module!r}] = None\n{code}"], capture_output=True, text=True
    )


@pytest.mark.thorough
def test_without_torch_it_says_what_to_install(folder: Path) -> None:
    done = _without("torch", "from parity.cli import main\nsys.exit(main(['report', '-q']))")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PyTorch is not installed" in done.stderr
    assert "pip install 'jaxreg[parity]'" in done.stderr
    assert _left(folder) == []
    done = _without("torch", "import parity\nparity.record(print)")
    assert "MissingDependencyError: PyTorch is not installed" in done.stderr


def test_jaxreg_and_recordings_need_no_torch(folder: Path) -> None:
    parity.record(folder / "train.py").save("kept.npz")
    code = """
import jaxreg, parity
recording = parity.Recording.load('kept.npz')
print(parity.check(recording).ok)
"""
    done = _without("torch", code)
    assert done.stdout == "True\n", done.stderr
