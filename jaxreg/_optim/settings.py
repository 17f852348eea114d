"""SGD's settings as numbers, rounded as a loop in the training's dtype uses them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from jaxreg._types import DType, Number


class Settings(NamedTuple):
    """The arguments of :func:`jaxreg.sgd`, each a number or an array of as many as there are trainings; the rate may
    be a schedule.

    A ``momentum`` of ``None`` is known to be 0 when this is traced: the powers of one root are then all there is.
    """

    learning_rate: Any
    momentum: Any = 0.0
    dampening: Any = 0.0
    weight_decay: Any = 0.0
    nesterov: Any = False
    maximize: Any = False


def as_in(
    dtype: DType,
    rate: Number,
    momentum: Number,
    dampening: Number,
    decay: Number,
    nesterov: Number,
    maximize: Number,
) -> Settings:
    """Return the settings of :func:`jaxreg.sgd`, as a loop in this dtype uses them: rounded to it.

    Each is a number, or an array of as many as there are trainings.
    """
    given: tuple[Any, ...] = (rate, momentum, dampening, decay, nesterov, maximize)
    if all(type(value) in (float, bool) for value in given):
        return _plain_as_in(dtype, *given)
    return _as_in(dtype, *given)


def _as_in(
    dtype: DType,
    rate: Number,
    momentum: Number,
    dampening: Number,
    decay: Number,
    nesterov: Number,
    maximize: Number,
) -> Settings:
    rounded, wide = dtype.type, np.float64
    kept = wide(rounded(1 - dampening))
    return Settings(wide(rounded(rate)), wide(rounded(momentum)), 1 - kept, wide(rounded(decay)), nesterov, maximize)


# Plain numbers, which one training after the other is given.
_plain_as_in = functools.lru_cache(maxsize=256, typed=True)(_as_in)
