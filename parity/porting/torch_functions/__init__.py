"""PyTorch's functions in JAX: the table that graphs are ported by."""

from __future__ import annotations

from parity.porting.torch_functions import (
    activations,
    choosing,
    copies,
    elementwise,
    layers,
    losses,
    ordering,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
    special,
)
from parity.porting.torch_functions.registry import FUNCTIONS, dtype_of, function

__all__ = ["FUNCTIONS", "dtype_of", "function"]
_ROOMS = (
    *(activations, choosing, copies, elementwise, layers, losses, ordering, pooling, products, recurrent, reductions),
    *(resizing, shapes, special),
)
for _alias, _name in elementwise.aliases().items():
    if _name in FUNCTIONS:
        FUNCTIONS.setdefault(_alias, FUNCTIONS[_name])
for _name in ("alias", "as_strided", "diagonal", "expand", "narrow", "permute", "squeeze", "t", "transpose", "unbind",
              "unfold", "unsqueeze", "view", "split_with_sizes"):  # fmt: skip
    FUNCTIONS[f"{_name}_copy"] = FUNCTIONS[_name]
