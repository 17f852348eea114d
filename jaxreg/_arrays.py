"""The one door for data: whatever holds numbers becomes an array exactly, and what does not is refused by its place."""

from __future__ import annotations

import decimal
import numbers
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._errors import ArgumentError
from jaxreg._traced import is_tracer
from jaxreg._types import AnyArray, HostArray
from jaxreg._validation import is_array

_Value = TypeVar("_Value")
_Array = TypeVar("_Array", bound=AnyArray)


def as_array(name: str, value: object) -> AnyArray:
    """Return what ``value`` holds as an array of numbers in the host's byte order, JAX's or NumPy's.

    JAX arrays, traced ones too, and NumPy arrays of numbers come back as they are. Lists, pandas' frames and series
    (nullable and categorical columns too), Arrow columns and PyTorch's tensors are converted.

    Args:
        name: what it is called in messages.
        value: anything that holds numbers.

    Raises:
        ArgumentError: it holds something else; the message names the first value that is no number, and its place.
    """
    if is_array(value):
        return _real(name, value)
    if type(value) is np.ndarray and value.dtype.kind in "fiub" and value.dtype.isnative:
        return value if value.dtype.itemsize <= 8 else value.astype(np.float64)
    if isinstance(value, np.ma.MaskedArray):
        _refuse_masked(name, value)
        value = value.data
    elif hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise ArgumentError(f"{name} is sparse, got {type(value).__name__}; write {name}.toarray()")
    elif hasattr(value, "detach") and hasattr(value, "cpu"):
        value = _of_tensor(name, value)
    elif hasattr(value, "dtypes") and hasattr(value, "columns"):
        value = _of_frame(name, value)
    elif hasattr(value, "dtype") and hasattr(value, "array") and hasattr(value, "index"):
        label = getattr(value, "name", None)
        value = _numbers(name if label is None else f"{name} ({label})", _plain(value))
    else:
        value = _of_anything(name, value)
        if is_array(value):
            return _real(name, value)
    return _native(name, value)


def as_known(name: str, value: _Value) -> _Value:
    """Return ``value``, which must be known before a training is traced.

    Raises:
        ArgumentError: it is traced itself.
    """
    if is_tracer(value):
        raise ArgumentError(f"{name} must be known before the program is traced, got {value}; hand it in from outside")
    return value


def as_weights(value: object) -> AnyArray:
    """Return weights of rows or elements: numbers of at least 0, not all of them 0.

    Raises:
        ArgumentError: as :func:`as_array`, or one is negative, or all are 0: a weighted mean then means nothing.
    """
    weights = as_array("weights", value)
    if is_tracer(weights):
        return weights
    held = np.asarray(weights)
    bad = np.argwhere(held < 0)  # NaN is no argument that is wrong: it spreads, as in a loop by hand
    if len(bad):
        found = held[tuple(bad[0])]
        raise ArgumentError(f"weights must be numbers of at least 0, got {found}{_place(bad[0])}")
    if held.size and not held.any():
        raise ArgumentError("weights are all 0: the mean over rows that do not count is NaN; give one a weight")
    return weights


def _real(name: str, array: _Array) -> _Array:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise ArgumentError(f"{name} must hold numbers, got keys for random ones ({array.dtype})")
    if not jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    raise ArgumentError(f"{name} must hold real numbers, got {array.dtype}; take .real, or the parts as columns")


def _native(name: str, value: object) -> HostArray:
    array = np.asarray(value)
    if array.dtype.kind == "c":
        _real(name, array)
    if array.dtype.kind in "mM" or (array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.number)):
        array = _numbers(name, array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _refuse_masked(name: str, value: np.ma.MaskedArray[Any, Any]) -> None:
    mask = np.ma.getmaskarray(value)
    if mask.any():
        raise ArgumentError(f"{name} is masked{_place(np.argwhere(mask)[0])}; fill it or leave the row out")


def _of_tensor(name: str, value: Any) -> AnyArray:
    """Return a PyTorch tensor's numbers; PyTorch's own conversion knows no bfloat16."""
    try:
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            return np.asarray(jnp.from_dlpack(value.contiguous()))
        return value.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ArgumentError(f"{name} is a tensor that has no plain numbers: {error}") from error


def _of_frame(name: str, frame: Any) -> HostArray:
    names = list(frame.columns)
    # By place where a name is there twice: it would give both.
    held = [frame[n] for n in names] if len(set(names)) == len(names) else [frame.iloc[:, k] for k in range(len(names))]
    columns = [_numbers(f"{name}, column {n!r}", _plain(column)) for n, column in zip(names, held, strict=True)]
    if not columns:
        return np.zeros((len(frame), 0), np.float32)
    return np.stack(columns, 1)


def _plain(series: Any) -> HostArray:
    """Return a column's values: a category's are those it stands for, and what is missing is ``None``."""
    values = np.asarray(series)
    if values.dtype.kind != "O" and (isinstance(series.dtype, np.dtype) or series.notna().all()):
        return values
    return np.asarray(series.astype(object).where(series.notna(), None))


def _of_anything(name: str, value: Any) -> AnyArray:
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:  # traced numbers in a list
        return jnp.asarray(value)
    except ValueError as error:
        raise ArgumentError(f"{name} must have rows of one length: {error}") from None
    except (TypeError, RuntimeError) as error:
        if hasattr(value, "__dlpack__"):
            return jnp.from_dlpack(value)
        raise ArgumentError(f"{name} must hold numbers, got {type(value).__name__}: {error}") from error


def _numbers(name: str, values: object) -> HostArray:
    """Return values that are numbers one by one, whatever they are kept as."""
    held = np.asarray(values)
    if held.dtype.kind in "fiub":
        return held
    if held.dtype.kind == "O":
        for place in np.ndindex(held.shape):
            if not isinstance(held[place], numbers.Real | np.bool_ | decimal.Decimal):
                raise _no_number(name, held[place], place)
        try:
            return held.astype(np.float64)
        except OverflowError:  # an integer with more digits than float64 has room for
            raise ArgumentError(f"{name} must hold numbers that float64 holds, got one beyond 1.8e308") from None
    if not held.size:
        raise ArgumentError(f"{name} must hold numbers, got {held.dtype}")
    first = (0,) * held.ndim
    raise _no_number(name, held[first], first)


def _no_number(name: str, value: object, place: Sequence[int]) -> ArgumentError:
    what = "a missing value" if value is None else repr(value.item() if isinstance(value, np.generic) else value)
    advice = "fill it or leave the row out" if value is None else "convert it to numbers first"
    return ArgumentError(f"{name} must hold numbers, got {what}{_place(place)}; {advice}")


def _place(place: Sequence[int] | HostArray) -> str:
    if not len(place):
        return ""
    column = f", column {int(place[1])}" if len(place) > 1 else ""
    return f" at row {int(place[0])}{column}"
