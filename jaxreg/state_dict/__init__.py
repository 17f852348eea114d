"""Weights and optimizer states in and out, with PyTorch's names and layout, as NumPy arrays or safetensors files.

Nothing here needs PyTorch, nor reads a pickle. Both directions::

    jaxreg.state_dict.save_file(model, "model.safetensors")
    torch_model.load_state_dict(safetensors.torch.load_file("model.safetensors"))

    safetensors.torch.save_file(torch_model.state_dict(), "model.safetensors")
    model = jaxreg.state_dict.load(model, jaxreg.state_dict.load_file("model.safetensors"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx

from jaxreg._errors import ArgumentError
from jaxreg.state_dict._safetensors import export, load_file, save_file
from jaxreg.state_dict._sgd_state import export_optimizer, load_optimizer, make_optimizer
from jaxreg.state_dict._torch_names import as_numpy, compare, parameters, raise_mismatches

__all__ = ["export", "export_optimizer", "load", "load_file", "load_optimizer", "make_optimizer", "save_file"]

Model = TypeVar("Model", bound=nnx.Module)


def load(model: Model, mapping: Mapping[str, Any]) -> Model:
    """A new model like ``model``, with the parameters of ``mapping``.

    Args:
        model: gives the structure; see :func:`export` for what it may be. It is not changed.
        mapping: PyTorch's names to arrays in PyTorch's layout, as :func:`export`, :func:`load_file` and PyTorch's own
            ``state_dict()`` give: NumPy arrays, JAX arrays, or tensors on the CPU.

    Returns:
        The new model, its parameters on the devices where those of ``model`` are.

    Raises:
        ArgumentError: names, shapes or dtypes differ; the message lists every difference. PyTorch would cast another
            dtype without a word.

    Example:
        >>> from flax import nnx
        >>> import numpy as np
        >>> import jaxreg
        >>> weights = {"weight": np.array([[1, 2, 3]], np.float32), "bias": np.array([4], np.float32)}
        >>> print(load(jaxreg.Linear(3, 1, rngs=nnx.Rngs(0)), weights)(np.ones(3, np.float32)))
        [10.]
    """
    if not isinstance(mapping, Mapping):
        raise ArgumentError(f"mapping must be a mapping from names to arrays, got {type(mapping).__name__}")
    loaded = nnx.clone(model)
    own = {parameter.name: parameter for parameter in parameters(loaded)}
    arrays = {name: as_numpy(value, repr(name)) for name, value in mapping.items() if name in own}
    wrong = [f"{name!r} is missing" for name in own if name not in mapping]
    wrong += [f"{name!r} is no parameter of the model" for name in mapping if name not in own]
    for name, array in arrays.items():
        wrong += compare(own[name], array, repr(name))
    raise_mismatches("the parameters", wrong)
    for name, array in arrays.items():
        variable = own[name].variable
        variable[...] = jax.device_put(own[name].from_torch(array), variable[...].sharding)
    return loaded
