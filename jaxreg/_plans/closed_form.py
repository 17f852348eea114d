r"""PyTorch's SGD on a squared error in closed form: how far each mode is from rest after any number of steps.

In the basis of the right singular vectors of the data, gradient descent is a recurrence of two numbers for each mode,
the distance from where it rests and its velocity:

.. math::
    b_{t+1} &= \mu b_t + (1 - \tau) a e_t, \qquad b_1 = a e_0 \\
    e_{t+1} &= e_t - \eta b_{t+1} \qquad\text{or}\qquad e_t - \eta (a e_t + \mu b_{t+1}) \text{ (Nesterov)}

with the curvature :math:`a` of the mode, decay included. Its :math:`t`-th term is a sum of :math:`t`-th powers of the
two roots :math:`r = 1 - p` of a quadratic: :math:`p_1 p_2 = x`, :math:`p_1 + p_2 = 1 - \mu + x (1 + \nu\mu)` with
:math:`x = \eta a (1 - \tau)` and :math:`\nu` = 1 for Nesterov's form. The distances :math:`p` from 1 are what is
computed, so that :math:`t` = 1e12 costs no accuracy. (O'Donoghue and Candès, *Adaptive restart for accelerated gradient
schemes*, Found. Comput. Math. 15, 2015, section 4, write the same recurrence.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float64

from jaxreg._optim.settings import Settings
from jaxreg._types import Array

# Roots closer than this share of the larger one are not taken apart: the difference of their powers is.
_CLOSE_ROOTS_SHARE = 0.01


class Remaining(NamedTuple):
    """What is left of the first distance from rest after so many steps, and what is gone, each as a share of it."""

    share: Float64[Array, ...]
    gone: Float64[Array, ...]


def remaining(curvature: Float64[Array, ...], steps: Float64[Array, ...], settings: Settings) -> Remaining:
    """Return the share of the distance that is left after ``steps`` steps, in float64; both are broadcast.

    Args:
        curvature: second derivative along the mode, decay and the sign of ``maximize`` included.
        steps: whole numbers of at least 0, below 2**53.
        settings: of the optimizer.
    """
    rate, momentum = settings.learning_rate, settings.momentum
    if momentum is None:
        return Remaining(*power(rate * curvature, steps))
    nesterov = jnp.where(settings.nesterov, 1.0, 0.0)
    dampening = jnp.where(momentum == 0, 0.0, settings.dampening)
    first = rate * curvature * (1 + nesterov * momentum)  # the share that the first step takes, undamped
    product = rate * curvature * (1 - dampening)
    half = (1 - momentum + product * (1 + nesterov * momentum)) / 2
    apart = half * half - product
    width = jnp.sqrt(jnp.abs(apart))
    real = _real(half, product, width, first, steps)
    turning = _turning(half, width, first, steps, jnp.log(momentum) + jnp.log1p(-nesterov * product))
    return Remaining(*(jnp.where(apart >= 0, a, b) for a, b in zip(real, turning, strict=True)))


def _real(half: Array, product: Array, width: Array, first: Array, steps: Array) -> tuple[Array, Array]:
    """Return share and gone for two real roots, near each other or apart."""
    far = half + jnp.where(half < 0, -width, width)
    near = jnp.where(far == 0, 0.0, product / jnp.where(far == 0, 1.0, far))
    # Whichever: the one nearer to 1 first.
    one, other = 1 - near, 1 - far
    gap = far - near
    largest = jnp.maximum(jnp.abs(one), jnp.abs(other))
    close = (jnp.abs(gap) < _CLOSE_ROOTS_SHARE * largest) & (one * other > 0)
    power_near, gone = power(near, steps)
    power_far, gone_far = power(far, steps)
    # Apart: weights of the two powers, which add up to 1.
    safe = jnp.where(gap == 0, 1.0, gap)
    weight, rest = jnp.where(gap == 0, 1.0, (far - first) / safe), (first - near) / safe
    share = weight * power_near + rest * power_far
    away = weight * gone + rest * gone_far
    # Close: one power, and the difference of the two over their distance, which stays finite as they meet.
    ratio = jnp.log1p(jnp.where(close, gap / jnp.where(other == 0, 1.0, other), 0.0))
    slope = jnp.where(
        gap == 0, steps / jnp.where(other == 0, 1.0, other), jnp.expm1(steps * ratio) / jnp.where(gap == 0, 1.0, gap)
    )
    pull = (far - first) * slope * power_far
    return jnp.where(close, power_far + pull, share), jnp.where(close, gone_far - pull, away)


def power(distance: Array, steps: Array) -> tuple[Array, Array]:
    """Return (1 - distance) ** steps, and what that lacks of 1, from the distance."""
    size = jnp.where(distance > 1, distance - 2, -distance)  # |1 - distance| - 1, without a rounding
    exponent = jnp.where(steps == 0, 0.0, steps * jnp.log1p(size))
    sign = jnp.where((distance > 1) & _is_odd(steps), -1.0, 1.0)
    return sign * jnp.exp(exponent), jnp.where(sign > 0, -jnp.expm1(exponent), 1 + jnp.exp(exponent))


def _is_odd(steps: Array) -> Array:
    """Return whether whole numbers below 2**53 are odd; a remainder of floats takes many times as long."""
    return steps != 2 * jnp.floor(steps / 2)


def _turning(half: Array, width: Array, first: Array, steps: Array, decline: Array) -> tuple[Array, Array]:
    """Return share and gone for complex roots (1 - half) +- i width; ``decline`` is the logarithm of their product."""
    middle = 1 - half
    # Near 1 the product is known better than the roots are.
    decline = jnp.where(jnp.abs(half) < 0.5, decline, jnp.log(middle * middle + width * width))
    sign = jnp.where((middle < 0) & _is_odd(steps), -1.0, 1.0)
    angle = jnp.arctan2(width, jnp.abs(middle))
    exponent = jnp.where(steps == 0, 0.0, steps / 2 * decline)
    turn = jnp.where(middle < 0, -1.0, 1.0) * jnp.sin(steps * angle)
    share = jnp.cos(steps * angle) - (first - half) / jnp.where(width == 0, 1.0, width) * turn
    share = sign * jnp.exp(exponent) * share
    return share, 1 - share
