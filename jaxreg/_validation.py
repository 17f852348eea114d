"""Checks that more than one room makes, each with one message that says what was expected and what came."""

from __future__ import annotations

import math
import numbers
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxreg._errors import ArgumentError

# Up to here float64 has every whole number.
LARGEST_COUNT = 2**53
# Types whose every instance is a JAX array: asking JAX takes microseconds, which a small training has not many of.
_ARRAY_TYPES: set[type] = set()


def is_array(value: object) -> TypeGuard[jax.Array]:
    """Return whether ``value`` is a JAX array, traced or not."""
    if type(value) in _ARRAY_TYPES:
        return True
    if not isinstance(value, jax.Array):
        return False
    if not isinstance(value, jax.core.Tracer):
        _ARRAY_TYPES.add(type(value))
    return True


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a real number of Python's or NumPy's, and no truth value."""
    return type(value) in (int, float) or (isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_))


def is_finite(value: object) -> bool:
    """Return whether ``value`` is a number that a float can be."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def known(value: object) -> float | None:
    """Return the number that ``value`` is, or ``None`` where only the running program knows it."""
    return None if isinstance(value, jax.core.Tracer) else float(np.asarray(value).reshape(()))


def check_setting(name: str, value: object, minimum: float = 0.0) -> None:
    """Refuse what is neither a number of at least ``minimum`` nor an array that holds one."""
    if type(value) is float and minimum <= value < math.inf and value > -math.inf:
        return  # soon, since a sweep has thousands of them
    if isinstance(value, jax.Array | np.ndarray):
        if value.size != 1:
            raise ArgumentError(f"{name} must be one number, got an array of shape {tuple(value.shape)}")
        if not jnp.issubdtype(value.dtype, np.number) or jnp.issubdtype(value.dtype, np.complexfloating):
            raise ArgumentError(f"{name} must be a number, got an array of {value.dtype}")
    elif not is_number(value):
        raise ArgumentError(f"{name} must be a number, got {value!r}")
    try:
        number = known(value)
    except OverflowError:  # an integer beyond float64
        number = math.inf
    if number is not None and not (minimum <= number < math.inf and number > -math.inf):
        wanted = "finite" if minimum == -math.inf else f"at least {minimum:g} and finite"
        raise ArgumentError(f"{name} must be {wanted}, got {value!r}")


def check_count(name: str, value: object, minimum: int) -> None:
    """Refuse what is not an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < minimum:
        raise ArgumentError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    if int(value) > LARGEST_COUNT:
        raise ArgumentError(f"{name} must be at most 2^53, beyond which float64 skips whole numbers, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither true nor false, as a truth value or an array that holds one."""
    holds_one = isinstance(value, jax.Array | np.ndarray) and value.size == 1 and jnp.issubdtype(value.dtype, np.bool_)
    if not isinstance(value, bool | np.bool_) and not holds_one:
        raise ArgumentError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: object, *choices: str) -> None:
    """Refuse what is none of some words."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        raise ArgumentError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def check_between(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is not a number from ``low`` to ``high``, both included."""
    if not is_number(value) or not low <= value <= high:
        raise ArgumentError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")


def check_dtype(dtype: DTypeLike, what: str) -> None:
    """Refuse a dtype that JAX would cut to a smaller one without a word (jax#652, #1333)."""
    wanted = jnp.dtype(dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise ArgumentError(f"{what} must be a floating dtype, got {wanted}")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ArgumentError(
            f"{what} is {wanted}, which JAX would cut to {jax.dtypes.canonicalize_dtype(wanted)}: switch 64-bit types "
            'on first, with jax.config.update("jax_enable_x64", True)'
        )
