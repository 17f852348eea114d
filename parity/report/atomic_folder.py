"""Write files into a folder all together or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jaxreg._files import write_whole
from parity._errors import OutputError
from parity._validation import as_path

_ADVICE = "choose another folder (-o FOLDER) or make this one writable"


def check_writable(folder: str | os.PathLike[str], names: Iterable[str] = ()) -> None:
    """Make sure that files called ``names`` can be written into ``folder``, by trying, and leave nothing behind.

    Raises:
        OutputError: if they cannot.
    """
    with _staging(as_path(folder, "a folder", OutputError)) as staging:
        _check_targets(staging.parent, names)


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> list[Path]:
    """Put files into a folder, which is made if need be; on any failure the folder is as it was before.

    Args:
        folder: the folder.
        contents: relative names, with ``/`` between folders, to contents. What is a link there is followed, and what is
            a device or a pipe is written into.

    Returns:
        The paths of the files, in the order of ``contents``.

    Raises:
        OutputError: if the folder cannot be made or written.
    """
    path = as_path(folder, "a folder", OutputError)
    with _staging(path) as staging:
        _check_targets(staging.parent, contents)
        _exchange(contents, staging.parent, staging / "old")
    return [path / name for name in contents]


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Make a hidden working folder inside ``folder``, and turn what the system refuses into an OutputError.

    Inside and not beside it: ``folder`` may be a mount, from whose neighbour nothing can be moved in one step.
    """
    made: list[Path] = []
    staging: Path | None = None
    try:
        made = _make(folder)
        staging = Path(tempfile.mkdtemp(prefix=".parity-", dir=folder))
        yield staging
    except (OSError, ValueError) as error:
        # ValueError is how Python refuses a path with a NUL in it.
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(
            f"expected a folder that can be written, and {str(folder)!r} cannot be: {reason}; {_ADVICE}"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _make(folder: Path) -> list[Path]:
    """Make a folder and its missing parents; return those made, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    made: list[Path] = []
    try:
        for path in reversed(missing):
            path.mkdir()
            made.append(path)
        # What is there already may be a file, or a link that leads nowhere.
        if not folder.is_dir():
            raise NotADirectoryError(20, "there is something else by that name, not a folder")
    except BaseException:
        _remove_empty(made)
        raise
    return made


def _remove_empty(folders: list[Path]) -> None:
    for path in reversed(folders):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _check_targets(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        target = folder / name
        if target.is_dir():
            raise IsADirectoryError(21, f"{name} is a folder there, and a file of that name is to be written")
        for parent in target.relative_to(folder).parents:
            path = folder / parent
            if os.path.lexists(path) and not path.is_dir():
                raise NotADirectoryError(20, f"{parent} is not a folder there, and one of that name is needed")


def _exchange(contents: Mapping[str, bytes], folder: Path, old: Path) -> None:
    """Write files one by one; if one cannot be, put back what the others replaced."""
    done: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for name, content in contents.items():
            made += _make((folder / name).parent)
            # Where a link leads, which stays a link.
            target = Path(os.path.realpath(folder / name))
            kept = old / str(len(done))
            if target.is_file():
                old.mkdir(exist_ok=True)
                shutil.copy2(target, kept)
            write_whole(target, content)
            done.append((target, kept))
    except BaseException:
        for target, kept in reversed(done):
            if kept.exists():
                shutil.move(kept, target)
            elif target.is_file():
                target.unlink()
        _remove_empty(made)
        raise
