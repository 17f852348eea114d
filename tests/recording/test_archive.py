"""Recordings on disk: there and back, without pickle, and what is not a recording."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity import Recording
from parity.recording import archive as _archive
from parity.recording.recording import LINEAR, Evaluation
from tests.helpers.any_programs import KINDS
from tests.helpers.torch_programs import minibatches, regression, small


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) and type(a) is type(b)


@pytest.mark.parametrize("program", [regression(small(3), optimizer={"momentum": 0.9}), minibatches(epochs=1)])
def test_there_and_back(tmp_path: Path, program: Any) -> None:
    recording = parity.record(program, seed=4)
    recording.save(tmp_path / "kept.npz")
    assert _same(Recording.load(tmp_path / "kept.npz"), recording)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]


def test_a_recording_of_version_3_is_still_read() -> None:
    """The file was written when version 3 was new: three steps of a linear layer, with SGD's momentum."""
    recording = Recording.load(Path(__file__).parent / "version_3.npz")
    assert (recording.steps, recording.model.type, recording.optimizer.settings["momentum"]) == (3, LINEAR, 0.9)
    assert [line.text for line in recording.printed] == [f"loss {loss:.4f}" for loss in recording.observed.losses]
    assert set(recording.initial) == {"weight", "bias"}
    assert recording.state_before()["momentum_buffer"]["weight"].shape == (3, 1, 2)
    assert parity.port(recording).optimizer is not None


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


@pytest.mark.parametrize("words", ["{'descr': (", "  {'descr'\n 1", "{'descr': '<U3\0'}", "'''", "{"])
def test_so_is_an_array_whose_header_is_no_dictionary(tmp_path: Path, words: str) -> None:
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(words)) + words.encode())
    with pytest.raises(parity.RecordingError, match=r"odd\.npz is not a recording, or is damaged"):
        Recording.load(tmp_path / "odd.npz")


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = parity.record(regression(small(2)))
    monkeypatch.setattr(_archive, "VERSION", 99)
    recording.save(tmp_path / "new.npz")
    monkeypatch.undo()
    with pytest.raises(parity.RecordingError, match=r"of version 99; this parity reads .* of version 3"):
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


def _rewritten(content: bytes, change: Any, *, sealed: bool) -> bytes:
    """A file with its header and arrays changed; ``sealed`` with a checksum that fits."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = json.loads(str(arrays.pop("header")))
    change(header["body"], arrays)
    if sealed:
        named = [key for key in _archive._array_names(header["body"]) if isinstance(key, str)]
        header["checksum"] = _archive._checksum(header["body"], {key: arrays[key] for key in named if key in arrays})
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps(header)), **arrays)
    return buffer.getvalue()


def _set(key: str, value: Any) -> Any:
    return lambda body, arrays: arrays.update({key: value})


def _cut_losses(body: Any, arrays: Any) -> None:
    place = body["observed"]["losses"]["array"]
    arrays[place] = arrays[place][:-1]


def _renamed(body: Any, arrays: Any) -> None:
    body["arbiter_free"]["weights"]["other"] = body["arbiter_free"]["weights"].pop("weight")


def _reshaped(body: Any, arrays: Any) -> None:
    place = body["observed"]["gradients"]["weight"]["array"]
    arrays[place] = arrays[place].swapaxes(1, 2)


def _without_a_step(body: Any, arrays: Any) -> None:
    body["arbiter_locked"]["predictions"].pop()


def _other_batch(body: Any, arrays: Any) -> None:
    arrays[body["batch_of_step"]["array"]][0] = 7


@pytest.mark.parametrize(
    ("change", "sealed", "message"),
    [
        (_set("array3", np.zeros(2)), False, "was changed since it was written"),
        (lambda body, arrays: body.update(name="mine"), False, "was changed since it was written"),
        (lambda body, arrays: arrays.pop("array3"), True, "is not whole: array3 is missing"),
        (_cut_losses, True, r"observed has losses of shape \(2,\), expected those of 3 steps"),
        (_renamed, True, "arbiter_free: weights are of bias, other, and weight, bias was expected"),
        (_reshaped, True, r"gradients of weight have shape \(3, 3, 2\), and \(3, 2, 3\) was expected"),
        (_without_a_step, True, "arbiter_locked has predictions of 2 steps, expected 3"),
        (_other_batch, True, "a step was fed batch 7, and it has 1"),
    ],
)
def test_tampering_is_noticed(tmp_path: Path, change: Any, sealed: bool, message: str) -> None:
    content = parity.record(regression(small(3))).to_bytes()
    (tmp_path / "kept.npz").write_bytes(_rewritten(content, lambda body, arrays: None, sealed=False))
    assert Recording.load(tmp_path / "kept.npz").steps == 3
    (tmp_path / "kept.npz").write_bytes(_rewritten(content, change, sealed=sealed))
    with pytest.raises(parity.RecordingError, match=message):
        Recording.load(tmp_path / "kept.npz")


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    whole = parity.record(regression(small(2))).to_bytes()
    file = tmp_path / "bad.npz"
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:end])
        with pytest.raises(parity.RecordingError):
            Recording.load(file)
    expected = Recording.load(_written(file, whole))
    for place in range(0, len(whole), max(1, len(whole) // 200)):
        try:
            read = Recording.load(_written(file, whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]))
        except parity.RecordingError:
            continue
        assert _same(read, expected), place  # a byte that says nothing, such as a file's date


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_trees_of_every_kind_survive(tmp_path: Path) -> None:
    tree = {
        "array": np.arange(3),
        "list": [np.float32(1.5), None, (np.array(np.nan), {})],
        "scalar": {"scalar": "text"},
        "one": {"array": np.zeros((0, 2))},
        "whole": {0: np.int64(3), (1, 2)[0]: True},
        "plain": (1, 2.5, float("nan"), float("inf"), "text"),
    }
    recording = parity.record(regression(small(1)))
    evaluation = Evaluation(0, tree, (np.ones(1), [np.ones(2)]))
    dataclasses.replace(recording, evaluations=(evaluation,)).save(tmp_path / "tree.npz")
    read = Recording.load(tmp_path / "tree.npz").evaluations[0]
    assert repr(read) == repr(evaluation)
    assert type(read.inputs["list"][0]) is np.float32
    assert isinstance(read.inputs["list"], list)


@pytest.mark.parametrize("name", ["attention", "two", "conv"])
def test_any_recording_there_and_back(tmp_path: Path, name: str) -> None:
    recording = parity.record(KINDS[name].program(2))
    recording.save(tmp_path / "kept.npz")
    read = Recording.load(tmp_path / "kept.npz")
    assert repr(read) == repr(recording)
    assert _same(read, recording)
