"""PyTorch's layers as functions: convolutions, pooling, normalisation, embedding, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parity.porting.torch_functions.registry import Argument, each_axis, function

# -- convolutions


def _convolved(x: jax.Array, kernel: jax.Array, bias: Argument, pads: Any, **options: Any) -> Any:
    """Return the cross-correlation of a batch, or of one of its items, and a bias for each channel."""
    axes = kernel.ndim - 2
    single = x.ndim == axes + 1
    letters = "DHW"[3 - axes :]
    made = lax.conv_general_dilated(
        x[None] if single else x,
        kernel,
        padding=pads,
        dimension_numbers=("NC" + letters, "OI" + letters, "NC" + letters),
        **options,
    )
    if bias is not None:
        made = made + bias.reshape((-1,) + (1,) * axes)
    return made[0] if single else made


@function("conv1d", "conv2d", "conv3d")
def convolution(
    x: jax.Array,
    weight: jax.Array,
    bias: Argument = None,
    stride: Argument = 1,
    padding: Argument = 0,
    dilation: Argument = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation over the last axes, channels before them."""
    axes = weight.ndim - 2
    steps, spread = each_axis(stride, axes), each_axis(dilation, axes)
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [spread[k] * (weight.shape[2 + k] - 1) for k in range(axes)]
        pads = [(each // 2, each - each // 2) for each in total]
    else:
        pads = [(each, each) for each in each_axis(padding, axes)]
    return _convolved(x, weight, bias, pads, window_strides=steps, rhs_dilation=spread, feature_group_count=groups)


@function("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    x: jax.Array,
    weight: jax.Array,
    bias: Argument = None,
    stride: Argument = 1,
    padding: Argument = 0,
    output_padding: Argument = 0,
    groups: int = 1,
    dilation: Argument = 1,
) -> Any:
    """The convolution's transpose: inputs set apart by the stride, and the kernel turned."""
    axes = weight.ndim - 2
    steps, spread, more = each_axis(stride, axes), each_axis(dilation, axes), each_axis(output_padding, axes)
    pads = []
    for k, each in enumerate(each_axis(padding, axes)):
        edge = spread[k] * (weight.shape[2 + k] - 1) - each
        pads.append((edge, edge + more[k]))
    into, out = weight.shape[:2]
    kernel = weight.reshape((groups, into // groups, out, *weight.shape[2:]))
    kernel = jnp.swapaxes(kernel, 1, 2).reshape((groups * out, into // groups, *weight.shape[2:]))
    kernel = jnp.flip(kernel, tuple(range(2, 2 + axes)))
    apart = {"window_strides": (1,) * axes, "lhs_dilation": steps, "rhs_dilation": spread}
    return _convolved(x, kernel, bias, pads, feature_group_count=groups, **apart)


@function("im2col")
def im2col(x: jax.Array, kernel_size: Argument, dilation: Argument, padding: Argument, stride: Argument) -> Any:
    """The windows of an image, a column each."""
    single = x.ndim == 3
    x = x[None] if single else x
    pads = [(each, each) for each in each_axis(padding, 2)]
    made = lax.conv_general_dilated_patches(
        x, each_axis(kernel_size, 2), each_axis(stride, 2), pads, rhs_dilation=each_axis(dilation, 2)
    )
    made = made.reshape((*made.shape[:2], math.prod(made.shape[2:])))
    return made[0] if single else made


# -- pooling


# -- normalisation


def _normalised(x: jax.Array, axes: Sequence[int], eps: Argument) -> tuple[jax.Array, jax.Array, jax.Array]:
    number = math.prod(x.shape[axis] for axis in axes)
    mean = jnp.sum(x, axis=tuple(axes), keepdims=True) / number
    centred = x - mean
    variance = jnp.sum(centred * centred, axis=tuple(axes), keepdims=True) / number
    return centred / jnp.sqrt(variance + eps), mean, variance


def _channels(values: jax.Array, x: jax.Array) -> jax.Array:
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))


@function("batch_norm")
def batch_norm(
    x: jax.Array,
    weight: Argument,
    bias: Argument,
    running_mean: Argument,
    running_var: Argument,
    training: bool,
    momentum: Argument,
    eps: Argument,
    cudnn_enabled: bool = True,
) -> Any:
    """Ioffe and Szegedy, 2015. In training with running statistics, also what they are afterwards."""
    axes = (0, *range(2, x.ndim))
    if not training:
        made = (x - _channels(running_mean, x)) / jnp.sqrt(_channels(running_var, x) + eps)
        return _scaled(made, weight, bias)
    made, mean, variance = _normalised(x, axes, eps)
    made = _scaled(made, weight, bias)
    if running_mean is None:
        return made
    number = math.prod(x.shape[axis] for axis in axes)
    mean, variance = lax.stop_gradient((mean.reshape(-1), variance.reshape(-1)))
    after = (1 - momentum) * running_mean + momentum * mean
    return made, after, (1 - momentum) * running_var + momentum * (variance * (number / (number - 1)))


def _scaled(made: jax.Array, weight: Argument, bias: Argument) -> jax.Array:
    made = made if weight is None else made * _channels(weight, made)
    return made if bias is None else made + _channels(bias, made)


@function("instance_norm")
def instance_norm(
    x: jax.Array,
    weight: Argument,
    bias: Argument,
    running_mean: Argument,
    running_var: Argument,
    use_input_stats: bool,
    momentum: Argument,
    eps: Argument,
    cudnn_enabled: bool = True,
) -> Any:
    """Ulyanov et al., 2016."""
    if not use_input_stats:
        return batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps)
    made, mean, variance = _normalised(x, range(2, x.ndim), eps)
    made = _scaled(made, weight, bias)
    if running_mean is None:
        return made
    number = math.prod(x.shape[2:])
    mean, variance = lax.stop_gradient((mean.reshape(x.shape[:2]).mean(0), variance.reshape(x.shape[:2]).mean(0)))
    after = (1 - momentum) * running_mean + momentum * mean
    return made, after, (1 - momentum) * running_var + momentum * (variance * (number / (number - 1)))


@function("layer_norm")
def layer_norm(
    x: jax.Array,
    normalized_shape: Sequence[int],
    weight: Argument = None,
    bias: Argument = None,
    eps: Argument = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Ba et al., 2016."""
    made, _, _ = _normalised(x, range(x.ndim - len(normalized_shape), x.ndim), eps)
    made = made if weight is None else made * weight
    return made if bias is None else made + bias


@function("group_norm")
def group_norm(
    x: jax.Array,
    num_groups: int,
    weight: Argument = None,
    bias: Argument = None,
    eps: Argument = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Wu and He, 2018."""
    grouped = x.reshape((x.shape[0], num_groups, -1))
    made = _normalised(grouped, (2,), eps)[0].reshape(x.shape)
    return _scaled(made, weight, bias)


@function("rms_norm")
def rms_norm(x: jax.Array, normalized_shape: Sequence[int], weight: Argument = None, eps: Argument = None) -> Any:
    """Zhang and Sennrich, 2019."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    # The epsilon that PyTorch takes is that of the dtype that is trained in: in the float64 run, float32's.
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    number = math.prod(normalized_shape)
    made = x * lax.rsqrt(jnp.sum(x * x, axis=axes, keepdims=True) / number + eps)
    return made if weight is None else made * weight


@function("glu")
def glu(x: jax.Array, dim: int = -1) -> Any:
    """One half times the other half's sigmoid."""
    first, second = jnp.split(x, 2, dim)
    return first * jax.nn.sigmoid(second)


@function("local_response_norm")
def local_response_norm(
    x: jax.Array, size: int, alpha: Argument = 1e-4, beta: Argument = 0.75, k: Argument = 1.0
) -> Any:
    """Krizhevsky et al., 2012."""
    pads = [(0, 0)] * x.ndim
    pads[1] = (size // 2, (size - 1) // 2)
    window = [1] * x.ndim
    window[1] = size
    squares = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * x.ndim, pads)
    return x / (k + alpha * squares / size) ** beta


# -- embedding


@function("embedding")
def embedding(
    weight: jax.Array,
    indices: jax.Array,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table; the row of the padding gets no gradient."""
    made = jnp.take(weight, indices, axis=0)
    if padding_idx is None or padding_idx < 0:
        return made
    return jnp.where((indices == padding_idx)[..., None], lax.stop_gradient(made), made)


# -- dropout, where nothing is drawn


@function("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "dropout_", "alpha_dropout_")
def dropout(x: jax.Array, p: Argument = 0.5, train: bool = True) -> Any:
    """Nothing: what drops something out is recorded as a product with what was drawn."""
    return x


# -- resizing
