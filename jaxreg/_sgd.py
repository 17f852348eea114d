"""PyTorch's SGD as a chain of Optax transformations, one for each line of its definition."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from optax import GradientTransformation

from jaxreg._errors import ArgumentError


class MomentumState(NamedTuple):
    """State of PyTorch's momentum.

    Attributes:
        step: number of updates made, int32 scalar; the first one takes the gradient undamped.
        momentum_buffer: the velocity, in the parameters' structure, shapes and dtypes.
    """

    step: jax.Array
    momentum_buffer: Any


def _momentum(momentum: Any, dampening: Any, nesterov: bool) -> GradientTransformation:
    """``b = g`` on the first step, then ``b = momentum * b + (1 - dampening) * g``; gives ``b``, or Nesterov's form."""

    def init(params: Any) -> MomentumState:
        return MomentumState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(updates: Any, state: MomentumState, params: Any = None) -> tuple[Any, MomentumState]:
        first = state.step == 0

        def velocity(gradient: jax.Array, buffer: jax.Array) -> jax.Array:
            return jnp.where(first, gradient, momentum * buffer + (1 - dampening) * gradient)

        buffer = jax.tree.map(velocity, updates, state.momentum_buffer)
        ahead = jax.tree.map(lambda gradient, b: gradient + momentum * b, updates, buffer) if nesterov else buffer
        return ahead, MomentumState(state.step + 1, buffer)

    return GradientTransformation(init, update)


def _check(name: str, value: Any) -> None:
    if callable(value) or isinstance(value, jax.Array | np.ndarray):
        return  # a schedule, or a value known only when it runs
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{name} must be a number, got {value!r}")
    if not 0 <= float(value) < math.inf:
        raise ArgumentError(f"{name} must be at least 0 and finite, got {value!r}")


def _is_zero(value: Any) -> bool:
    return isinstance(value, numbers.Real) and value == 0


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.0,
    *,
    dampening: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> GradientTransformation:
    r"""Stochastic gradient descent as ``torch.optim.SGD`` defines it, every option.

    With gradient :math:`g`, weights :math:`w`, momentum :math:`\mu`, dampening :math:`\tau`, decay :math:`\lambda` and
    learning rate :math:`\eta`:

    .. math::
        g &\leftarrow -g                        &&\text{if maximize} \\
        g &\leftarrow g + \lambda w \\
        b &\leftarrow g                         &&\text{on the first step, undamped} \\
        b &\leftarrow \mu b + (1 - \tau) g      &&\text{on the others} \\
        g &\leftarrow b                         &&\text{or } g + \mu b \text{ if nesterov} \\
        w &\leftarrow w - \eta g

    The learning rate stays outside the velocity, so changing it acts at once. ``optax.sgd`` has neither dampening nor
    decay, and a decoupled decay (``optax.add_decayed_weights`` after the momentum) is another method.

    The same numbers give the same object, so that jit, which tells functions apart by identity, compiles once.

    Args:
        learning_rate: a number of at least 0, a scalar array, or an Optax schedule (step to learning rate).
        momentum: :math:`\mu`, at least 0.
        dampening: :math:`\tau`.
        weight_decay: :math:`\lambda`, at least 0.
        nesterov: Nesterov's form; needs a momentum and no dampening, as in PyTorch.
        maximize: go uphill.

    Returns:
        An :class:`optax.GradientTransformation`. With momentum its state holds a :class:`MomentumState`.

    Raises:
        ArgumentError: a value PyTorch refuses too.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = sgd(0.1, momentum=0.9)
        >>> w, g = jnp.array(1.0), jnp.array(2.0)
        >>> state = optimizer.init(w)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(g, state, w)
        ...     w = optax.apply_updates(w, updates)
        ...     print(f"{w:.2f}")
        0.80
        0.42

    Source: `torch/optim/sgd.py`, ``_single_tensor_sgd``.
    """
    _check("learning_rate", learning_rate)
    _check("momentum", momentum)
    _check("weight_decay", weight_decay)
    if nesterov and (_is_zero(momentum) or not _is_zero(dampening)):
        raise ArgumentError(
            f"nesterov needs a momentum above 0 and no dampening, got momentum={momentum!r} and dampening={dampening!r}"
        )
    settings: tuple[Any, ...] = (learning_rate, momentum, dampening, weight_decay, nesterov, maximize)
    try:
        return _chain(*settings)
    except TypeError:  # an array does not hash
        return _chain.__wrapped__(*settings)


@functools.lru_cache(maxsize=256)
def _chain(
    learning_rate: Any, momentum: Any, dampening: Any, weight_decay: Any, nesterov: bool, maximize: bool
) -> GradientTransformation:
    parts: list[GradientTransformation] = []
    if maximize:
        parts.append(optax.scale(-1.0))
    if not _is_zero(weight_decay):
        parts.append(optax.add_decayed_weights(weight_decay))
    if not _is_zero(momentum):
        parts.append(_momentum(momentum, dampening, nesterov))
    parts.append(optax.scale_by_learning_rate(learning_rate))
    return optax.chain(*parts)
