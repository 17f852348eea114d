"""Programs, ports and terminals that end otherwise than they should: exit code 2, and the blame where it belongs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import parity
from parity import cli
from parity.cli import terminal

PLAIN = """
import torch
torch.manual_seed(0)
model, loss_fn = torch.nn.Linear(3, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x = torch.randn(10, 3)
y = x.sum(1, keepdim=True)
for _ in range(3):
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def script(folder: Path, end: str = "", begin: str = "") -> str:
    path = folder / "train.py"
    path.write_text(f"{begin}\n{PLAIN}\n{end}\n")
    return str(path)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("import os; os._exit(0)", "train calls os._exit(0), which ends Python before anything can be judged"),
        ("import os; os._exit(3)", "line 15: import os; os._exit(3)"),
        ("class End(BaseException): pass\nraise End('over')", "train raised End; it must run to its end by itself"),
        ("raise GeneratorExit", "train raised GeneratorExit"),
        ("import sys; sys.exit(4)", "train exited with status 4"),
    ],
)
def test_a_program_that_ends_itself_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, said: str
) -> None:
    assert cli.main(["check", "-q", script(tmp_path, end)]) == 2
    assert said in capsys.readouterr().err


FUNCTIONAL = """
from torch.func import functional_call, grad
gradient = grad(lambda own: loss_fn(functional_call(model, own, x), y))(dict(model.named_parameters()))
"""


def test_what_our_hooks_cannot_follow_is_no_fault_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(parity.UnsupportedError, match=r"may run by itself .*In train\.py, line 17: gradient ="):
        parity.record(script(tmp_path, FUNCTIONAL))


@pytest.mark.parametrize("end", ["x @ x", "torch.relu(None)", "x.item()", "torch.nn.Linear(2, 1)(x)", "1 / 0"])
def test_what_pytorch_refuses_is_a_fault_of_the_program(tmp_path: Path, end: str) -> None:
    """Though PyTorch's own functions are called through ours."""
    with pytest.raises(parity.ProgramError, match=r"train raised .*; it must run to its end by itself first"):
        parity.record(script(tmp_path, end))


def test_the_children_of_a_program_end_as_they_do(tmp_path: Path) -> None:
    # Torch has threads by then, and Python says of a fork what may come of it.
    end = "import os, warnings\nwarnings.simplefilter('ignore')\nchild = os.fork()\nif not child: os._exit(7)\n"
    end += "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7"
    own = os._exit
    assert parity.record(script(tmp_path, end)).steps == 3
    assert os._exit is own


@pytest.mark.parametrize("end", ["sys.stdout.close()", "os.close(os.dup(1)); print('more')"])
def test_a_program_may_close_its_output(tmp_path: Path, end: str) -> None:
    assert parity.record(script(tmp_path, f"import os, sys\nprint(1.5)\n{end}")).steps == 3


def test_a_program_that_checks_itself_is_judged_up_to_there(tmp_path: Path) -> None:
    path = script(tmp_path, "import parity\nparity.check(__file__)\nraise ValueError('not reached')")
    assert parity.check(path).ok


def test_a_function_that_checks_itself_is_judged_up_to_there() -> None:
    def program() -> None:
        exec(PLAIN)
        parity.check(program)
        raise ValueError("not reached")

    assert parity.record(program).steps == 3


def test_a_program_that_checks_another_is_told(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(PLAIN)
    path = script(tmp_path, f"import parity\nparity.check({str(tmp_path / 'other.py')!r})")
    with pytest.raises(parity.UnsupportedError, match="has parity run another one; check each by itself"):
        parity.record(path)


PORTS = """
import os, sys
import parity
def exits(recording): sys.exit(0)
def leaves(recording): os._exit(0)
def raises(recording): raise RuntimeError("a fault of mine")
class Own(BaseException): pass
def own(recording): raise Own
def late(recording):
    def apply(params, x): sys.exit(0)
    return parity.Port(dict(recording.initial), apply, len, parity.port(recording).optimizer)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "exits",
            "the port fails when it is made, in {file}, line 4 (def exits(recording): sys.exit(0)): SystemExit: 0",
        ),
        ("leaves", "when it is made, in {file}, line 5 (def leaves(recording): os._exit(0)): Left: os._exit(0)"),
        ("raises", "when it is made, in {file}, line 6"),
        ("own", "line 8 (def own(recording): raise Own): Own"),
        (
            "late",
            "the port fails when it is run, in {file}, line 10 (def apply(params, x): sys.exit(0)): SystemExit: 0",
        ),
    ],
)
def test_a_port_that_ends_the_process_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    ports = tmp_path / "ports.py"
    ports.write_text(PORTS)
    assert cli.main(["check", "-q", script(tmp_path), "--port", f"{ports}:{name}"]) == 2
    assert said.format(file=ports) in capsys.readouterr().err


@pytest.mark.parametrize("line", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise GeneratorExit", "1 / 0"])
def test_a_file_of_ports_that_ends_the_process_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    ports = tmp_path / "ports.py"
    ports.write_text(f"{line}\ndef build(recording): pass\n")
    assert cli.main(["check", "-q", script(tmp_path), "--port", f"{ports}:build"]) == 2
    told = capsys.readouterr().err
    assert f"{ports} raised" in told
    assert "when it was loaded" in told


@pytest.mark.thorough
def test_a_terminal_of_few_letters_is_written_to(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "parity", "check", "-q", script(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Parity holds" in done.stdout


def test_a_reader_that_is_gone_is_no_verdict() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "parity", "list"], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert done.returncode == 2
    assert done.stderr == "parity: the reader of its output is gone; nothing more was printed\n"


def test_an_error_of_ours_is_not_the_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("of ours")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("parity.cli.check.show", wrong)
    assert cli.main(["check", "-q", script(tmp_path)]) == 2
    (file,) = tmp_path.glob("parity-*.txt")
    said = capsys.readouterr().err
    assert "parity: this is a fault of parity's own, and says nothing about your program: KeyError: 'of ours'" in said
    assert str(file) in said
    assert "Traceback" in file.read_text()
    assert "Traceback" not in said
    assert cli.main(["check", "-q", "--traceback", script(tmp_path)]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert [*tmp_path.glob("parity-*.txt")] == [file]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "parity: there is not enough memory"),
        (OSError(28, "No space left on device", "out"), "parity: No space left on device: out"),
    ],
)
def test_a_machine_at_its_end_is_told(capsys: pytest.CaptureFixture[str], error: Exception, said: str) -> None:
    assert terminal.failed(error, False) == 2
    assert said in capsys.readouterr().err
