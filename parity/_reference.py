"""A port as its float64 run takes it: its constants are those of the recorded dtype."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from parity._ports import Port


def prepared(dtype: np.dtype[Any], port: Port) -> Port:
    """The same port, which means the same training in float64 as in the recorded dtype.

    ``jnp.finfo(x.dtype).eps`` would be another epsilon in float64.
    """
    if dtype == np.float64:
        return port
    return dataclasses.replace(port, apply=_Narrow(dtype, port.apply), loss=_Narrow(dtype, port.loss))


class _Narrow:
    """A function for which ``finfo`` of float64 is that of the recorded dtype."""

    def __init__(self, dtype: np.dtype[Any], function: Callable[..., Any]) -> None:
        self._dtype, self._function = dtype, function
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *arguments: Any) -> Any:
        honest: tuple[Any, Any] = jnp.finfo, np.finfo

        def narrow(finfo: Any) -> Any:
            return lambda kind: _Limits(finfo(self._dtype)) if _is_double(kind) else finfo(kind)

        jnp.finfo, np.finfo = map(narrow, honest)  # type: ignore[misc]
        try:
            return self._function(*arguments)
        finally:
            jnp.finfo, np.finfo = honest  # type: ignore[misc]


class _Limits:
    """The limits of a dtype as float64 numbers, so that nothing which they meet is promoted or refused."""

    def __init__(self, finfo: Any) -> None:
        self._finfo = finfo

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._finfo, name)
        return np.float64(value) if isinstance(value, np.generic) else value


def _is_double(kind: Any) -> bool:
    try:
        return bool(np.dtype(getattr(kind, "dtype", kind)) == np.float64)
    except TypeError:
        return False
