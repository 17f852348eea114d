"""Files written whole or not at all, where they are asked for: devices, pipes, links and modes stay what they are."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxreg
from jaxreg import state_dict
from jaxreg._files import write_whole


def test_a_link_stays_a_link_and_a_mode_a_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("target")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_link_that_leads_nowhere_yet_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("later")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "later").read_bytes() == b"new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"through")
    reader.join()
    assert found == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("no device can be made or opened here")
    write_whole(device, b"gone")
    assert stat.S_ISCHR(device.stat().st_mode)


def test_a_new_file_is_what_the_umask_allows_and_may_have_a_long_name(tmp_path: Path) -> None:
    path, before = tmp_path / ("n" * 255), os.umask(0o027)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*missing'$"):
        state_dict.save_file(jaxreg.Linear(1, 1, rngs=nnx.Rngs(0)), tmp_path / "missing" / "file")


def made(path: Path, header: dict[str, Any], body: bytes) -> Path:
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + body)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("groups", "name", "said"),
    [
        ("{no", "state.0.momentum_buffer", "parameter groups as JSON, and they are damaged"),
        ("[" * 100_000, "state.0.momentum_buffer", "parameter groups as JSON, and they are damaged"),
        ("{}", "state.0.momentum_buffer", "a list of parameter groups"),
        ("[1]", "state.0.momentum_buffer", "a list of parameter groups"),
        ("[]", "weight", "'weight' in it is not called state.NUMBER.NAME"),
        ("[]", "state.x.momentum_buffer", "is not called state.NUMBER.NAME"),
        ("[]", "state.999999999999.m", "is not called state.NUMBER.NAME"),
    ],
)
def test_an_optimizers_file_that_is_damaged_is_told(tmp_path: Path, groups: str, name: str, said: str) -> None:
    path = made(tmp_path / "file", {"__metadata__": {"param_groups": groups}, name: ONE}, b"1234")
    with pytest.raises(jaxreg.ArgumentError, match=said):
        state_dict.load_file(path)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"],
)
def test_every_dtype_comes_back_that_can_be_saved(tmp_path: Path, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype))
    state_dict.save_file({"a": array, "none": array[:0]}, tmp_path / "file")
    found = state_dict.load_file(tmp_path / "file")
    assert found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["a"].astype(np.float64), array.astype(np.float64))
    assert found["none"].shape == (0, 3)
    found["a"][...] = 0  # the caller's own


def test_a_dtype_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "file", {"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}, b"1")
    with pytest.raises(jaxreg.ArgumentError, match="'a' is of dtype F8_E8M0, which NumPy lacks"):
        state_dict.load_file(path)
