"""PyTorch's functions that read some of the elements, or put others in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from parity.porting.torch_functions.registry import Argument, function, is_array


@function("__getitem__")
def getitem(x: jax.Array, index: Argument) -> Any:
    """Some of the elements."""
    return x[_index(index)]


@function("__setitem__")
def setitem(x: jax.Array, index: Argument, value: Argument) -> Any:
    """Others in the place of some of the elements."""
    value = jnp.asarray(value, x.dtype)
    place = _index(index)
    shape = jax.eval_shape(lambda x: x[place], x).shape
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value[0]
    return x.at[place].set(jnp.broadcast_to(value, shape))


def _index(index: Argument) -> Any:
    if isinstance(index, list):
        return jnp.asarray(index)
    if isinstance(index, tuple):
        return tuple(_index(item) for item in index)
    return index


@function("select")
def select(x: jax.Array, dim: int, index: int) -> Any:
    """One place along an axis."""
    return jnp.take(x, index, axis=dim)


@function("narrow")
def narrow(x: jax.Array, dim: int, start: int, length: int) -> Any:
    """A stretch along an axis."""
    return jax.lax.slice_in_dim(x, start % x.shape[dim] if start < 0 else start, start + length, axis=dim % x.ndim)


@function("index_select")
def index_select(x: jax.Array, dim: int, index: jax.Array) -> Any:
    """Some places along an axis."""
    return jnp.take(x, index, axis=dim) if x.ndim else x


@function("gather")
def gather(x: jax.Array, dim: int, index: jax.Array, sparse_grad: bool = False) -> Any:
    """An element for each place of an index."""
    if not x.ndim:
        return jnp.broadcast_to(x, index.shape)
    cut = tuple(slice(None) if axis == dim % x.ndim else slice(size) for axis, size in enumerate(index.shape))
    return jnp.take_along_axis(x[cut], index, dim)


@function("take_along_dim")
def take_along_dim(x: jax.Array, indices: jax.Array, dim: Argument = None) -> Any:
    """An element for each place of an index that broadcasts."""
    return jnp.take_along_axis(
        x.reshape(-1) if dim is None else x, indices.reshape(-1) if dim is None else indices, dim or 0
    )


@function("take")
def take(x: jax.Array, index: jax.Array) -> Any:
    """Elements by their place among all."""
    return x.reshape(-1)[index]


def _places(x: jax.Array, dim: int, index: jax.Array) -> Any:
    grid = list(jnp.meshgrid(*(jnp.arange(size) for size in index.shape), indexing="ij"))
    grid[dim % x.ndim] = index
    return tuple(grid)


@function("scatter", "scatter_")
def scatter(x: jax.Array, dim: int, index: jax.Array, src: Argument = None, **named: Argument) -> Any:
    """Others at the places of an index."""
    src = named.get("value", src)
    value = src if not is_array(src) else src[tuple(map(slice, index.shape))]
    if named.get("reduce") in ("add", "multiply"):
        at = x.at[_places(x, dim, index)]
        return at.add(value) if named["reduce"] == "add" else at.multiply(value)
    return x.at[_places(x, dim, index)].set(value)


@function("scatter_add", "scatter_add_")
def scatter_add(x: jax.Array, dim: int, index: jax.Array, src: jax.Array) -> Any:
    """Others added at the places of an index."""
    return x.at[_places(x, dim, index)].add(src[tuple(map(slice, index.shape))])


@function("index_add", "index_add_")
def index_add(x: jax.Array, dim: int, index: jax.Array, source: jax.Array, alpha: Argument = 1) -> Any:
    """Others added at some places along an axis."""
    if not x.ndim:
        return x + alpha * jnp.sum(source)
    moved = jnp.moveaxis(x, dim, 0).at[index].add(alpha * jnp.moveaxis(source, dim, 0))
    return jnp.moveaxis(moved, 0, dim)


@function("index_copy", "index_copy_")
def index_copy(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> Any:
    """Others at some places along an axis."""
    if not x.ndim:
        return source.reshape(())
    return jnp.moveaxis(jnp.moveaxis(x, dim, 0).at[index].set(jnp.moveaxis(source, dim, 0)), 0, dim)


@function("index_fill", "index_fill_")
def index_fill(x: jax.Array, dim: int, index: jax.Array, value: Argument) -> Any:
    """One value at some places along an axis."""
    if not x.ndim:
        return jnp.asarray(value, x.dtype)
    return jnp.moveaxis(jnp.moveaxis(x, dim, 0).at[index].set(value), 0, dim)


@function("index_put", "index_put_")
def index_put(x: jax.Array, indices: Sequence[Argument], values: jax.Array, accumulate: bool = False) -> Any:
    """Others at places, or added there."""
    at = x.at[tuple(slice(None) if index is None else index for index in indices)]
    return at.add(values) if accumulate else at.set(values)


@function("masked_scatter")
def masked_scatter(x: jax.Array, mask: jax.Array, source: jax.Array) -> Any:
    """Others, one after the other, where a mask holds."""
    shape = jnp.broadcast_shapes(mask.shape, x.shape)
    mask, x = jnp.broadcast_to(mask, shape), jnp.broadcast_to(x, shape)
    place = jnp.cumsum(mask.reshape(-1)).reshape(x.shape) - 1
    return jnp.where(mask, source.reshape(-1)[place], x)


@function("select_scatter")
def select_scatter(x: jax.Array, src: jax.Array, dim: int, index: int) -> Any:
    """Others at one place along an axis."""
    return jnp.moveaxis(jnp.moveaxis(x, dim, 0).at[index].set(src), 0, dim)


@function("slice_scatter")
def slice_scatter(
    x: jax.Array, src: jax.Array, dim: int = 0, start: Argument = None, end: Argument = None, step: int = 1
) -> Any:
    """Others in a stretch along an axis."""
    moved = jnp.moveaxis(x, dim, 0).at[slice(start, end, step)].set(jnp.moveaxis(src, dim, 0))
    return jnp.moveaxis(moved, 0, dim)


@function("diagonal_scatter")
def diagonal_scatter(x: jax.Array, src: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Others on a diagonal."""
    moved = jnp.moveaxis(x, (dim1, dim2), (-2, -1))
    places = jnp.arange(src.shape[-1])
    moved = moved.at[..., places + max(-offset, 0), places + max(offset, 0)].set(src)
    return jnp.moveaxis(moved, (-2, -1), (dim1, dim2))


