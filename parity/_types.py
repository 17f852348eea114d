"""Names for what NumPy, JAX and type checkers have no exact type for."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

# A nest of tuples, lists and dicts with arrays at its ends, as ``jax.tree`` takes it.
PyTree: TypeAlias = Any
# An array of NumPy's, of any shape and dtype.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
# What jax.numpy takes for an array, and for a dtype.
ArrayLike: TypeAlias = jax.typing.ArrayLike
DTypeLike: TypeAlias = jax.typing.DTypeLike
# One number, which may be traced.
Scalar: TypeAlias = float | jax.Array
