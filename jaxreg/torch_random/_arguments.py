"""Checks of the arguments of :mod:`jaxreg.torch_random`, by PyTorch's own rules."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxreg._errors import ArgumentError

Size = int | Sequence[int]

# Floating dtypes that PyTorch draws, each with its largest value.
LARGEST = {
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float.fromhex("0x1.fffffffffffffp1023"),
}


def integer(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be an integer, but got {value!r}") from None


def to_shape(*size: Size) -> tuple[int, ...]:
    """Lengths of the axes: given one by one, or all in one sequence."""
    lengths: Sequence[Any] = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
    shape = tuple(integer(length, "a length in size") for length in lengths)
    if any(length < 0 for length in shape):
        raise ArgumentError(f"a length in size must not be negative, but got {shape}")
    return shape


def to_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        # NumPy reads None as float64, where PyTorch would take float32: neither is guessed.
        result = np.dtype("object" if dtype is None else dtype)
    except TypeError:
        result = np.dtype("object")
    if result.name not in LARGEST:
        raise ArgumentError(f"dtype must be one of {', '.join(LARGEST)}, but got {dtype!r}")
    return result


def check_bounds(low: float, high: float, dtype: np.dtype[Any]) -> None:
    largest = LARGEST[dtype.name]
    for name, bound in (("low", low), ("high", high)):
        if not -largest <= bound <= largest:
            raise ArgumentError(f"uniform needs bounds that {dtype.name} can hold, but got {name}={bound}")
    if low > high:
        raise ArgumentError(f"uniform needs low <= high, but got low={low} and high={high}")
    if high - low > largest:
        raise ArgumentError(f"uniform needs high - low within {dtype.name}, but got low={low} and high={high}")


def check_normal(mean: float, std: float, compute: str) -> None:
    largest = LARGEST[compute]
    if not 0 <= std <= largest:
        raise ArgumentError(f"normal needs a finite std >= 0 that {compute} can hold, but got {std}")
    if not -largest <= mean <= largest:
        raise ArgumentError(f"normal needs a finite mean that {compute} can hold, but got {mean}")
