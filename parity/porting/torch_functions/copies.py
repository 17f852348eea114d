"""PyTorch's functions that give the same values in another dtype, or new tensors of some value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity.porting.torch_functions.registry import (
    Argument,
    default_float,
    dtype_of,
    enter,
    function,
    is_array,
    sizes,
)


@function("clone", "contiguous", "alias", "positive", "__pos__", "cpu", "requires_grad_", "view_as_real_")
def same(x: Any, *_: Argument, **__: Argument) -> Any:
    """Return the same values."""
    return x


@function("detach", "detach_", "data")
def detach(x: jax.Array) -> Any:
    """The same values; no gradient goes through."""
    return lax.stop_gradient(x)


@function("float", "double", "half", "bfloat16")
def as_float(x: jax.Array) -> Any:
    """In floating numbers."""
    return x.astype(default_float())


enter(
    long=lambda x: x.astype(dtype_of("int64")),
    int=lambda x: x.astype(jnp.int32),
    bool=lambda x: x.astype(bool),
)


@function("to", "type")
def to(x: jax.Array, *args: Argument, **kwargs: Argument) -> Any:
    """In another dtype; a device is no matter here."""
    for value in (*args, kwargs.get("dtype"), kwargs.get("other")):
        if isinstance(value, np.dtype):
            return x.astype(value)
        if is_array(value):
            return x.astype(value.dtype)
    return x


@function("type_as")
def type_as(x: jax.Array, other: jax.Array) -> Any:
    """In the dtype of another."""
    return x.astype(other.dtype)


@function("copy_")
def copy(x: jax.Array, source: Argument, non_blocking: bool = False) -> Any:
    """Other values in the same shape and dtype."""
    return jnp.broadcast_to(jnp.asarray(source, x.dtype), x.shape)


@function("zeros_like", "zero_", "new_zeros_like")
def zeros_like(x: jax.Array, dtype: Argument = None) -> Any:
    """Zeros."""
    return jnp.zeros_like(x, dtype=dtype)


@function("ones_like")
def ones_like(x: jax.Array, dtype: Argument = None) -> Any:
    """Ones."""
    return jnp.ones_like(x, dtype=dtype)


@function("full_like", "fill_", "fill")
def full_like(x: jax.Array, fill_value: Argument = None, dtype: Argument = None, value: Argument = None) -> Any:
    """One value everywhere."""
    fill_value = value if fill_value is None else fill_value
    return jnp.broadcast_to(jnp.asarray(fill_value, dtype or x.dtype), x.shape)


enter(empty_like=zeros_like)


@function("new_zeros", "new_empty")
def new_zeros(x: jax.Array, *size: Argument, dtype: Argument = None) -> Any:
    """Zeros of another shape."""
    return jnp.zeros(sizes(size), dtype or x.dtype)


@function("new_ones")
def new_ones(x: jax.Array, *size: Argument, dtype: Argument = None) -> Any:
    """Ones of another shape."""
    return jnp.ones(sizes(size), dtype or x.dtype)


@function("new_full")
def new_full(x: jax.Array, size: Argument, fill_value: Argument, dtype: Argument = None) -> Any:
    """One value in another shape."""
    return jnp.full(tuple(size), fill_value, dtype or x.dtype)
