"""Writing a folder whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jaxreg._files import write_whole
from parity._errors import OutputError
from parity.report import atomic_folder


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.fixture
def obstacles(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "blocked" / "report.html").mkdir(parents=True)
    (tmp_path / "shadowed").mkdir()
    (tmp_path / "shadowed" / "charts").write_text("a file")
    return tmp_path


OBSTACLES = ["file", "file/below", "dangling", "blocked", "shadowed", "a" * 300, "deep/" + "b" * 300, "nul\0"]
NAMES = ["report.html", "charts/loss.svg"]


@pytest.mark.parametrize("name", OBSTACLES)
def test_a_folder_that_cannot_be_written_is_told_before_any_work(obstacles: Path, name: str) -> None:
    before = tree(obstacles)
    with pytest.raises(OutputError, match=r"expected a folder.*(cannot be: .*; choose|no file can have that name)"):
        atomic_folder.check_writable(obstacles / name, NAMES)
    assert tree(obstacles) == before


@pytest.mark.parametrize("name", OBSTACLES)
def test_writing_there_fails_alike_and_leaves_nothing(obstacles: Path, name: str) -> None:
    before = tree(obstacles)
    with pytest.raises(OutputError, match="expected a folder"):
        atomic_folder.write_files(obstacles / name, dict.fromkeys(NAMES, b"new"))
    assert tree(obstacles) == before


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permission bits do not bind root, as which tests may run.
    def refuse(**_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        atomic_folder.check_writable(tmp_path / "some" / "where", NAMES)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", [".", "new", "some/where/deep"])
def test_checking_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    atomic_folder.check_writable(tmp_path / name, NAMES)
    assert tree(tmp_path) == {}


def test_files_are_put_with_their_folders(tmp_path: Path) -> None:
    out = tmp_path / "some" / "where"
    assert atomic_folder.write_files(out, {"a": b"1", "charts/b": b"2"}) == [out / "a", out / "charts/b"]
    assert tree(out) == {"a": b"1", "charts": None, "charts/b": b"2"}


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert atomic_folder.write_files(Path("out"), {"a": b"1"}) == [Path("out/a")]
    assert tree(tmp_path) == {"out": None, "out/a": b"1"}


def test_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"kept")
    (tmp_path / "a").write_bytes(b"old")
    atomic_folder.write_files(tmp_path, {"a": b"new", "charts/b": b"2"})
    assert tree(tmp_path) == {"mine": b"kept", "a": b"new", "charts": None, "charts/b": b"2"}


def test_files_can_be_read_by_others_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    [path] = atomic_folder.write_files(tmp_path / "out", {"a": b"1"})
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails_at", [0, 1, 2])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_midway_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, fails_at: int, existing: bool
) -> None:
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "a").write_bytes(b"old")
    before, replace, calls = tree(tmp_path), os.replace, [0]

    def failing(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == fails_at + 1:
            raise error
        replace(*arguments)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic_folder.write_files(out, {"a": b"1", "b": b"2", "charts/c": b"3"})
    assert calls[0] > fails_at
    assert tree(tmp_path) == before


def test_links_are_followed_and_devices_written_into(tmp_path: Path) -> None:
    """A report's name may lead to a folder that a server shows, or to a pipe that somebody reads."""
    shown = tmp_path / "shown"
    shown.write_bytes(b"old")
    shown.chmod(0o604)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(shown)
    (out / "b").symlink_to(tmp_path / "not yet")
    os.mkfifo(out / "pipe")
    reader = os.open(out / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic_folder.write_files(out, {"a": b"new", "b": b"made", "pipe": b"told"})
    assert os.read(reader, 10) == b"told"
    os.close(reader)
    assert (out / "pipe").is_fifo()
    assert (out / "a").is_symlink()
    assert shown.read_bytes() == b"new"
    assert shown.stat().st_mode & 0o777 == 0o604
    assert (out / "b").is_symlink()
    assert (tmp_path / "not yet").read_bytes() == b"made"


def test_a_failure_midway_puts_back_what_a_link_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shown").write_bytes(b"old")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(tmp_path / "shown")
    before = tree(tmp_path)
    monkeypatch.setattr(atomic_folder, "write_whole", fails_on("b"))
    with pytest.raises(OutputError, match="No space left on device"):
        atomic_folder.write_files(out, {"a": b"new", "b": b"new"})
    assert tree(tmp_path) == before
    assert (out / "a").is_symlink()


def fails_on(name: str) -> Any:
    def writing(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write_whole(path, content)

    return writing


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_folder.write_files(tmp_path, {"a": b"old"})

    monkeypatch.setattr(atomic_folder, "write_whole", fails_on("a"))
    with pytest.raises(OutputError, match="No space left on device"):
        atomic_folder.write_files(tmp_path, {"a": b"new"})
    monkeypatch.undo()
    assert tree(tmp_path) == {"a": b"old"}
