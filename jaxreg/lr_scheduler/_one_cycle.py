"""PyTorch's ``OneCycleLR``: the learning rate's schedule and the momentum's; see :mod:`jaxreg.lr_scheduler`."""

from __future__ import annotations

import math
from typing import Any, Literal

from jaxreg._errors import ArgumentError
from jaxreg._validation import check_between, check_choice, check_count, check_flag, check_setting, is_number
from jaxreg.lr_scheduler import _schedules as formulas
from jaxreg.lr_scheduler._schedules import Schedule


def one_cycle_lr(
    max_lr: Any,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """``OneCycleLR``: up from ``max_lr / div_factor`` to ``max_lr``, then down to that over ``final_div_factor``.

    It is stepped after every batch, and ``epochs`` and ``steps_per_epoch`` only multiply to ``total_steps``. The
    optimizer's own learning rate plays no part, as in PyTorch. Its momentum goes with :func:`one_cycle_momentum`.
    Where PyTorch raises, more than ``total_steps`` steps on, the last value stands.

    Raises:
        ArgumentError: a value that PyTorch refuses, or with which it divides by zero.

    Example:
        >>> schedule = one_cycle_lr(1.0, total_steps=10)
        >>> [f"{schedule(step):.3f}" for step in (0, 1, 2, 9)]
        ['0.040', '0.520', '1.000', '0.000']
    """
    check_setting("max_lr", max_lr)
    for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if not is_number(value) or not 0 < value < math.inf:
            raise ArgumentError(f"{name} must be a number above 0, got {value!r}")
    check_flag("three_phase", three_phase)
    total = _total_steps(total_steps, epochs, steps_per_epoch)
    initial = max_lr / div_factor
    middle = (max_lr, initial) if three_phase else (max_lr,)
    values = (initial, *middle, initial / final_div_factor)
    return Schedule(formulas.phases, (_ends(total, pct_start, three_phase), values, total, _shape(anneal_strategy)))


def one_cycle_momentum(
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum of ``OneCycleLR(cycle_momentum=True)``: down while the rate goes up, and up while it goes down.

    Raises:
        ArgumentError: as :func:`one_cycle_lr`.

    Example:
        >>> import optax, jaxreg
        >>> momentum = one_cycle_momentum(total_steps=10)
        >>> [f"{momentum(step):.2f}" for step in (0, 2, 9)]
        ['0.95', '0.85', '0.95']
        >>> optimizer = optax.inject_hyperparams(jaxreg.sgd)(one_cycle_lr(1.0, total_steps=10), momentum=momentum)
    """
    check_setting("base_momentum", base_momentum)
    check_setting("max_momentum", max_momentum)
    check_flag("three_phase", three_phase)
    total = _total_steps(total_steps, epochs, steps_per_epoch)
    values = (max_momentum, base_momentum, max_momentum) + ((max_momentum,) if three_phase else ())
    return Schedule(formulas.phases, (_ends(total, pct_start, three_phase), values, total, _shape(anneal_strategy)))


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        check_count("total_steps", total_steps, 1)
        return total_steps
    if epochs is None or steps_per_epoch is None:
        raise ArgumentError("give total_steps, or both epochs and steps_per_epoch")
    check_count("epochs", epochs, 1)
    check_count("steps_per_epoch", steps_per_epoch, 1)
    return epochs * steps_per_epoch


def _shape(anneal_strategy: str) -> str:
    check_choice("anneal_strategy", anneal_strategy, "cos", "linear")
    return anneal_strategy


def _ends(total: int, pct_start: float, three_phase: bool) -> tuple[float, ...]:
    """The step at which each phase ends, as PyTorch counts them: fractions, and the first may lie before step 0."""
    check_between("pct_start", pct_start, 0, 1)
    rise = pct_start * total
    if rise == 1:
        raise ArgumentError(
            f"pct_start times the number of steps must not be 1, got {pct_start!r} of {total}: a rise of no steps, for "
            "which PyTorch divides by zero"
        )
    return (rise - 1, 2 * rise - 2, total - 1.0) if three_phase else (rise - 1, total - 1.0)
