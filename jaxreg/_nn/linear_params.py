"""The layout of a linear layer's parameters: by name, as a tree, or as one matrix with the kernel over the bias.

The leaves of a tree come in the order of their names: ``bias``, then ``kernel``.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._types import AnyArray, Params, PyTree, TreeDef

_Some = TypeVar("_Some", bound=AnyArray)


class LayerParams(NamedTuple):
    """Kernel ``(in_features, out_features)`` and bias ``(out_features,)``, which may be ``None``."""

    kernel: jax.Array
    bias: jax.Array | None


def named(params: PyTree) -> dict[str, jax.Array]:
    """Return the leaves of a layer's parameter tree by name."""
    *bias, kernel = jax.tree.leaves(params)
    return {"bias": bias[0], "kernel": kernel} if bias else {"kernel": kernel}


def like(structure: TreeDef, params: PyTree) -> Params:
    """Return the leaves of ``params`` in another tree structure."""
    return jax.tree.unflatten(structure, jax.tree.leaves(params))


def stack(kernel: _Some, bias: _Some | None) -> _Some:
    """Return the coefficients ``(in_features + 1, out_features)``: the kernel over the bias, if there is one."""
    if bias is None:
        return kernel
    stacked: _Some = (np if isinstance(kernel, np.ndarray) else jnp).concatenate([kernel, bias[None]])
    return stacked


def unstack(coefficients: jax.Array, *, has_bias: bool) -> dict[str, jax.Array]:
    """Return the parameters by name of coefficients ``(..., coefficients, outputs)``; the reverse of :func:`stack`."""
    if not has_bias:
        return {"kernel": coefficients}
    return {"bias": coefficients[..., -1, :], "kernel": coefficients[..., :-1, :]}


def stack_tree(params: Params) -> jax.Array:
    """Return the coefficients of a layer's parameter tree."""
    leaves = named(params)
    return stack(leaves["kernel"], leaves.get("bias"))


def unstack_tree(coefficients: jax.Array, structure: TreeDef) -> Params:
    """Return coefficients as a layer's parameter tree of this structure."""
    return like(structure, unstack(coefficients, has_bias=structure.num_leaves == 2))