@function("as_strided")
def as_strided(x: jax.Array, size: Sequence[int], stride: Sequence[int], storage_offset: Argument = None) -> Any:
    """Elements by their place in memory, of a tensor that lies in order there."""
    place = jnp.asarray(storage_offset or 0)
    for length, step in zip(size, stride, strict=True):
        place = place[..., None] + jnp.arange(length) * step
    return x.reshape(-1)[place]


@function("scatter_reduce", "scatter_reduce_")
def scatter_reduce(
    x: jax.Array, dim: int, index: jax.Array, src: jax.Array, reduce: str, include_self: bool = True
) -> Any:
    """Others put together at the places of an index."""
    if reduce not in ("sum", "mean"):
        raise NotImplementedError(f"scatter_reduce with {reduce!r}")
    if not x.ndim:
        x, index, src = x.reshape(1), index.reshape(-1), src.reshape(-1)
        return scatter_reduce(x, 0, index, src, reduce, include_self).reshape(())
    places = _places(x, dim, index)
    if not include_self:
        x = x.at[places].set(0)
    added = x.at[places].add(src[tuple(map(slice, index.shape))])
    if reduce == "sum":
        return added
    own = jnp.ones_like(x) if include_self else jnp.ones_like(x).at[places].set(0)
    return added / jnp.maximum(own.at[places].add(1), 1)
