"""Files written whole or not at all, where they are asked for: into devices and pipes, and through links."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Put ``content`` where ``path`` leads.

    A regular file is replaced in one step, and keeps its mode; a new one gets what the umask allows. A link is followed
    and stays a link. What is no regular file, a device or a pipe, is written into.

    Raises:
        OSError: it cannot be written; the error names ``path`` or its folder.
    """
    if not can_be_named(os.fsdecode(path)):
        raise OSError(errno.EINVAL, "no file can have that name", os.fsdecode(path))
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(Path(path).parent))
    there = target.stat() if target.exists() else None
    if there is not None and not stat.S_ISREG(there.st_mode):
        with open(target, "wb") as file:
            file.write(content)
        return
    # Short, whatever the file's own name: that may be as long as names can be.
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if there is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(there.st_mode))
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def can_be_named(path: str) -> bool:
    """Whether the system has a way to write that name: it has none with a NUL in it, nor with half a letter."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
