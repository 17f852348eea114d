"""Parameters and optimizer states in safetensors files: arrays and plain values, nothing that could run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from jaxreg._errors import ArgumentError
from jaxreg._files import write_whole
from jaxreg.state_dict._torch_names import Array, as_numpy, parameters

# What an optimizer's file has beside the arrays: its parameter groups as JSON, in the header's free text.
_GROUPS = "param_groups"
_ENTRY = re.compile(r"state\.(\d{1,9})\.(.+)", re.DOTALL)
# The dtypes of the format, as NumPy has them; safetensors' own reading knows none of eight bits but integers.
_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{
        f"{letter}{bits}": np.dtype(f"{kind}{bits}")
        for letter, kind in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "C64": np.complex64,
}


def export(model: nnx.Module) -> dict[str, Array]:
    """The parameters of a model as ``torch.nn.Module.state_dict`` has them.

    Args:
        model: a :class:`jaxreg.Linear` or ``flax.nnx.Linear``, a ``flax.nnx.Sequential``, or a module that holds such
            ones or ``flax.nnx.Param``s of its own; attributes give the names, as in PyTorch. It is not changed.

    Returns:
        Name to array, in the order of PyTorch's ``parameters()``: a linear layer's ``"weight"`` ``(out_features,
        in_features)`` and ``"bias"`` ``(out_features,)``, in the layers of a ``Sequential`` ``"0.weight"`` and so on.
        The arrays are contiguous copies, of the parameters' dtypes.

    Raises:
        ArgumentError: another of Flax's layers, whose layout in PyTorch is not known, or parameters that are shared.

    Example:
        >>> from flax import nnx
        >>> import jaxreg
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(jaxreg.Linear(3, 2, rngs=rngs), nnx.relu, jaxreg.Linear(2, 1, rngs=rngs))
        >>> {name: array.shape for name, array in export(model).items()}
        {'0.weight': (2, 3), '0.bias': (2,), '2.weight': (1, 2), '2.bias': (1,)}
    """
    return {parameter.name: parameter.to_torch(parameter.variable[...]) for parameter in parameters(model)}


def save_file(source: nnx.Module | Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write parameters, or an optimizer's state, to a safetensors file.

    ``model.load_state_dict(safetensors.torch.load_file(path))`` reads a model's file in PyTorch. The file appears whole
    or not at all: one that is there already is replaced at the end.

    Args:
        source: a model, a mapping from names to arrays (JAX's, NumPy's or PyTorch's, laid out in memory in any way), or
            what :func:`jaxreg.state_dict.export_optimizer` or PyTorch's ``optimizer.state_dict()`` gave.
        path: where to; its folder must be there.

    Raises:
        ArgumentError: something in the mapping is no array, or an optimizer's setting is no plain value.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from flax import nnx
        >>> import jaxreg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file(jaxreg.Linear(3, 2, rngs=nnx.Rngs(0)), f"{folder}/model.safetensors")
        ...     sorted(load_file(f"{folder}/model.safetensors"))
        ['bias', 'weight']
    """
    source = export(source) if isinstance(source, nnx.Module) else source
    if not isinstance(source, Mapping):
        raise ArgumentError(f"source must be a model or a mapping from names to arrays, got {type(source).__name__}")
    metadata = {"format": "pt"}  # what PyTorch's tools look for
    if set(source) == {"state", _GROUPS}:
        metadata[_GROUPS] = _as_json(source[_GROUPS])
        source = {
            f"state.{index}.{key}": value
            for index, entry in source["state"].items()
            for key, value in entry.items()
            if value is not None
        }
    arrays = {str(name): as_numpy(value, repr(name)).copy(order="C") for name, value in source.items()}
    write_whole(path, safetensors.numpy.save(arrays, metadata=metadata))


def load_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a safetensors file, PyTorch's or :func:`jaxreg.state_dict.save_file`'s.

    Args:
        path: of the file.

    Returns:
        Name to NumPy array; bfloat16 as ``ml_dtypes`` has it. From an optimizer's file the structure that was saved.

    Raises:
        ArgumentError: it is no safetensors file, a damaged one, or it holds a dtype that NumPy lacks.
        FileNotFoundError: there is none.
    """
    name = os.fspath(path)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            groups = (file.metadata() or {}).get(_GROUPS)
        arrays = {key: _array(key, **held) for key, held in _parts(Path(path).read_bytes())}
    except safetensors.SafetensorError as error:
        raise ArgumentError(f"{name} must be a safetensors file, and is not or is damaged: {error}") from None
    return arrays if groups is None else _state(name, arrays, groups)


def _parts(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    parts: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    return parts


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> Array:
    if dtype not in _DTYPES:
        raise ArgumentError(f"{name!r} is of dtype {dtype}, which NumPy lacks; save it as one of {', '.join(_DTYPES)}")
    return np.frombuffer(bytearray(data), _DTYPES[dtype]).reshape(shape)


def _state(path: str, arrays: dict[str, Array], groups: str) -> dict[str, Any]:
    """An optimizer's state, of the arrays of its file and the text beside them."""
    state: dict[int, dict[str, Array]] = {}
    for name, array in arrays.items():
        found = _ENTRY.fullmatch(name)
        if found is None:
            raise ArgumentError(
                f"{path} says that it is an optimizer's, and {name!r} in it is not called state.NUMBER.NAME as "
                "jaxreg.state_dict.save_file writes it"
            )
        state.setdefault(int(found[1]), {})[found[2]] = array
    try:
        known = json.loads(groups)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} must hold parameter groups as JSON, and they are damaged: {error}") from None
    if not isinstance(known, list) or not all(isinstance(group, dict) for group in known):
        raise ArgumentError(f"{path} must hold a list of parameter groups, got {groups[:80]}")
    return {"state": dict(sorted(state.items())), _GROUPS: known}


def _as_json(groups: Any) -> str:
    def plain(value: Any) -> Any:
        if hasattr(value, "item"):  # a learning rate that is an array of one element
            return value.item()
        raise ArgumentError(f"param_groups must hold plain values, got {type(value).__name__}")

    return json.dumps(groups, default=plain)
