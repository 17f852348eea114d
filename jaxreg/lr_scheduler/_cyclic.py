"""PyTorch's ``CyclicLR``: the learning rate's schedule and the momentum's; see :mod:`jaxreg.lr_scheduler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp

from jaxreg._errors import ArgumentError
from jaxreg._validation import check_choice, check_count, check_setting, is_finite
from jaxreg.lr_scheduler._schedules import Schedule

Mode = Literal["triangular", "triangular2", "exp_range"]
ScaleMode = Literal["cycle", "iterations"]


def cyclic_lr(
    base_lr: Any,
    max_lr: Any,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Mode = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: ScaleMode = "cycle",
    *,
    steps_per_epoch: int = 1,
) -> Schedule:
    """``CyclicLR``: up from ``base_lr`` to ``max_lr`` and down again, over and over.

    The height of a cycle is the same in each (``"triangular"``), half of the last one (``"triangular2"``), or times
    ``gamma`` to the number of steps made (``"exp_range"``); or times ``scale_fn`` of the cycle (counted from 1) or of
    the steps made, as ``scale_mode`` says. ``scale_fn`` is traced: an ``if`` in it must be ``jnp.where``. The
    optimizer's own learning rate plays no part, as in PyTorch. Its momentum goes with :func:`cyclic_momentum`.

    Raises:
        ArgumentError: a number of steps is not an integer of at least 1, a number is not finite, or a mode is none of
            PyTorch's.

    Example:
        >>> schedule = cyclic_lr(0.1, 0.5, step_size_up=2)
        >>> [f"{schedule(step):.1f}" for step in range(6)]
        ['0.1', '0.3', '0.5', '0.3', '0.1', '0.3']
    """
    check_setting("base_lr", base_lr)
    check_setting("max_lr", max_lr)
    shape = _shape(step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    check_count("steps_per_epoch", steps_per_epoch, 1)
    return Schedule(_cycles, (base_lr, max_lr, *shape), steps_per_epoch)


def cyclic_momentum(
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Mode = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: ScaleMode = "cycle",
    *,
    steps_per_epoch: int = 1,
) -> Schedule:
    """The momentum of ``CyclicLR(cycle_momentum=True)``: down while the rate goes up, and up while it goes down.

    Raises:
        ArgumentError: as :func:`cyclic_lr`.

    Example:
        >>> schedule = cyclic_momentum(step_size_up=2)
        >>> [f"{schedule(step):.2f}" for step in range(4)]
        ['0.90', '0.85', '0.80', '0.85']
    """
    check_setting("base_momentum", base_momentum)
    check_setting("max_momentum", max_momentum)
    shape = _shape(step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    check_count("steps_per_epoch", steps_per_epoch, 1)
    return Schedule(_cycles, (max_momentum, base_momentum, *shape), steps_per_epoch)


def _shape(up: Any, down: Any, mode: Any, gamma: Any, scale: Any, scale_mode: Any) -> tuple[Any, ...]:
    """The settings of a cycle, checked: steps up and in all, mode, gamma, and a scale of one's own."""
    check_count("step_size_up", up, 1)
    if down is not None:
        check_count("step_size_down", down, 1)
    if scale is None:
        check_choice("mode", mode, "triangular", "triangular2", "exp_range")
    if not is_finite(gamma):
        raise ArgumentError(f"gamma must be a finite number, got {gamma!r}")
    if scale is not None and not callable(scale):
        raise ArgumentError(f"scale_fn must be a function from a number to a factor, got {scale!r}")
    if scale is not None:
        check_choice("scale_mode", scale_mode, "cycle", "iterations")
    return up, up + (up if down is None else down), mode, gamma, scale, scale_mode


def _cycles(start: Any, peak: Any, up: int, total: int, mode: str, gamma: float, scale: Any, scale_mode: str) -> Any:
    def schedule(epoch: Any) -> Any:
        cycle = jnp.floor(1 + epoch / total)
        since = epoch - (cycle - 1) * total
        height = jnp.where(since <= up, since / up, (total - since) / (total - up))
        if scale is not None:
            factor = scale(cycle if scale_mode == "cycle" else epoch)
        else:
            factor = {"triangular": 1.0, "triangular2": 2.0 ** (1 - cycle), "exp_range": gamma**epoch}[mode]
        return start + (peak - start) * height * factor

    return schedule
