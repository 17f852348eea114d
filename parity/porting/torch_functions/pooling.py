"""PyTorch's pooling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity.porting.torch_functions.registry import Argument, each_axis, function


def _pool_shape(x: jax.Array, axes: int, size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    size = each_axis(size, axes)
    steps = size if stride in (None, (), []) else each_axis(stride, axes)
    pads, spread = each_axis(padding, axes), each_axis(dilation, axes)
    ends = []
    for k in range(axes):
        whole, reach = x.shape[x.ndim - axes + k], spread[k] * (size[k] - 1) + 1
        span = whole + 2 * pads[k] - reach
        number = (-(-span // steps[k]) if ceil_mode else span // steps[k]) + 1
        if ceil_mode and (number - 1) * steps[k] >= whole + pads[k]:
            number -= 1
        ends.append(max((number - 1) * steps[k] + reach - whole - pads[k], 0))
    return size, steps, list(zip(pads, ends, strict=True)), spread


def _max_pool(x: jax.Array, axes: int, size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    size, steps, pads, spread = _pool_shape(x, axes, size, stride, padding, dilation, ceil_mode)
    lead = x.ndim - axes
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1,) * lead + size,
        (1,) * lead + steps,
        [(0, 0)] * lead + pads,
        window_dilation=(1,) * lead + spread,
    )


def _max_pool_of(axes: int) -> Any:
    def pool(
        x: jax.Array,
        kernel_size: Argument,
        stride: Argument = None,
        padding: Argument = 0,
        dilation: Argument = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        return _max_pool(x, axes, kernel_size, stride, padding, dilation, ceil_mode)

    return pool


def _max_pool_and_places_of(axes: int) -> Any:
    def pool(x: jax.Array, *args: Argument, **kwargs: Argument) -> Any:
        # What reads the places of the largest elements is refused.
        return _max_pool_of(axes)(x, *args, **kwargs), None

    return pool


def _average_pool_of(axes: int) -> Any:
    def pool(
        x: jax.Array,
        kernel_size: Argument,
        stride: Argument = None,
        padding: Argument = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Argument = None,
    ) -> Any:
        size, steps, pads, _ = _pool_shape(x, axes, kernel_size, stride, padding, 1, ceil_mode)
        lead = x.ndim - axes
        window, step = (1,) * lead + size, (1,) * lead + steps
        added = lax.reduce_window(x, 0.0, lax.add, window, step, [(0, 0)] * lead + pads)
        if divisor_override is not None:
            return added / divisor_override
        # What is beyond the padding itself, where the last window sticks out, never counts.
        own = each_axis(padding, axes)
        edges = own if count_include_pad else (0,) * axes
        ones = np.ones([each + 2 * p for each, p in zip(x.shape[lead:], edges, strict=True)])
        rest = [(low - p, high - p) for (low, high), p in zip(pads, edges, strict=True)]
        counts = lax.reduce_window(jnp.asarray(ones, x.dtype), 0.0, lax.add, size, steps, rest)
        return added / counts

    return pool


def _adaptive(x: jax.Array, output_size: Argument, axes: int, reduce: Any) -> Any:
    lead = x.ndim - axes
    given = _listed(output_size) * (axes if len(_listed(output_size)) == 1 else 1)
    wanted = [whole if size is None else size for size, whole in zip(given, x.shape[lead:], strict=True)]
    for k, number in enumerate(wanted):
        axis, whole = lead + k, x.shape[lead + k]
        edges = [(i * whole // number, -(-(i + 1) * whole // number)) for i in range(number)]
        pieces = [reduce(lax.slice_in_dim(x, low, high, axis=axis), axis) for low, high in edges]
        x = jnp.concatenate(pieces, axis)
    return x


def _listed(value: Argument) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _enter_pools() -> None:
    for axes in (1, 2, 3):
        function(f"max_pool{axes}d")(_max_pool_of(axes))
        function(f"max_pool{axes}d_with_indices")(_max_pool_and_places_of(axes))
        function(f"avg_pool{axes}d")(_average_pool_of(axes))

        def mean(x: jax.Array, size: Argument, axes: int = axes) -> Any:
            return _adaptive(x, size, axes, lambda piece, axis: jnp.mean(piece, axis, keepdims=True))

        def most(x: jax.Array, size: Argument, axes: int = axes) -> Any:
            made = _adaptive(x, size, axes, lambda piece, axis: jnp.max(piece, axis, keepdims=True))
            return made, None

        function(f"adaptive_avg_pool{axes}d")(mean)
        function(f"adaptive_max_pool{axes}d")(most)


_enter_pools()
