"""Recordings on disk: the arrays of a dataclass tree in an ``.npz`` file, everything else in its JSON header."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import struct
import tokenize
import types
import typing
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.lib.npyio import NpzFile

from jaxreg._files import write_whole
from parity._errors import OutputError, RecordingError

FORMAT = "parity recording"
VERSION = 3
_HEADER = "header"
# Beyond this many bytes, packing weights and gradients tighter takes minutes and saves little.
_COMPRESSION_LIMIT_BYTES = 2**26
# A dict with one of these as its only key stands for something that JSON lacks.
_ARRAY, _SCALAR, _LIST, _PAIRS = "array", "scalar", "list", "pairs"
_TAGS = {_ARRAY, _SCALAR, _LIST, _PAIRS}
# What reading a damaged file comes to, in NumPy, in zipfile and in what is made of the header.
_DAMAGE_ERRORS = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(SyntaxError, tokenize.TokenError),  # of the header of an array, which NumPy reads as Python reads its own
)
Array = np.ndarray[Any, Any]
# JSON, whose form the types of a recording say.
Plain: TypeAlias = Any
T = TypeVar("T")


def pack(tree: object) -> bytes:
    """Return the bytes of an ``.npz`` file that :func:`read` turns back into ``tree``."""
    arrays: dict[str, Array] = {}
    body = _strip(tree, arrays, {})
    header = json.dumps({"format": FORMAT, "version": VERSION, "body": body, "checksum": _checksum(body, arrays)})
    buffer = io.BytesIO()
    small = sum(array.nbytes for array in arrays.values()) <= _COMPRESSION_LIMIT_BYTES
    save = np.savez_compressed if small else np.savez
    save(buffer, allow_pickle=False, **{_HEADER: np.array(header)}, **arrays)
    return buffer.getvalue()


def _checksum(body: Plain, arrays: Mapping[str, Array]) -> str:
    """Compute a fingerprint of all that a recording says."""
    digest = hashlib.blake2b(json.dumps(body).encode())
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes() if array.ndim else array.tobytes())
    return digest.hexdigest()


def _strip(value: object, arrays: dict[str, Array], known: dict[int, str]) -> Plain:
    """Turn ``value`` into JSON, each array replaced by its place in ``arrays``.

    An array that is there more than once is written once; ``known`` has the place of each, by its identity.
    """
    if isinstance(value, np.ndarray | np.generic):
        key = known.get(id(value)) or f"array{len(arrays)}"
        arrays[key] = np.asarray(value)
        if isinstance(value, np.ndarray):
            known[id(value)] = key
        return {_ARRAY if isinstance(value, np.ndarray) else _SCALAR: key}
    if dataclasses.is_dataclass(value):
        return {field.name: _strip(getattr(value, field.name), arrays, known) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if value.keys() & _TAGS or not all(isinstance(key, str) for key in value):
            return {_PAIRS: [[key, _strip(item, arrays, known)] for key, item in value.items()]}
        return {key: _strip(item, arrays, known) for key, item in value.items()}
    if isinstance(value, list):
        return {_LIST: [_strip(item, arrays, known) for item in value]}
    return [_strip(item, arrays, known) for item in value] if isinstance(value, tuple) else value


def write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole or not at all; into a device or a pipe as it comes."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Name a file in a folder you can write to"
        ) from None


def read(path: Path, kind: type[T]) -> T:
    """Read the ``kind`` that was packed into the file at ``path``."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return _read(path, archive, kind)
    except FileNotFoundError:
        raise RecordingError(f"there is no file {path}; Recording.save(path) writes one") from None
    except _DAMAGE_ERRORS as error:
        raise RecordingError(f"{path} is not a recording, or is damaged ({error}); record the program again") from None


def _read(path: Path, archive: NpzFile, kind: type[T]) -> T:
    header = json.loads(str(archive[_HEADER]))
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        raise RecordingError(
            f"{path} is a {header['format']!r} of version {header['version']}; this parity reads {FORMAT!r} of "
            f"version {VERSION}. Record the program again"
        )
    body = header["body"]
    names = dict.fromkeys(_array_names(body))
    missing = sorted(names.keys() - set(archive.files))
    if missing:
        raise RecordingError(f"{path} is not whole: {missing[0]} is missing. Record the program again")
    # Only what it speaks of is unpacked, and once: a few bytes may unpack to all the memory there is.
    content = {key: archive[key] for key in names}
    if header["checksum"] != _checksum(body, content):
        raise RecordingError(
            f"{path} was changed since it was written: its content does not give its checksum. Record the program again"
        )
    # In the machine's own order of bytes, which is the only one that every library computes in.
    return typing.cast(T, _restore(body, kind, {key: _native(array) for key, array in content.items()}))


def _native(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _restore(value: Plain, kind: Any, content: Mapping[str, Array]) -> Any:
    """Turn JSON back into the type ``kind``: dataclasses, tuples, mappings, arrays and plain values."""
    if kind is Any:
        return _restore_tree(value, content)
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in inside and any(dataclasses.is_dataclass(one) or typing.get_origin(one) for one in inside):
        return None if value is None else _restore(value, inside[0], content)
    if isinstance(origin, type) and issubclass(origin, np.ndarray):
        return content[value["array"]]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _restore(item, inside[1], content) for key, item in _items(value)}
    if origin is tuple:
        _expect(value, list)
        return tuple(_restore(item, inside[0], content) for item in value)
    if dataclasses.is_dataclass(kind):
        _expect(value, dict)
        hints = _hints(typing.cast(Any, kind))
        missing = {field.name for field in dataclasses.fields(kind) if _has_default(field)} - value.keys()
        given = {name: _restore(value[name], hint, content) for name, hint in hints.items() if name not in missing}
        return typing.cast(Any, kind)(**given)
    if isinstance(kind, type | types.UnionType) and kind is not Any:
        _expect(value, kind)
    return value


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _expect(value: object, kind: type | types.UnionType) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, found {type(value).__name__}")


@functools.lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _items(value: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return the items of a mapping, whether its keys could be JSON's or not."""
    _expect(value, dict)
    pairs = value[_PAIRS] if value.keys() == {_PAIRS} else value.items()
    return [(key, item) for key, item in pairs]


def _restore_tree(value: Plain, content: Mapping[str, Array]) -> Any:
    """Restore a tree of arrays and plain values."""
    if isinstance(value, list):
        return tuple(_restore_tree(item, content) for item in value)
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "") if len(value) == 1 else ""
    if tag == _ARRAY:
        return content[value[tag]]
    if tag == _SCALAR:
        return content[value[tag]][()]
    if tag == _LIST:
        return [_restore_tree(item, content) for item in value[tag]]
    return {key: _restore_tree(item, content) for key, item in _items(value)}


def _array_names(body: Plain) -> Iterator[str]:
    """Yield the arrays that a header speaks of, in the order in which they were put there."""
    if isinstance(body, list):
        for item in body:
            yield from _array_names(item)
    elif isinstance(body, dict):
        tag = next(iter(body), "") if len(body) == 1 else ""
        if tag in (_ARRAY, _SCALAR):
            yield body[tag]
        else:
            for item in body.values():
                yield from _array_names(item)
