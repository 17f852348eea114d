"""PyTorch's resizing of images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.porting.torch_functions.registry import Argument, function


def _nearest_of(axes: int) -> Any:
    def resize(x: jax.Array, output_size: Argument, *scales: Argument) -> Any:
        given = list(scales[0]) if scales and isinstance(scales[0], list | tuple) else list(scales)
        for k in range(axes):
            axis, whole = x.ndim - axes + k, x.shape[x.ndim - axes + k]
            factor: Any = given[k] if k < len(given) else None
            number = int(output_size[k]) if output_size is not None else int(whole * factor)
            share = np.float32(1 / factor) if factor else np.float32(whole) / np.float32(number)
            index = np.minimum(np.floor(np.arange(number, dtype=np.float32) * share).astype(int), whole - 1)
            x = jnp.take(x, index, axis=axis)
        return x

    return resize


def _linear_weights(whole: int, number: int, align: bool, factor: Argument) -> Any:
    if align:
        places = np.arange(number) * ((whole - 1) / (number - 1) if number > 1 else 0.0)
    else:
        share = 1 / factor if factor else whole / number
        places = np.maximum((np.arange(number) + 0.5) * share - 0.5, 0)
    low = np.minimum(np.floor(places).astype(int), whole - 1)
    high = np.minimum(low + 1, whole - 1)
    return low, high, places - low


def _interpolated_of(axes: int) -> Any:
    def resize(x: jax.Array, output_size: Argument, align_corners: bool, *scales: Argument) -> Any:
        given = list(scales[0]) if scales and isinstance(scales[0], list | tuple) else list(scales)
        for k in range(axes):
            axis, whole = x.ndim - axes + k, x.shape[x.ndim - axes + k]
            factor: Any = given[k] if k < len(given) else None
            number = int(output_size[k]) if output_size is not None else int(whole * factor)
            low, high, share = _linear_weights(whole, number, align_corners, factor)
            share = jnp.asarray(share, x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            x = jnp.take(x, low, axis=axis) * (1 - share) + jnp.take(x, high, axis=axis) * share
        return x

    return resize


for _axes, _kind in ((1, "linear"), (2, "bilinear"), (3, "trilinear")):
    function(f"upsample_{_kind}{_axes}d")(_interpolated_of(_axes))
    function(f"upsample_nearest{_axes}d")(_nearest_of(_axes))
