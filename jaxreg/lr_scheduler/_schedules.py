"""What the schedules of :mod:`jaxreg.lr_scheduler` are made of: Optax's where it has them, formulas where not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike


def _within_int32(setting: Any) -> Any:
    if isinstance(setting, tuple):
        return tuple(map(_within_int32, setting))
    large = type(setting) is int and abs(setting) > 2**30  # room for the formulas to double it
    return float(setting) if large else setting


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A schedule as Optax has them: called with the number of steps made, gives the value for the next one.

    Two with the same settings are equal, so that optimizers made of them are too, and nothing is compiled again.

    Attributes:
        formula: makes a function of the epoch (a floating scalar, which Optax's schedules need to count past integer
            arithmetic in any of JAX's promotion modes) from the settings.
        settings: positional, for ``formula``.
        every: number of optimizer steps that one epoch takes; whole epochs are counted, as PyTorch counts its own.
    """

    formula: Callable[..., Callable[[jax.Array], ArrayLike]]
    settings: tuple[Any, ...]
    every: int = 1

    def __post_init__(self) -> None:
        """Let integers be floats where JAX's would overflow; steps themselves are counted in int32."""
        object.__setattr__(self, "settings", _within_int32(self.settings))
        object.__setattr__(self, "every", min(self.every, np.iinfo(np.int32).max))

    def __call__(self, step: ArrayLike) -> jax.Array:
        """The value after ``step`` steps, a floating scalar of JAX's default precision."""
        epoch = (jnp.asarray(step) // self.every).astype(float)
        settings = (jnp.asarray(item, float) if isinstance(item, jax.Array) else item for item in self.settings)
        return jnp.asarray(self.formula(*settings)(epoch), float)


def powers(rate: Any, gamma: float) -> optax.Schedule:
    """``rate * gamma ** epoch``."""
    if gamma == 0:  # Optax takes that for a constant
        return optax.piecewise_constant_schedule(rate, {1: 0.0})
    return optax.exponential_decay(rate, 1, gamma)


def milestones(rate: Any, factors: tuple[tuple[int, float], ...]) -> optax.Schedule:
    """``rate``, times each factor from its epoch on."""
    return optax.piecewise_constant_schedule(rate, dict(factors))


def constant(rate: Any, factor: float, total: int) -> optax.Schedule:
    """``rate * factor``, then ``rate`` from epoch ``total`` on; where that is 0 PyTorch has no way back."""
    if total <= 0:
        return optax.constant_schedule(rate * factor)
    return optax.join_schedules([optax.constant_schedule(rate * factor), optax.constant_schedule(rate)], [total])


def linear(rate: Any, start: float, end: float, total: int) -> optax.Schedule:
    """From ``rate * start`` to ``rate * end`` in equal steps."""
    return optax.linear_schedule(rate * start, rate * end, total)


def polynomial(rate: Any, total: int, power: float) -> optax.Schedule:
    """``rate`` times a power of the share of epochs that are left."""
    return optax.polynomial_schedule(rate, 0.0, power, total)


def cosine(rate: Any, half_period: int, least: float) -> optax.Schedule:
    """Half a cosine from ``rate`` to ``least``, and back up: Optax's own stays down where PyTorch's goes on."""

    def schedule(epoch: jax.Array) -> Any:
        return least + (rate - least) * (1 + jnp.cos(jnp.pi * (epoch % (2 * half_period)) / half_period)) / 2

    return schedule


def warm_restarts(rate: Any, first: int, growth: int, least: float) -> optax.Schedule:
    """Half cosines, each ``growth`` times as long as the one before."""
    count = 1 if growth == 1 else math.ceil(math.log(2**31 / first + 1, growth)) + 1  # as many as steps can be counted
    lengths = np.array([float(first) * growth**n for n in range(count)])
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])

    def schedule(epoch: jax.Array) -> Any:
        cycle = jnp.sum(epoch >= jnp.asarray(starts, epoch.dtype)) - 1
        length = jnp.asarray(lengths, epoch.dtype)[cycle]
        # With a growth of 1 there is but one start, and the remainder does the rest.
        since = (epoch - jnp.asarray(starts, epoch.dtype)[cycle]) % length
        return least + (rate - least) * (1 + jnp.cos(jnp.pi * since / length)) / 2

    return schedule


def phases(ends: tuple[float, ...], values: tuple[ArrayLike, ...], last: int, shape: str) -> optax.Schedule:
    """From each value to the next, until each end; past the ``last`` epoch nothing changes any more."""

    def between(start: Any, end: Any, share: jax.Array) -> Any:
        if shape == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * share))

    def schedule(epoch: jax.Array) -> Any:
        epoch = jnp.minimum(epoch, last)
        result: Any = None
        starts = (0.0, *ends[:-1])
        for begin, end, low, high in reversed(list(zip(starts, ends, values, values[1:], strict=False))):
            value = between(low, high, (epoch - begin) / ((end - begin) or 1.0))
            result = value if result is None else jnp.where(epoch <= end, value, result)
        return result

    return schedule


def times(rate: Any, factor: Callable[[jax.Array], ArrayLike]) -> optax.Schedule:
    """``rate * factor(epoch)``."""
    return lambda epoch: rate * jnp.asarray(factor(epoch), epoch.dtype)


def table(rate: Any, factors: tuple[float, ...]) -> optax.Schedule:
    """``rate * factors[epoch]``, the last one ever after."""
    return lambda epoch: rate * jnp.asarray(factors, epoch.dtype)[jnp.minimum(epoch, len(factors) - 1).astype(int)]


def sequence(schedules: tuple[optax.Schedule, ...], starts: tuple[int, ...]) -> optax.Schedule:
    """One schedule after the other, each counting from its own start."""
    return optax.join_schedules(schedules, starts)
