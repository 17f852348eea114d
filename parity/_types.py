"""Names for what NumPy, JAX and type checkers have no exact type for."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

# A nest of tuples, lists and dicts with arrays at its ends, as ``jax.tree`` takes it.
PyTree: TypeAlias = Any
# An array of NumPy's, of any shape and dtype.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
# What jax.numpy takes for an array.
ArrayLike: TypeAlias = jax.typing.ArrayLike
