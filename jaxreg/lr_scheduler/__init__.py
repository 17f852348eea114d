"""PyTorch's learning-rate schedulers as Optax schedules: a function from the number of steps made to the rate.

Each carries the name of PyTorch's class in small letters (``StepLR`` is :func:`step_lr`), takes the learning rate where
the class takes the optimizer, then the class's own arguments by their own names and with their own defaults
(``last_epoch`` aside: resume by giving a later step). Values are PyTorch's, step for step, from its closed forms: the
stepping forms that PyTorch runs add up rounding errors, these do not. Give the schedule to :func:`jaxreg.sgd` or to any
Optax optimizer.

PyTorch's schedulers move when ``scheduler.step()`` is called. Called after every optimizer step, that is what these do;
called once an epoch, say how many optimizer steps that makes with ``steps_per_epoch``. The words "epoch" and
"iterations" below mean calls of ``scheduler.step()``, as in PyTorch.

Source of all of them: `torch/optim/lr_scheduler.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxreg._errors import ArgumentError
from jaxreg._validation import check_between, check_count, check_setting, is_finite, is_number
from jaxreg.lr_scheduler import _schedules as formulas
from jaxreg.lr_scheduler._cyclic import cyclic_lr, cyclic_momentum
from jaxreg.lr_scheduler._one_cycle import one_cycle_lr, one_cycle_momentum
from jaxreg.lr_scheduler._schedules import Schedule

__all__ = [
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "cyclic_momentum",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "one_cycle_lr",
    "one_cycle_momentum",
    "polynomial_lr",
    "sequential_lr",
    "step_lr",
]


def _check(learning_rate: Any, steps_per_epoch: Any, **numbers: Any) -> None:
    check_setting("learning_rate", learning_rate)
    check_count("steps_per_epoch", steps_per_epoch, 1)
    for name, value in numbers.items():
        if not is_finite(value):
            raise ArgumentError(f"{name} must be a finite number, got {value!r}")


def step_lr(learning_rate: ArrayLike, step_size: int, gamma: float = 0.1, *, steps_per_epoch: int = 1) -> Schedule:
    """``StepLR``: times ``gamma`` every ``step_size`` epochs.

    Raises:
        ArgumentError: ``step_size`` is not an integer of at least 1, or a number is not finite.

    Example:
        >>> schedule = step_lr(0.5, step_size=30)
        >>> [f"{schedule(step):.3f}" for step in (0, 29, 30, 60)]
        ['0.500', '0.500', '0.050', '0.005']
    """
    _check(learning_rate, steps_per_epoch, gamma=gamma)
    check_count("step_size", step_size, 1)
    return Schedule(formulas.powers, (learning_rate, gamma), step_size * steps_per_epoch)


def multi_step_lr(
    learning_rate: ArrayLike, milestones: Iterable[int], gamma: float = 0.1, *, steps_per_epoch: int = 1
) -> Schedule:
    """``MultiStepLR``: times ``gamma`` at each of the ``milestones``, as often as it is named.

    Raises:
        ArgumentError: a milestone is not an integer of at least 0, or ``gamma`` is below 0 (PyTorch lets the rate go
            below 0; Optax does not).

    Example:
        >>> schedule = multi_step_lr(1.0, [2, 4])
        >>> [f"{schedule(step):.2f}" for step in range(5)]
        ['1.00', '1.00', '0.10', '0.10', '0.01']
    """
    single = isinstance(milestones, jax.Array | np.ndarray) and not milestones.ndim
    if not isinstance(milestones, Iterable) or single:
        raise ArgumentError(f"milestones must be a sequence of integers, got {milestones!r}")
    milestones = tuple(milestones)
    for milestone in milestones:
        check_count("each of milestones", milestone, 0)
    _check(learning_rate, steps_per_epoch, gamma=gamma)
    check_setting("gamma", gamma)
    factors = tuple(sorted((epoch, gamma**count) for epoch, count in Counter(milestones).items()))
    return Schedule(formulas.milestones, (learning_rate, factors), steps_per_epoch)


def constant_lr(
    learning_rate: ArrayLike, factor: float = 1 / 3, total_iters: int = 5, *, steps_per_epoch: int = 1
) -> Schedule:
    """``ConstantLR``: times ``factor`` for the first ``total_iters`` epochs; with 0 of them for ever, as PyTorch's.

    Raises:
        ArgumentError: ``factor`` is not from 0 to 1.

    Example:
        >>> schedule = constant_lr(1.0, factor=0.5, total_iters=2)
        >>> [float(schedule(step)) for step in range(4)]
        [0.5, 0.5, 1.0, 1.0]
    """
    _check(learning_rate, steps_per_epoch)
    check_between("factor", factor, 0, 1)
    check_count("total_iters", total_iters, 0)
    return Schedule(formulas.constant, (learning_rate, factor, total_iters), steps_per_epoch)


def linear_lr(
    learning_rate: ArrayLike,
    start_factor: float = 1 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
    *,
    steps_per_epoch: int = 1,
) -> Schedule:
    """``LinearLR``: times a factor that goes from ``start_factor`` to ``end_factor`` in ``total_iters`` equal steps.

    Raises:
        ArgumentError: ``start_factor`` is not above 0 and at most 1, or ``end_factor`` not from 0 to 1.

    Example:
        >>> schedule = linear_lr(1.0, start_factor=0.5, total_iters=2)
        >>> [float(schedule(step)) for step in range(4)]
        [0.5, 0.75, 1.0, 1.0]
    """
    _check(learning_rate, steps_per_epoch)
    if not is_number(start_factor) or not 0 < start_factor <= 1:
        raise ArgumentError(f"start_factor must be a number above 0 and at most 1, got {start_factor!r}")
    check_between("end_factor", end_factor, 0, 1)
    check_count("total_iters", total_iters, 0)
    return Schedule(formulas.linear, (learning_rate, start_factor, end_factor, total_iters), steps_per_epoch)


def exponential_lr(learning_rate: ArrayLike, gamma: float, *, steps_per_epoch: int = 1) -> Schedule:
    """``ExponentialLR``: times ``gamma`` every epoch.

    Raises:
        ArgumentError: a number is not finite.

    Example:
        >>> [float(exponential_lr(1.0, gamma=0.5)(step)) for step in range(3)]
        [1.0, 0.5, 0.25]
    """
    _check(learning_rate, steps_per_epoch, gamma=gamma)
    return Schedule(formulas.powers, (learning_rate, gamma), steps_per_epoch)


def polynomial_lr(
    learning_rate: ArrayLike, total_iters: int = 5, power: float = 1.0, *, steps_per_epoch: int = 1
) -> Schedule:
    """``PolynomialLR``: times ``(1 - epoch / total_iters) ** power``, then 0; with ``total_iters`` 0 it never moves.

    Raises:
        ArgumentError: ``power`` is below 0: PyTorch then divides by zero at the last epoch.

    Example:
        >>> schedule = polynomial_lr(1.0, total_iters=4, power=2.0)
        >>> [float(schedule(step)) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    _check(learning_rate, steps_per_epoch)
    check_count("total_iters", total_iters, 0)
    check_setting("power", power)
    return Schedule(formulas.polynomial, (learning_rate, total_iters, power), steps_per_epoch)


def cosine_annealing_lr(
    learning_rate: ArrayLike, T_max: int, eta_min: float = 0.0, *, steps_per_epoch: int = 1
) -> Schedule:
    """``CosineAnnealingLR``: half a cosine down to ``eta_min`` in ``T_max`` epochs, then up again, and so on.

    Raises:
        ArgumentError: ``T_max`` is not an integer of at least 1 (PyTorch divides by it), or ``eta_min`` is not finite.

    Example:
        >>> schedule = cosine_annealing_lr(1.0, T_max=2)
        >>> [f"{schedule(step):.2f}" for step in range(5)]
        ['1.00', '0.50', '0.00', '0.50', '1.00']
    """
    _check(learning_rate, steps_per_epoch, eta_min=eta_min)
    check_count("T_max", T_max, 1)
    return Schedule(formulas.cosine, (learning_rate, T_max, eta_min), steps_per_epoch)


def cosine_annealing_warm_restarts(
    learning_rate: ArrayLike, T_0: int, T_mult: int = 1, eta_min: float = 0.0, *, steps_per_epoch: int = 1
) -> Schedule:
    """``CosineAnnealingWarmRestarts``: half a cosine down in ``T_0`` epochs, then from the top, ``T_mult`` as long.

    Raises:
        ArgumentError: ``T_0`` or ``T_mult`` is not an integer of at least 1, or ``eta_min`` is not finite.

    Example:
        >>> schedule = cosine_annealing_warm_restarts(1.0, T_0=1, T_mult=2)
        >>> [f"{schedule(step):.2f}" for step in range(4)]
        ['1.00', '1.00', '0.50', '1.00']
    """
    _check(learning_rate, steps_per_epoch, eta_min=eta_min)
    check_count("T_0", T_0, 1)
    check_count("T_mult", T_mult, 1)
    return Schedule(formulas.warm_restarts, (learning_rate, T_0, T_mult, eta_min), steps_per_epoch)


def lambda_lr(
    learning_rate: ArrayLike,
    lr_lambda: Callable[[Any], Any],
    *,
    tabulate: int | None = None,
    steps_per_epoch: int = 1,
) -> Schedule:
    """``LambdaLR``: times ``lr_lambda(epoch)``.

    The function is traced: it gets the epoch as a floating JAX scalar (JAX divides integers in float32 even where the
    rest is float64), and an ``if`` on it must be ``jnp.where``. For one that cannot be traced say for how many epochs
    it is needed with ``tabulate``: it is then called once for each of them beforehand, with Python integers as PyTorch
    calls it, and the last value stands ever after.

    Raises:
        ArgumentError: ``lr_lambda`` cannot be called, or ``tabulate`` is not an integer of at least 1.

    Example:
        >>> [float(lambda_lr(1.0, lambda epoch: 0.5**epoch)(step)) for step in range(3)]
        [1.0, 0.5, 0.25]
        >>> warm = lambda_lr(1.0, lambda epoch: 0.5 if epoch < 2 else 1.0, tabulate=10)
        >>> [float(warm(step)) for step in range(3)]
        [0.5, 0.5, 1.0]
    """
    _check(learning_rate, steps_per_epoch)
    if not callable(lr_lambda):
        raise ArgumentError(f"lr_lambda must be a function from the epoch to a factor, got {lr_lambda!r}")
    if tabulate is None:
        return Schedule(formulas.times, (learning_rate, lr_lambda), steps_per_epoch)
    check_count("tabulate", tabulate, 1)
    factors = tuple(float(lr_lambda(epoch)) for epoch in range(tabulate))
    return Schedule(formulas.table, (learning_rate, factors), steps_per_epoch)


def sequential_lr(
    schedules: Sequence[Callable[[Any], Any]], milestones: Sequence[int], *, steps_per_epoch: int = 1
) -> Schedule:
    """``SequentialLR``: the second schedule from the first milestone on, counting from there, and so on.

    With ``steps_per_epoch`` here, the schedules inside count epochs and need none of their own.

    Raises:
        ArgumentError: no schedule, not one milestone fewer than schedules, or milestones that go back.

    Example:
        >>> schedule = sequential_lr([constant_lr(1.0, 0.5, 2), exponential_lr(1.0, 0.5)], [2])
        >>> [float(schedule(step)) for step in range(5)]
        [0.5, 0.5, 1.0, 0.5, 0.25]
    """
    check_count("steps_per_epoch", steps_per_epoch, 1)
    if not schedules or not all(map(callable, schedules)):
        raise ArgumentError(f"schedules must be at least one schedule, got {schedules!r}")
    if len(milestones) != len(schedules) - 1:
        raise ArgumentError(
            f"milestones must be one fewer than the {len(schedules)} schedules, got {len(milestones)}: {milestones!r}"
        )
    for milestone in milestones:
        check_count("each of milestones", milestone, 0)
    if list(milestones) != sorted(milestones):
        raise ArgumentError(f"milestones must not go back, got {milestones!r}")
    later = (_started_late(*pair) for pair in zip(schedules[1:], milestones, strict=True))
    return Schedule(formulas.sequence, ((schedules[0], *later), tuple(milestones)), steps_per_epoch)


def _started_late(schedule: Callable[[Any], Any], milestone: int) -> Callable[[Any], Any]:
    """PyTorch starts a scheduler at a milestone by its closed form, in which ``ConstantLR`` of no epochs is over."""
    if milestone > 0 and isinstance(schedule, Schedule) and schedule.formula is formulas.constant:
        rate, factor, total = schedule.settings
        return Schedule(formulas.constant, (rate, factor if total else 1.0, total), schedule.every)
    return schedule
