"""Schedules of jaxreg beside the schedulers of PyTorch that they stand for, and how far rounding can part the two."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st

from jaxreg import lr_scheduler
from jaxreg.lr_scheduler._schedules import Schedule

U = 2.0**-53
# pow and cos within four units in the last place, which are eight unit roundoffs: glibc documents one or two.
ELEMENTARY = 8 * U
# Ours is one formula: no more than twenty roundings of numbers no larger than the rates, one of an elementary function.
FORMULA = 20 * U + ELEMENTARY


@dataclasses.dataclass(frozen=True)
class Case:
    """One schedule, by the name of PyTorch's class and its arguments.

    Attributes:
        name: of PyTorch's class.
        arguments: of the class, but the optimizer.
        inner: for ``SequentialLR`` the cases in a row.
    """

    name: str
    arguments: dict[str, Any]
    inner: tuple[Case, ...] = ()

    def ours(self, rate: float, **more: Any) -> Schedule:
        """jaxreg's schedule."""
        function: Callable[..., Schedule] = getattr(lr_scheduler, _SNAKE[self.name])
        if self.name == "OneCycleLR":
            return function(**self.arguments)
        if self.inner:
            return function([case.ours(rate) for case in self.inner], **self.arguments, **more)
        return function(rate, **self.arguments, **more)

    def theirs(self, optimizer: torch.optim.Optimizer) -> Any:
        """PyTorch's scheduler."""
        scheduler = getattr(torch.optim.lr_scheduler, self.name)
        if self.name == "OneCycleLR":
            return scheduler(optimizer, cycle_momentum=False, **self.arguments)
        if self.inner:
            return scheduler(optimizer, [case.theirs(optimizer) for case in self.inner], **self.arguments)
        return scheduler(optimizer, **self.arguments)

    def bounds(self, rate: float) -> Iterator[float]:
        """What the two can part by, epoch after epoch: PyTorch's recurrence, ours, and the product of two errors."""
        if self.inner:
            yield from self._in_a_row(rate)
            return
        least = abs(self.arguments.get("eta_min", 0.0))
        largest = max(rate, self.arguments.get("max_lr", 0.0)) + least
        recurrence: Callable[..., Iterator[float]] = _RECURRENCES.get(self.name, _closed)
        for theirs in recurrence(rate, **self.arguments):
            yield (theirs + FORMULA * largest) * 1.001

    def _in_a_row(self, rate: float) -> Iterator[float]:
        starts = [0, *self.arguments["milestones"]]
        lengths = [b - a for a, b in itertools.pairwise(starts)]
        for case, length in zip(self.inner, [*lengths, 2**31], strict=True):
            for _, bound in zip(range(length), case.bounds(rate), strict=False):
                yield bound


_SNAKE = {
    "ConstantLR": "constant_lr",
    "CosineAnnealingLR": "cosine_annealing_lr",
    "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    "ExponentialLR": "exponential_lr",
    "LambdaLR": "lambda_lr",
    "LinearLR": "linear_lr",
    "MultiStepLR": "multi_step_lr",
    "OneCycleLR": "one_cycle_lr",
    "PolynomialLR": "polynomial_lr",
    "SequentialLR": "sequential_lr",
    "StepLR": "step_lr",
}


def _closed(rate: float, **arguments: Any) -> Iterator[float]:
    largest = max(rate, arguments.get("max_lr", 0.0)) + abs(arguments.get("eta_min", 0.0))
    while True:
        yield FORMULA * largest


def _constant(rate: float, **_: Any) -> Iterator[float]:
    while True:
        yield 4 * U * rate  # times the factor, times its reciprocal


def _multiplied(rate: float, factors: Iterator[tuple[float, float]], first: float) -> Iterator[float]:
    """Of ``rate = rate * factor``, each factor with the error it has itself."""
    rate, off = rate * first, U * rate * first
    yield off
    for factor, factor_off in factors:
        off = abs(factor) * off + rate * factor_off + U * abs(rate * factor) + off * factor_off
        rate = rate * factor
        yield off


