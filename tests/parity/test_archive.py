"""Recordings on disk: there and back, without pickle, and what is not a recording."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity import Recording, _archive
from tests.parity.torch_programs import minibatches, regression, small


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) and type(a) is type(b)


@pytest.mark.parametrize("program", [regression(small(3), optimizer={"momentum": 0.9}), minibatches(epochs=1)])
def test_there_and_back(tmp_path: Path, program: Any) -> None:
    recording = parity.record(program, seed=4)
    recording.save(tmp_path / "kept.npz")
    assert _same(Recording.load(tmp_path / "kept.npz"), recording)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]


def test_no_object_is_ever_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", header=np.array([{"format": "parity recording"}], dtype=object))
    with pytest.raises(parity.RecordingError, match="is not a recording, or is damaged"):
        Recording.load(tmp_path / "bad.npz")


def test_what_is_not_a_recording_is_named(tmp_path: Path) -> None:
    whole = parity.record(regression(small(2))).to_bytes()
    cases = {"text.npz": b"hello", "cut.npz": whole[: len(whole) // 2], "empty.npz": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(parity.RecordingError, match=f"{name} is not a recording, or is damaged"):
            Recording.load(tmp_path / name)
    with pytest.raises(parity.RecordingError, match=r"there is no file .*gone\.npz"):
        Recording.load(tmp_path / "gone.npz")


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = parity.record(regression(small(2)))
    monkeypatch.setattr(_archive, "VERSION", 99)
    recording.save(tmp_path / "new.npz")
    monkeypatch.undo()
    with pytest.raises(parity.RecordingError, match=r"of version 99; this parity reads .* of version 2"):
        Recording.load(tmp_path / "new.npz")


def test_wrong_types_inside_are_noticed(tmp_path: Path) -> None:
    recording = dataclasses.replace(parity.record(regression(small(2))), name=3)  # type: ignore[arg-type]
    recording.save(tmp_path / "odd.npz")
    with pytest.raises(parity.RecordingError, match="expected str, found int"):
        Recording.load(tmp_path / "odd.npz")


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    recording = parity.record(regression(small(2)))
    with pytest.raises(parity.OutputError, match=r"cannot write .*Name a file in a folder you can write to"):
        recording.save(tmp_path / "no" / "such" / "kept.npz")
    assert list(tmp_path.iterdir()) == []
