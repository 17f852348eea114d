"""PyTorch's SGD as a chain of Optax transformations, one for each line of its definition."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from optax import GradientTransformation

from jaxreg._errors import ArgumentError
from jaxreg._optim.settings import Settings, as_in
from jaxreg._types import DType, Number, Optimizer, Params
from jaxreg._validation import check_flag, check_setting, is_number, known

_Tree = TypeVar("_Tree")


class MomentumState(NamedTuple):
    """State of PyTorch's momentum.

    Attributes:
        step: number of updates made with a momentum, int32 scalar; the first one takes the gradient undamped.
        momentum_buffer: the velocity, in the parameters' structure, shapes and dtypes.
    """

    step: jax.Array
    momentum_buffer: Params


class PyTorchSGD(optax.GradientTransformationExtraArgs):
    """What :func:`sgd` makes: an Optax transformation that remembers its settings, for plans that need them.

    Attributes:
        settings: the arguments of :func:`sgd`.
    """

    settings: Settings

    def __reduce__(self) -> tuple[Callable[..., GradientTransformation], tuple[Any, ...]]:
        """Return how to make it again of its settings: what Optax makes are functions that cannot be pickled."""
        return _made, tuple(self.settings)


def _made(
    rate: optax.ScalarOrSchedule, momentum: Number, dampening: Number, decay: Number, nesterov: bool, maximize: bool
) -> GradientTransformation:
    return sgd(rate, momentum, dampening=dampening, weight_decay=decay, nesterov=nesterov, maximize=maximize)


def _wide(array: jax.Array) -> jax.Array:
    """Return it in the format that PyTorch computes in: float32 for 16 bits, to which the results alone are rounded."""
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array


def _times(factor: ArrayLike, array: jax.Array) -> jax.Array:
    """Return the product in the array's own dtype: a float64 rate widens no float32 weights."""
    return jnp.asarray(factor, array.dtype).reshape(()) * array


def _decay(weight_decay: ArrayLike) -> GradientTransformation:
    """Return ``g + weight_decay * w``."""

    def decayed(gradient: jax.Array, weights: jax.Array | None) -> jax.Array:
        if weights is None:
            raise ArgumentError("weight_decay needs the parameters: call optimizer.update(gradients, state, params)")
        return (_wide(gradient) + _times(weight_decay, _wide(weights))).astype(gradient.dtype)

    return optax.stateless_with_tree_map(decayed)


def _momentum(momentum: ArrayLike, dampening: ArrayLike, nesterov: bool) -> GradientTransformation:
    """Return ``b = g`` on the first step, then ``b = momentum * b + (1 - dampening) * g``, or Nesterov's form."""

    def init(params: Params) -> MomentumState:
        return MomentumState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(updates: Params, state: MomentumState, params: Params | None = None) -> tuple[Params, MomentumState]:
        first = state.step == 0

        def velocity(gradient: jax.Array, buffer: jax.Array) -> jax.Array:
            moved = _times(momentum, _wide(buffer)) + _times(1 - dampening, _wide(gradient))
            return jnp.where(first, gradient.astype(buffer.dtype), moved.astype(buffer.dtype))

        def lookahead(gradient: jax.Array, buffer: jax.Array) -> jax.Array:
            return (_wide(gradient) + _times(momentum, _wide(buffer))).astype(gradient.dtype)

        buffer = jax.tree.map(velocity, updates, state.momentum_buffer)
        ahead = jax.tree.map(lookahead, updates, buffer) if nesterov else buffer
        step = optax.safe_increment(state.step)
        if is_number(momentum):
            return ahead, MomentumState(step, buffer)
        # A momentum known only when it runs may be 0: PyTorch then leaves gradient and state alone, dampening or not.
        on = jnp.asarray(momentum).reshape(()) != 0
        return _choose(on, ahead, updates), _choose(on, MomentumState(step, buffer), state)

    return GradientTransformation(init, update)


def _choose(condition: jax.Array, yes: _Tree, no: _Tree) -> _Tree:
    chosen: _Tree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
    return chosen