def _powers(rate: float, gamma: float = 0.1, step_size: int = 1) -> Iterator[float]:
    def factors() -> Iterator[tuple[float, float]]:
        epoch = 0
        while True:
            epoch += 1
            yield (gamma, 0.0) if epoch % step_size == 0 else (1.0, 0.0)

    # The power that ours takes has an error in each of its factors too, were it a product.
    for epoch, off in enumerate(_multiplied(rate, factors(), 1.0)):
        yield off + ELEMENTARY * rate * abs(gamma) ** (epoch // step_size)


def _milestones(rate: float, milestones: Any, gamma: float = 0.1) -> Iterator[float]:
    def factors() -> Iterator[tuple[float, float]]:
        epoch = 0
        while True:
            epoch += 1
            factor = gamma ** list(milestones).count(epoch)
            yield factor, ELEMENTARY * abs(factor)

    for off in _multiplied(rate, factors(), gamma ** list(milestones).count(0)):
        yield off + 2 * len(milestones) * (ELEMENTARY + 3 * U) * rate  # ours: as many products, of powers too


def _linear(rate: float, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> Iterator[float]:
    def factors() -> Iterator[tuple[float, float]]:
        step = end_factor - start_factor
        for epoch in range(1, total_iters + 1):
            divisor = total_iters * start_factor + (epoch - 1) * step
            divisor_off = U * (total_iters * start_factor + 2 * abs((epoch - 1) * step) + abs(divisor))
            share = step / divisor
            yield 1 + share, abs(share) * (2 * U + divisor_off / abs(divisor)) + U * abs(1 + share)
        while True:
            yield 1.0, 0.0

    return _multiplied(rate, factors(), start_factor)


def _polynomial(rate: float, total_iters: int = 5, power: float = 1.0) -> Iterator[float]:
    def factors() -> Iterator[tuple[float, float]]:
        for epoch in range(1, total_iters + 1):
            left, before = 1 - epoch / total_iters, 1 - (epoch - 1) / total_iters
            # The quotient epoch / total_iters is exact where it is 1, so that nothing is left without an error.
            off = sum((U * (1 - part) + U * part) / part for part in (left, before) if part > 0) + U
            factor = (left / before) ** power
            yield factor, factor * (math.expm1(power * off) + ELEMENTARY)
        while True:
            yield 1.0, 0.0

    # Ours: the power of a share that is off by two roundings of 1, relative to what is left.
    for epoch, off in enumerate(_multiplied(rate, factors(), 1.0)):
        left = 1 - epoch / total_iters if epoch < total_iters else 0.0
        ours = rate * left**power * math.expm1(power * 2 * U / left) if left else 0.0
        yield off + ours


def _cosine(rate: float, T_max: int, eta_min: float = 0.0) -> Iterator[float]:
    def raised(epoch: int) -> tuple[float, float]:
        angle = math.pi * epoch / T_max
        value = 1 + math.cos(angle)
        return value, 3 * U * angle * abs(math.sin(angle)) + (3 * U * angle) ** 2 + 2 * U + U * value

    top, off, now = rate - eta_min, 0.0, rate
    yield off
    epoch = 0
    while True:
        epoch += 1
        # Ours: the angle, below two pi, is off by three roundings.
        ours = 6 * math.pi * U * abs(top)
        if (epoch - 1 - T_max) % (2 * T_max) == 0:
            added = abs(top) * (1 - math.cos(math.pi / T_max)) / 2
            now = eta_min + added
            off += 6 * U * added + U * (abs(top) + abs(now))
            yield off + ours
            continue
        (up, up_off), (down, down_off) = raised(epoch), raised(epoch - 1)
        down = max(down, down_off)  # at the very bottom PyTorch takes the branch above
        ratio_off = up_off / down + up / down * (down_off / down + U)
        off = up / down * off + abs(now - eta_min) * ratio_off + ratio_off * off
        now = eta_min + top * up / 2
        off += 3 * U * (abs(now - eta_min) + abs(eta_min) + abs(now))
        yield off + ours


_RECURRENCES: dict[str, Callable[..., Iterator[float]]] = {
    "ConstantLR": _constant,
    "CosineAnnealingLR": _cosine,
    "ExponentialLR": _powers,
    "LinearLR": _linear,
    "MultiStepLR": _milestones,
    "PolynomialLR": _polynomial,
    "StepLR": _powers,
}


def _built(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    return st.builds(lambda **drawn: Case(name, drawn), **arguments)


def _divides_by_zero(case: Case) -> bool:
    """Whether PyTorch does where the schedule comes after another one."""
    return case.name in ("LinearLR", "PolynomialLR") and case.arguments["total_iters"] == 0


def cases() -> st.SearchStrategy[Case]:
    """Any schedule, with boundaries before, at and after the end of short trainings."""
    counts, gammas, least = (
        st.integers(1, 80),
        st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]),
        st.sampled_from([0.0, 0.01]),
    )
    shares = st.floats(0.01, 1.0)
    plain = [
        _built("StepLR", step_size=counts, gamma=gammas),
        _built("MultiStepLR", milestones=st.lists(st.integers(0, 60), max_size=4), gamma=gammas),
        _built("ConstantLR", factor=shares, total_iters=st.integers(0, 60)),
        _built("LinearLR", start_factor=shares, end_factor=st.floats(0, 1), total_iters=st.integers(0, 60)),
        _built("ExponentialLR", gamma=gammas),
        _built("PolynomialLR", total_iters=st.integers(0, 60), power=st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.7])),
        _built("CosineAnnealingLR", T_max=counts, eta_min=least),
        _built("CosineAnnealingWarmRestarts", T_0=counts, T_mult=st.integers(1, 3), eta_min=least),
        st.builds(lambda base: Case("LambdaLR", {"lr_lambda": lambda epoch: base**epoch}), st.floats(0.5, 1.0)),
    ]
    alone = _built(
        "OneCycleLR",
        max_lr=st.floats(0.01, 1.0),
        total_steps=st.integers(60, 90),
        pct_start=st.floats(0, 1),
        anneal_strategy=st.sampled_from(["cos", "linear"]),
        three_phase=st.booleans(),
    )
    in_a_row = st.lists(st.one_of(plain), min_size=1, max_size=3).flatmap(
        lambda inner: st.lists(st.integers(0, 60), min_size=len(inner) - 1, max_size=len(inner) - 1).map(
            lambda starts: Case("SequentialLR", {"milestones": sorted(starts)}, tuple(inner))
        )
    )
    in_a_row = in_a_row.filter(lambda case: not any(map(_divides_by_zero, case.inner[1:])))
    return st.one_of(*plain, alone, in_a_row)
