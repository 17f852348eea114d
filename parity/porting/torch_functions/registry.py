"""The table from PyTorch's functions to JAX's, by the name that a recorded operation has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from parity._errors import PortError

# What a function takes: arrays, numbers, and trees of them, as PyTorch's own takes them.
Argument: TypeAlias = Any
JaxFunction = Callable[..., Any]
FUNCTIONS: dict[str, JaxFunction] = {}


def function(*names: str) -> Callable[[JaxFunction], JaxFunction]:
    """Enter a function under PyTorch's names."""

    def enter(made: JaxFunction) -> JaxFunction:
        for name in names:
            FUNCTIONS[name] = made
        return made

    return enter


def register(torch_function: str | Callable[..., Any], jax_function: JaxFunction) -> None:
    """Give the JAX counterpart of a PyTorch function, for ports that parity makes.

    Args:
        torch_function: the function, such as ``torch.special.erfcx``, or its name as a message shows it.
        jax_function: takes what PyTorch's takes, tensors as JAX arrays, and returns what it returns. Gradients are
            JAX's own: where PyTorch has another convention, at a kink say, use ``jax.custom_jvp``.

    Raises:
        PortError: one of the two is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> register("my_square", lambda x: jnp.square(x))
        >>> FUNCTIONS.pop("my_square")(jnp.float32(3.0))
        Array(9., dtype=float32)
    """
    name = torch_function if isinstance(torch_function, str) else getattr(torch_function, "__name__", None)
    if not isinstance(name, str) or not callable(jax_function):
        raise PortError(
            "register takes a PyTorch function, or its name, and a function of JAX, got "
            f"{type(torch_function).__name__} and {type(jax_function).__name__}"
        )
    FUNCTIONS[name] = jax_function


def enter(**functions: JaxFunction) -> None:
    """Enter functions under PyTorch's names."""
    FUNCTIONS.update(functions)


def default_float() -> Any:
    """Return the floating dtype that is computed in: float64 in the float64 run, where the program says float32."""
    return jnp.zeros(()).dtype


def dtype_of(name: str) -> Any:
    """Return the dtype that a PyTorch dtype stands for in this run."""
    if name in ("float32", "float64", "float16", "bfloat16", "float", "double"):
        return default_float()
    if name == "int64":
        return jnp.zeros((), int).dtype
    return jnp.dtype(name)


def is_array(value: Argument) -> bool:
    """Whether an argument is an array."""
    return isinstance(value, jax.Array) or hasattr(value, "aval")


def is_floating(value: Argument) -> bool:
    """Whether an argument is an array of floating numbers."""
    return bool(jnp.issubdtype(jnp.result_type(value), jnp.floating))


def axes_of(x: jax.Array, dim: Argument) -> tuple[int, ...]:
    """Return the axes that PyTorch's ``dim`` means: all for ``None`` and for an empty tuple."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(x.ndim))
    listed = dim if isinstance(dim, list | tuple) else (dim,)
    return tuple(sorted(axis % max(x.ndim, 1) for axis in listed)) if x.ndim else ()


def sizes(given: tuple[Argument, ...]) -> tuple[int, ...]:
    """Return sizes that were given one by one, or as one tuple."""
    if len(given) == 1 and isinstance(given[0], list | tuple):
        return tuple(int(size) for size in given[0])
    return tuple(int(size) for size in given)


def each_axis(value: Argument, axes: int) -> tuple[int, ...]:
    """Return a number for each axis, of one for all or of as many."""
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(int(one) for one in (listed * axes if len(listed) == 1 else listed))
