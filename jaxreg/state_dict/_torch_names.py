"""What PyTorch calls a model's parameters, in which order, and in which layout it keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxreg._arrays import as_array
from jaxreg._errors import ArgumentError
from jaxreg._validation import check_dtype

Array = np.ndarray[Any, Any]


class Parameter(NamedTuple):
    """One parameter of a model.

    Attributes:
        name: PyTorch's name, ``"0.weight"``.
        path: the dotted path in the model's state, ``"layers.0.kernel"``.
        transposed: whether PyTorch keeps the transpose.
        variable: where the model keeps it.
    """

    name: str
    path: str
    transposed: bool
    variable: nnx.Variable[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as PyTorch has it."""
        shape: tuple[int, ...] = self.variable[...].shape
        return shape[::-1] if self.transposed else shape

    def to_torch(self, array: Any) -> Array:
        """An array of this parameter (a gradient, a buffer) in PyTorch's layout: a copy of its own, contiguous."""
        array = np.asarray(array)
        return np.array(array.T if self.transposed else array, order="C")

    def from_torch(self, array: Array) -> jax.Array:
        """The other way. Refuses what JAX would cut to 32 bits."""
        check_dtype(array.dtype, repr(self.name))
        return jnp.asarray(array.T if self.transposed else array)


def parameters(model: nnx.Module) -> list[Parameter]:
    """The parameters of a model, in the order of PyTorch's ``model.parameters()``."""
    if not isinstance(model, nnx.Module):
        raise ArgumentError(f"model must be a flax.nnx.Module such as jaxreg.Linear, got {type(model).__name__}")
    found = list(_walk(model, "", ""))
    names: dict[int, str] = {}
    for parameter in found:
        first = names.setdefault(id(parameter.variable), parameter.name)
        if first != parameter.name:
            raise ArgumentError(f"{first!r} and {parameter.name!r} are one parameter; shared ones have no single name")
    return found


def _walk(module: nnx.Module, name: str, path: str) -> Iterator[Parameter]:
    if isinstance(module, nnx.Linear):
        yield Parameter(f"{name}weight", f"{path}kernel", True, module.kernel)
        if module.bias is not None:
            yield Parameter(f"{name}bias", f"{path}bias", False, module.bias)
        return
    if any(kind.__module__.startswith("flax.nnx.nn.") for kind in type(module).__mro__):
        if jax.tree.leaves(nnx.state(module, nnx.Param)):
            raise ArgumentError(
                f"PyTorch's layout is known for flax.nnx.Linear alone among Flax's layers, got {type(module).__name__}"
                + (f" at {path[:-1]!r}" if path else "")
            )
        return
    if isinstance(module, nnx.Sequential):
        yield from _walk(module.layers, name, f"{path}layers.")  # torch.nn.Sequential numbers its layers itself
        return
    held = dict(enumerate(module)) if isinstance(module, nnx.List) else vars(module)
    for key, value in held.items():
        if isinstance(value, nnx.Param):
            yield Parameter(f"{name}{key}", f"{path}{key}", False, value)
    for key, value in held.items():
        if isinstance(value, nnx.Module):
            yield from _walk(value, f"{name}{key}.", f"{path}{key}.")


def as_numpy(value: Any, what: str) -> Array:
    """A NumPy array of whatever holds numbers, trained tensors and those of 16 bits too."""
    return np.asarray(as_array(what, value))


def raise_mismatches(what: str, mismatches: list[str]) -> None:
    """One error for all of them, if there are any."""
    if mismatches:
        raise ArgumentError(f"cannot load {what}:" + "".join(f"\n- {mismatch}" for mismatch in mismatches))


def compare(parameter: Parameter, array: Array, what: str) -> list[str]:
    """What is wrong with an array that is to go where ``parameter`` is, or beside it."""
    wrong = []
    if array.shape != parameter.shape:
        fix = "; PyTorch keeps (out, in)" if parameter.transposed and array.shape == parameter.shape[::-1] else ""
        wrong.append(f"{what} must have shape {parameter.shape}, got {array.shape}{fix}")
    wanted = parameter.variable[...].dtype
    if array.dtype != wanted:
        wrong.append(f"{what} must have dtype {wanted}, got {array.dtype}")
    return wrong
