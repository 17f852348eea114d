"""What callers give by mistake to parity's public functions: one error of our own, that says what was expected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxreg
import parity
from tests.helpers.torch_programs import regression, small

WRONG: list[Any] = [None, 3, -1, 1.5, b"x", [], {}, object(), np.ones(2), float("nan"), 10**400, True]


@pytest.fixture(scope="module")
def recording() -> parity.Recording:
    return parity.record(regression(small(2)))


DOORS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "record": (lambda _, wrong: parity.record(wrong), "expected a script's path, or a function without arguments, got"),
    "check": (lambda _, wrong: parity.check(wrong), "expected a script's path, or a function without arguments, got"),
    "port": (lambda _, wrong: parity.port(wrong), "expected a Recording, as parity.record gives it, got"),
    "load": (lambda _, wrong: parity.Recording.load(wrong), "expected the path of a recording, got"),
    "save": (lambda recording, wrong: recording.save(wrong), "expected a path to write the recording to, got"),
    "from_nnx": (
        lambda _, wrong: parity.Port.from_nnx(wrong, jaxreg.mse_loss, jaxreg.sgd(0.1)),
        r"expected a flax\.nnx\.Module, got",
    ),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_of_another_kind_is_refused(recording: parity.Recording, door: str, wrong: Any) -> None:
    call, said = DOORS[door]
    with pytest.raises(parity.ParityError, match=said):
        call(recording, wrong)


@pytest.mark.parametrize("wrong", [each for each in WRONG if each is not True], ids=lambda wrong: type(wrong).__name__)
def test_dropout_is_a_flag(wrong: Any) -> None:
    with pytest.raises(parity.ParityError, match="dropout must be True or False, got"):
        parity.record(regression(small(1)), dropout=wrong)


@pytest.mark.parametrize(
    "wrong", [None, 0, -1, b"x", [], {}, object(), float("nan"), True, "2e9"], ids=lambda wrong: type(wrong).__name__
)
def test_the_memory_limit_is_a_number_of_bytes(wrong: Any) -> None:
    with pytest.raises(parity.ParityError, match=r"memory_limit must be a number of bytes above 0, .*, got"):
        parity.record(regression(small(1)), memory_limit=wrong)


@pytest.mark.parametrize("wrong", [None, 3, b"x", [], object()], ids=lambda wrong: type(wrong).__name__)
def test_a_folder_is_a_path(recording: parity.Recording, wrong: Any) -> None:
    from parity.report import atomic_folder

    for write in (lambda: atomic_folder.write_files(wrong, {"a": b""}), lambda: atomic_folder.check_writable(wrong)):
        with pytest.raises(parity.OutputError, match="expected a folder, got"):
            write()


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        ("apply", None, "the Port's apply must be a function, got NoneType"),
        ("loss", 3, "the Port's loss must be a function, got int"),
        ("optimizer", "sgd", "the Port's optimizer must be an Optax transformation, got str"),
        ("names", [("weight", "kernel")], "the Port's names must be a mapping from PyTorch's to its own, got list"),
        ("names", {"weight": None}, r"names\['weight'\] must be a path such as 'kernel.T', or a list, got None"),
        ("names", {"weight": []}, r"names\['weight'\] must be a path"),
        ("names", {"weight": np.ones(2)}, r"names\['weight'\] must be a path"),
        ("names", {"weight": ["kernel", 3]}, r"names\['weight'\] must be a path"),
    ],
)
def test_the_parts_of_a_port(recording: parity.Recording, part: str, wrong: Any, said: str) -> None:
    with pytest.raises(parity.PortError, match=said):
        parity.check(recording, dataclasses.replace(parity.port(recording), **{part: wrong}))


def test_a_path_may_be_any_of_texts(recording: parity.Recording, tmp_path: Path) -> None:
    class Own:
        def __fspath__(self) -> str:
            return str(tmp_path / "own.npz")

    recording.save(Own())
    assert parity.Recording.load(Own()).steps == 2