def _descend(learning_rate: optax.ScalarOrSchedule) -> GradientTransformation:
    """Return ``-learning_rate * g``. Optax's ``scale`` would round the rate to the dtype of 16-bit gradients."""

    def scaled(rate: Number, gradients: Params) -> Params:
        return jax.tree.map(lambda gradient: _times(-rate, _wide(gradient)).astype(gradient.dtype), gradients)

    if not callable(learning_rate):
        return optax.stateless(lambda gradients, _: scaled(learning_rate, gradients))

    def init(params: Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(
        updates: Params, state: optax.ScaleByScheduleState, params: Params | None = None
    ) -> tuple[Params, optax.ScaleByScheduleState]:
        count = optax.safe_increment(state.count)
        return scaled(learning_rate(state.count), updates), optax.ScaleByScheduleState(count)

    return GradientTransformation(init, update)


def check(given: Settings) -> None:
    """Refuse settings that :func:`sgd` refuses."""
    if not callable(given.learning_rate):
        check_setting("learning_rate", given.learning_rate)
    for name in ("momentum", "dampening", "weight_decay"):
        value = getattr(given, name)
        if callable(value):
            raise ArgumentError(
                f"{name} must be a number, got a schedule; only learning_rate may be one by itself. For others write "
                f"optax.inject_hyperparams(jaxreg.sgd)(..., {name}=schedule)"
            )
        check_setting(name, value, minimum=-math.inf if name == "dampening" else 0.0)
    for name in ("nesterov", "maximize"):
        check_flag(name, getattr(given, name))
    if given.nesterov and (known(given.momentum) == 0 or known(given.dampening) not in (0, None)):
        raise ArgumentError(
            "nesterov needs a momentum above 0 and no dampening, "
            f"got momentum={given.momentum!r} and dampening={given.dampening!r}"
        )


def _is_zero(value: object) -> bool:
    return is_number(value) and value == 0


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

    The same numbers give the same object, so that jit, which tells functions apart by identity, compiles once. Any of
    the numbers may be an array instead, a traced one too, or be injected: ``optax.inject_hyperparams(jaxreg.sgd)``.
    (With 16-bit parameters give that ``hyperparam_dtype=jnp.float32``: Optax would round the numbers to 16 bits.)

    As in PyTorch, 16-bit parameters are worked on in float32 and each line's result is rounded to 16 bits. One rounding
    is more than PyTorch's: of the update itself, which Optax adds to the weights only later.

    Args:
        learning_rate: a number of at least 0, a scalar array, or a schedule (step to learning rate), Optax's or one of
            :mod:`jaxreg.lr_scheduler`.
        momentum: :math:`\mu`, at least 0.
        dampening: :math:`\tau`; does nothing without momentum.
        weight_decay: :math:`\lambda`, at least 0.
        nesterov: Nesterov's form; needs a momentum and no dampening, as in PyTorch.
        maximize: go uphill.

    Returns:
        An :class:`optax.GradientTransformation`. With momentum its state holds a :class:`MomentumState`.

    Raises:
        ArgumentError: a value PyTorch refuses too, or one that is not finite.

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
    settings = Settings(learning_rate, momentum, dampening, weight_decay, nesterov, maximize)
    check(settings)
    try:
        return _chain(*settings)
    except TypeError:  # an array does not hash
        return _chain.__wrapped__(*settings)


@functools.lru_cache(maxsize=256)
def _chain(
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike,
    dampening: ArrayLike,
    weight_decay: ArrayLike,
    nesterov: bool,
    maximize: bool,
) -> GradientTransformation:
    parts: list[GradientTransformation] = []
    if maximize:
        parts.append(optax.scale(-1.0))
    if not _is_zero(weight_decay):
        parts.append(_decay(weight_decay))
    if not _is_zero(momentum):
        parts.append(_momentum(momentum, dampening, nesterov))
    parts.append(_descend(learning_rate))
    made = PyTorchSGD(*optax.chain(*parts))
    made.settings = Settings(learning_rate, momentum, dampening, weight_decay, nesterov, maximize)
    return made


def constant_settings(optimizer: object) -> Settings | None:
    """Return the settings of PyTorch's SGD where all of them are numbers; else ``None``."""
    if not isinstance(optimizer, PyTorchSGD) or not all(map(is_number, optimizer.settings[:4])):
        return None
    return optimizer.settings


def rounded(optimizer: Optimizer, dtype: DType) -> Optimizer:
    """Return the optimizer, PyTorch's SGD with its settings as a loop in this dtype uses them."""
    settings = constant_settings(optimizer)
    return optimizer if settings is None else _made(*as_in(dtype, *settings))
