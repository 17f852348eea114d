"""Files and command lines drawn at random: what comes is right, or one error of our own.

``HYPOTHESIS_PROFILE=thorough pytest --thorough tests/whole/test_fuzz.py`` draws twenty times as many.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parity
from jaxreg import JaxregError, state_dict
from parity import Recording, cli
from tests.helpers.torch_programs import regression, small
from tests.recording.test_archive import _rewritten, _same

pytestmark = pytest.mark.thorough

# One change of a file: a share of its length, what is done there, and with which byte.
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["flip", "set", "cut", "insert", "drop", "again"]), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def changed(content: bytes, changes: list[tuple[float, str, int]]) -> bytes:
    for share, how, byte in changes:
        place = int(share * max(len(content) - 1, 0))
        before, at, after = content[:place], content[place : place + 1], content[place + 1 :]
        content = {
            "flip": before + bytes(value ^ (byte or 1) for value in at) + after,
            "set": before + bytes([byte]) + after,
            "cut": before,
            "insert": before + bytes([byte]) * (byte + 1) + at + after,
            "drop": before + after[byte:],
            "again": content + content[place:],
        }[how]
    return content


@pytest.fixture(scope="module")
def recording() -> Recording:
    return parity.record(regression(small(2), optimizer={"momentum": 0.9}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(changes=CHANGES)
def test_a_changed_recording_is_refused_or_says_what_it_said(
    recording: Recording, folder: Path, changes: list[tuple[float, str, int]]
) -> None:
    file = folder / "changed.npz"
    file.write_bytes(changed(recording.to_bytes(), changes))
    with contextlib.suppress(parity.RecordingError):
        assert _same(Recording.load(file), recording)


@given(data=st.data())
def test_a_recording_with_another_header_is_refused_or_read(recording: Recording, folder: Path, data: Any) -> None:
    """Sealed again, as somebody would who wrote it by hand: any part of what it says is replaced."""
    file = folder / "sealed.npz"

    def edit(body: dict[str, Any], arrays: dict[str, Any]) -> None:
        at: Any = body
        for _ in range(data.draw(st.integers(0, 4))):
            inner = [each for each in (at.values() if isinstance(at, dict) else at) if isinstance(each, dict | list)]
            inner = [each for each in inner if each]
            if not inner:
                break
            at = inner[data.draw(st.integers(0, len(inner) - 1))]
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        place = places[data.draw(st.integers(0, len(places) - 1))]
        if data.draw(st.booleans()):
            at[place] = data.draw(JSON)
        else:
            del at[place]

    file.write_bytes(_rewritten(recording.to_bytes(), edit, sealed=True))
    with contextlib.suppress(parity.RecordingError):
        read = Recording.load(file)
        repr(read)
        read.to_bytes()


@given(data=st.data())
def test_a_recording_with_other_arrays_is_refused_or_read(recording: Recording, folder: Path, data: Any) -> None:
    file = folder / "arrays.npz"
    others = st.sampled_from(
        [
            lambda a: a[:0] if a.ndim else a,
            lambda a: a[..., None],
            lambda a: a.astype(complex),
            lambda a: a.astype(str),
            lambda a: a.astype(">f8"),
            lambda a: a.astype("f2"),
            lambda a: a.astype(bool),
            lambda a: np.full(a.shape, np.datetime64("2026-01-01")),
            lambda a: a * np.nan if a.dtype.kind == "f" else a + 1000,
            lambda a: -a,
            lambda a: np.asfortranarray(a),
        ]
    )

    def edit(body: dict[str, Any], arrays: dict[str, Any]) -> None:
        for name in list(arrays):
            if data.draw(st.integers(0, 5)) == 0:
                arrays[name] = data.draw(others)(arrays[name])

    with np.errstate(all="ignore"):
        file.write_bytes(_rewritten(recording.to_bytes(), edit, sealed=True))
    with contextlib.suppress(parity.RecordingError):
        read = Recording.load(file)
        repr(read)
        read.to_bytes()


TENSORS: list[dict[str, Any]] = [
    {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.arange(2.0), "steps": np.int64(3)},
    {
        "state": {0: {"momentum_buffer": np.ones(3, np.float16)}},
        "param_groups": [{"lr": 0.1, "params": [0], "nesterov": False}],
    },
]


@given(changes=CHANGES, tensors=st.sampled_from(TENSORS))
def test_a_changed_file_of_tensors_is_refused_or_read(
    folder: Path, changes: list[tuple[float, str, int]], tensors: dict[str, Any]
) -> None:
    file = folder / "changed.safetensors"
    state_dict.save_file(tensors, file)
    file.write_bytes(changed(file.read_bytes(), changes))
    with contextlib.suppress(JaxregError):
        for value in state_dict.load_file(file).values():
            repr(value)


WORDS = st.one_of(
    st.sampled_from(
        [
            *("report", "check", "bench", "list", "-h", "--help", "--version", "-q", "--quiet", "-o", "--output", "-"),
            *("--json", "--markdown", "--matrix", "--port", "--seed", "--no-dropout", "--memory-limit", "--repeats"),
            *("--size", "--device", "--seconds", "--ways", "--compare", "--traceback", "--", "", "0", "-1", "nan"),
            *("1e400", "9" * 400, "port.py:build", "port.py:", ":", "none.py", "folder", "text.py", "broken.npz"),
            *("cpu", "gpu", "tensor", "ä\u2028", "a\ud800", "x" * 300, "nul\0", "/dev/null", "=", "--seed=1"),
        ]
    ),
    st.text(max_size=4),
)


@pytest.fixture(scope="module")
def desk(folder: Path) -> Path:
    """A folder with nothing in it that could be judged: what is asked for here takes no training."""
    (folder / "folder").mkdir()
    (folder / "text.py").write_text("these are words\n")
    (folder / "port.py").write_text("raise RuntimeError('a fault of mine')\n")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04")
    return folder


@given(words=st.lists(WORDS, min_size=1, max_size=6), command=st.sampled_from(["check", "report", "bench", None]))
def test_any_command_line_ends_as_it_says(desk: Path, words: list[str], command: str | None) -> None:
    """2, with words on stderr, or 0 where help was asked for; never a traceback."""
    line = [command, *words] if command else words
    if not {"none.py", "folder", "text.py", "broken.npz"} & set(line) and ({"bench", "report"} & set(line)):
        line.append("none.py")  # else the built-in ones are trained
    out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(desk)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: Any = cli.main(line)
            except SystemExit as leave:
                code = leave.code
    finally:
        os.chdir(here)
    told = out.getvalue() + err.getvalue()
    assert code in (0, 2), (line, told)
    assert len(told.strip()) > 10, line
    assert "Traceback" not in told, (line, told)
    assert "fault of parity" not in told, (line, told)
    assert not [name for name in os.listdir(desk) if name.startswith((".parity-", "parity-"))]
