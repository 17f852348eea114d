"""PyTorch's functions that move elements to other places, and those that choose some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from parity.porting.torch_functions.registry import Argument, dtype_of, enter, function, sizes


@function("view", "reshape", "_unsafe_view", "_reshape_alias")
def reshape(x: jax.Array, *shape: Argument, **named: Argument) -> Any:
    """The same elements in another shape."""
    if shape and hasattr(shape[0], "itemsize"):
        return x.astype(shape[0])
    return x.reshape(sizes(shape or (named.get("size", named.get("shape")),)))


@function("flatten")
def flatten(x: jax.Array, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Some neighbouring axes as one."""
    if not x.ndim:
        return x.reshape(1)
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape((*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@function("unflatten")
def unflatten(x: jax.Array, dim: int, sizes: Sequence[int]) -> Any:
    """One axis as several."""
    dim = dim % x.ndim
    return x.reshape((*x.shape[:dim], *_with_rest(sizes, x.shape[dim]), *x.shape[dim + 1 :]))


def _with_rest(given: Sequence[int], whole: int) -> list[int]:
    known = math.prod(size for size in given if size >= 0)
    return [whole // known if size < 0 else size for size in given]


@function("squeeze", "squeeze_")
def squeeze(x: jax.Array, dim: Argument = None) -> Any:
    """Without axes of length 1."""
    if dim is None:
        return jnp.squeeze(x)
    listed = dim if isinstance(dim, list | tuple) else (dim,)
    return jnp.squeeze(x, tuple(axis % x.ndim for axis in listed if x.ndim and x.shape[axis] == 1))


@function("unsqueeze", "unsqueeze_")
def unsqueeze(x: jax.Array, dim: int) -> Any:
    """With an axis of length 1."""
    return jnp.expand_dims(x, dim)


@function("transpose", "swapaxes", "swapdims", "transpose_")
def transpose(x: jax.Array, dim0: int, dim1: int) -> Any:
    """Two axes exchanged."""
    return jnp.swapaxes(x, dim0, dim1) if x.ndim else x


@function("t", "T", "t_")
def turned(x: jax.Array) -> Any:
    """All axes in the other order."""
    return x.T


@function("mT", "mH", "adjoint")
def matrix_turned(x: jax.Array) -> Any:
    """The last two axes exchanged."""
    return jnp.swapaxes(x, -1, -2)


@function("permute")
def permute(x: jax.Array, *dims: Argument, **named: Argument) -> Any:
    """Axes in another order."""
    return jnp.transpose(x, [axis % x.ndim for axis in sizes(dims or (named["dims"],))])


@function("movedim", "moveaxis")
def movedim(x: jax.Array, source: Argument, destination: Argument) -> Any:
    """Axes at other places."""
    return jnp.moveaxis(x, source, destination)


@function("expand", "broadcast_to")
def expand(x: jax.Array, *size: Argument, **named: Argument) -> Any:
    """Repeated along axes of length 1."""
    wanted = sizes(size or (named.get("size"),))
    own = (1,) * (len(wanted) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [mine if size == -1 else size for size, mine in zip(wanted, own, strict=True)])


@function("expand_as", "view_as", "reshape_as")
def shaped_as(x: jax.Array, other: jax.Array) -> Any:
    """In the shape of another."""
    return x.reshape(other.shape) if x.size == other.size else jnp.broadcast_to(x, other.shape)


@function("repeat")
def repeat(x: jax.Array, *repeats: Argument, **named: Argument) -> Any:
    """Several times along each axis."""
    return jnp.tile(x, sizes(repeats or (named["repeats"],)))


@function("tile")
def tile(x: jax.Array, *dims: Argument) -> Any:
    """Several times along each axis, the last ones first."""
    return jnp.tile(x, sizes(dims))


@function("repeat_interleave")
def repeat_interleave(x: jax.Array, repeats: Argument, dim: Argument = None, output_size: Argument = None) -> Any:
    """Each element several times."""
    return jnp.repeat(x, repeats, axis=dim, total_repeat_length=output_size)


@function("cat", "concat", "concatenate")
def cat(tensors: Sequence[jax.Array], dim: int = 0, **named: Argument) -> Any:
    """One after the other."""
    kept = [each for each in tensors if each.shape != (0,)] or list(tensors)
    return jnp.concatenate(kept, named.get("axis", dim))


@function("stack")
def stack(tensors: Sequence[jax.Array], dim: int = 0) -> Any:
    """Side by side along a new axis."""
    return jnp.stack(list(tensors), dim)


enter(
    hstack=lambda tensors: jnp.hstack(list(tensors)),
    vstack=lambda tensors: jnp.vstack(list(tensors)),
    dstack=lambda tensors: jnp.dstack(list(tensors)),
    column_stack=lambda tensors: jnp.column_stack(list(tensors)),
    ravel=lambda x: x.reshape(-1),
    adjoint=lambda x: jnp.swapaxes(x, -1, -2),
    fliplr=lambda x: jnp.fliplr(x),
    flipud=lambda x: jnp.flipud(x),
    atleast_1d=lambda x: jnp.atleast_1d(x),
    atleast_2d=lambda x: jnp.atleast_2d(x),
    atleast_3d=lambda x: jnp.atleast_3d(x),
    block_diag=lambda *tensors: jax.scipy.linalg.block_diag(*(tensors[0] if len(tensors) == 1 else tensors)),
    real=lambda x: x,
    conj=lambda x: x,
    resolve_conj=lambda x: x,
    resolve_neg=lambda x: x,
    shape=lambda x: x.shape,
)


@function("split", "split_with_sizes", "unsafe_split")
def split(x: jax.Array, split_size: Argument, dim: int = 0) -> Any:
    """Cut along an axis into pieces of a size, or of several."""
    whole = x.shape[dim]
    if isinstance(split_size, int):
        ends = list(range(split_size, whole, split_size)) if split_size else []
    else:
        ends = [sum(split_size[: k + 1]) for k in range(len(split_size) - 1)]
    return tuple(jnp.split(x, ends, dim))


@function("tensor_split")
def tensor_split(x: jax.Array, indices_or_sections: Argument, dim: int = 0) -> Any:
    """Cut along an axis at places, or into a number of pieces."""
    return tuple(jnp.array_split(x, indices_or_sections, dim))


@function("chunk", "unsafe_chunk")
def chunk(x: jax.Array, chunks: int, dim: int = 0) -> Any:
    """Cut along an axis into a number of pieces, the last one shorter."""
    return split(x, -(-x.shape[dim] // chunks) or 1, dim)


@function("unbind")
def unbind(x: jax.Array, dim: int = 0) -> Any:
    """The pieces along an axis, without it."""
    return tuple(jnp.squeeze(piece, dim) for piece in jnp.split(x, x.shape[dim], dim))


@function("flip")
def flip(x: jax.Array, *dims: Argument, **named: Argument) -> Any:
    """In the other direction along axes."""
    return jnp.flip(x, sizes(dims or (named["dims"],)))


@function("roll")
def roll(x: jax.Array, shifts: Argument, dims: Argument = None) -> Any:
    """Moved along axes, what falls out coming in again."""
    return jnp.roll(x, shifts, None if dims in (None, (), []) else dims)


@function("rot90")
def rot90(x: jax.Array, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """Turned by quarters."""
    return jnp.rot90(x, k, (dims[0], dims[1]))


@function("tril", "tril_")
def tril(x: jax.Array, diagonal: int = 0) -> Any:
    """Zero above a diagonal."""
    return jnp.tril(x, diagonal)


@function("triu", "triu_")
def triu(x: jax.Array, diagonal: int = 0) -> Any:
    """Zero below a diagonal."""
    return jnp.triu(x, diagonal)


@function("diag")
def diag(x: jax.Array, diagonal: int = 0) -> Any:
    """A diagonal of a matrix, or a matrix of a diagonal."""
    return jnp.diag(x, diagonal)


@function("diagonal")
def diagonal(x: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A diagonal along two axes."""
    return jnp.diagonal(x, offset, dim1, dim2)


@function("diag_embed")
def diag_embed(x: jax.Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices of diagonals."""
    size = x.shape[-1] + abs(offset)
    places = jnp.arange(x.shape[-1])
    made = jnp.zeros((*x.shape[:-1], size, size), x.dtype)
    made = made.at[..., places + max(-offset, 0), places + max(offset, 0)].set(x)
    return jnp.moveaxis(made, (-2, -1), (dim1, dim2))


@function("pad", "constant_pad_nd")
def pad(x: jax.Array, padding: Sequence[int], mode: Argument = "constant", value: Argument = 0) -> Any:
    """More elements at the ends of the last axes."""
    if not isinstance(mode, str):
        mode, value = "constant", mode
    pairs = [(padding[k], padding[k + 1]) for k in range(0, len(padding), 2)]
    width = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    if mode != "constant":
        cut = tuple(slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(width, x.shape, strict=True))
        x, width = x[cut], [(max(low, 0), max(high, 0)) for low, high in width]
        kinds = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        return jnp.pad(x, width, mode=kinds[mode])
    filled = jnp.asarray(0 if value is None else value, x.dtype)
    return jax.lax.pad(x, filled, [(low, high, 0) for low, high in width])


@function("unfold")
def unfold(x: jax.Array, dimension: int, size: int, step: int) -> Any:
    """Windows along an axis."""
    x = x.reshape(1) if not x.ndim else x
    starts = jnp.arange(0, x.shape[dimension] - size + 1, step)
    windows = jnp.take(x, starts[:, None] + jnp.arange(size)[None], axis=dimension)
    return jnp.moveaxis(windows, (dimension % x.ndim) + 1, -1)


@function("meshgrid")
def meshgrid(*tensors: Argument, indexing: str = "ij") -> Any:
    """Grids of coordinates."""
    listed = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    return tuple(jnp.meshgrid(*(jnp.atleast_1d(each) for each in listed), indexing=indexing))


@function("broadcast_tensors")
def broadcast_tensors(*tensors: Argument) -> Any:
    """All in one shape."""
    listed = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    return tuple(jnp.broadcast_arrays(*listed))


@function("one_hot")
def one_hot(x: jax.Array, num_classes: int = -1) -> Any:
    """1 at the place of a class, 0 elsewhere."""
    return jax.nn.one_hot(x, num_classes, dtype=dtype_of("int64"))


@function("pixel_shuffle")
def pixel_shuffle(x: jax.Array, upscale_factor: int) -> Any:
    """Channels as finer pixels."""
    r, (*lead, c, h, w) = upscale_factor, x.shape
    x = x.reshape((*lead, c // (r * r), r, r, h, w))
    n = len(lead)
    axes = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return jnp.transpose(x, axes).reshape((*lead, c // (r * r), h * r, w * r))


@function("pixel_unshuffle")
def pixel_unshuffle(x: jax.Array, downscale_factor: int) -> Any:
    """Fine pixels as channels."""
    r, (*lead, c, h, w) = downscale_factor, x.shape
    x = x.reshape((*lead, c, h // r, r, w // r, r))
    n = len(lead)
    return jnp.transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3)).reshape((*lead, c * r * r, h // r, w // r))


@function("diagflat")
def diagflat(x: jax.Array, offset: int = 0) -> Any:
    """A matrix with all elements on a diagonal."""
    return jnp.diagflat(x, offset)


@function("channel_shuffle")
def channel_shuffle(x: jax.Array, groups: int) -> Any:
    """Channels of groups taken in turn."""
    rows, channels, *rest = x.shape
    return jnp.swapaxes(x.reshape((rows, groups, channels // groups, *rest)), 1, 2).reshape(x.shape)


enter(
    hsplit=lambda x, pieces: tensor_split(x, pieces, 0 if x.ndim == 1 else 1),
    vsplit=lambda x, pieces: tensor_split(x, pieces, 0),
    dsplit=lambda x, pieces: tensor_split(x, pieces, 2),
    cartesian_prod=lambda *tensors: (
        tensors[0]
        if len(tensors) == 1
        else jnp.stack([each.reshape(-1) for each in jnp.meshgrid(*tensors, indexing="ij")], -1)
    ),
    linalg_diagonal=lambda x, offset=0, dim1=-2, dim2=-1: jnp.diagonal(x, offset, dim1, dim2),
    H=lambda x: x.T,
    tensor_split=tensor_split,
)
