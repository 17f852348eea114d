"""Recordings on disk: the arrays of a dataclass tree in an ``.npz`` file, everything else in its JSON header."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
import types
import typing
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from parity._errors import OutputError, RecordingError

FORMAT = "parity recording"
VERSION = 1
_HEADER = "header"
T = TypeVar("T")


def pack(tree: Any) -> bytes:
    """The bytes of an ``.npz`` file that :func:`read` turns back into ``tree``."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    body = _strip(tree, arrays)
    header = json.dumps({"format": FORMAT, "version": VERSION, "body": body})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{_HEADER: np.array(header)}, **arrays)
    return buffer.getvalue()


def _strip(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """``value`` as JSON, each array replaced by its place in ``arrays``."""
    if isinstance(value, np.ndarray):
        key = f"array{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if dataclasses.is_dataclass(value):
        return {field.name: _strip(getattr(value, field.name), arrays) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _strip(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(item, arrays) for item in value]
    return value


def write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole or not at all."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is private; a recording need not be
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Name a file in a folder you can write to"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read(path: Path, kind: type[T]) -> T:
    """The ``kind`` that was packed into the file at ``path``."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            content = {key: archive[key] for key in archive.files}
        header = json.loads(str(content[_HEADER]))
        if (header["format"], header["version"]) != (FORMAT, VERSION):
            raise RecordingError(
                f"{path} is a {header['format']!r} of version {header['version']}; this parity reads {FORMAT!r} of "
                f"version {VERSION}. Record the program again"
            )
        return typing.cast(T, _restore(header["body"], kind, content))
    except FileNotFoundError:
        raise RecordingError(f"there is no file {path}; Recording.save(path) writes one") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{path} is not a recording, or is damaged ({error}); record the program again") from None


def _restore(value: Any, kind: Any, content: Mapping[str, Any]) -> Any:
    """JSON back into the type ``kind``: dataclasses, tuples, mappings, arrays and plain values."""
    if kind is Any:
        return _restore_tree(value, content)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in inside and any(dataclasses.is_dataclass(one) or typing.get_origin(one) for one in inside):
        return None if value is None else _restore(value, inside[0], content)
    if isinstance(origin, type) and issubclass(origin, np.ndarray):
        return content[value["array"]]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _restore(item, inside[1], content) for key, item in value.items()}
    if origin is tuple:
        return tuple(_restore(item, inside[0], content) for item in value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(**{name: _restore(value[name], hint, content) for name, hint in hints.items()})
    if isinstance(kind, type | types.UnionType) and kind is not Any and not isinstance(value, kind):
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, found {type(value).__name__}")
    return value


def _restore_tree(value: Any, content: Mapping[str, Any]) -> Any:
    """A tree of arrays and plain values: lists come back as tuples."""
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return content[value["array"]]
        return {key: _restore_tree(item, content) for key, item in value.items()}
    return tuple(_restore_tree(item, content) for item in value) if isinstance(value, list) else value
