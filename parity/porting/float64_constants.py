"""A port as its float64 run takes it: its constants and thresholds are those of the recorded dtype."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.porting import function_holders
from parity.porting.buffer_tables import constant_buffers, with_tables
from parity.porting.function_holders import Place
from parity.porting.port import Port
from parity.recording.recording import Recording
from parity.recording.thresholds import SOFTPLUS

_FLOAT32_MANTISSA_BITS = np.finfo(np.float32).nmant
# Functions are replaced in modules, which all threads share.
_REPLACING = threading.RLock()


def prepared(recording: Recording, port: Port) -> Port:
    """Return a port that means the same training in float64 as in the recorded dtype.

    ``jnp.finfo(x.dtype).eps`` would be another epsilon in float64, a softplus above its threshold another function, and
    a table of constants another table.
    """
    dtype = recording.dtype
    if dtype == np.float64:
        return port
    apply = with_tables(_Narrow(dtype, port.apply), constant_buffers(recording), dtype)
    return dataclasses.replace(port, apply=apply, loss=_Narrow(dtype, port.loss))


class _Narrow:
    """Return a function that finds the recorded dtype's limits and thresholds in a float64 run."""

    def __init__(self, dtype: np.dtype[Any], function: Callable[..., Any]) -> None:
        self._dtype, self._function = dtype, function
        self._places: list[Place] | None = None
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *arguments: Any) -> Any:
        def narrow(finfo: Any) -> Any:
            return lambda kind: _Limits(finfo(self._dtype)) if _is_double(kind) else finfo(kind)

        replaced: dict[Any, Any] = {jnp.finfo: narrow(jnp.finfo), np.finfo: narrow(np.finfo)}
        if np.finfo(self._dtype).nmant <= _FLOAT32_MANTISSA_BITS:
            replaced[jax.nn.softplus] = _thresholded
        if self._places is None:  # as late as can be: a port may import as it is made
            self._places = [place for function in replaced for place in function_holders.places(function, _LIBRARIES)]
        with _REPLACING:
            for place in self._places:
                place.put(replaced[place.value])
            try:
                return self._function(*arguments)
            finally:
                for place in self._places:
                    place.put(place.value)


# Where people call these functions.
_LIBRARIES = ("numpy", "jax.numpy", "jax.nn", "flax.nnx", "flax.linen")


def _thresholded(x: Any) -> Any:
    """``jax.nn.softplus``, and the identity where float32 cannot tell it from that."""
    x = jnp.asarray(x)
    if x.dtype != np.float64:
        return _softplus(x)
    return jnp.where(x > SOFTPLUS, x, _softplus(jnp.minimum(x, SOFTPLUS)))


_softplus = jax.nn.softplus


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
