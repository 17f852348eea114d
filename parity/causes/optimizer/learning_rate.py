"""Hypotheses about the learning rate: the port's own is read off its steps, and held against the recorded one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from parity.causes.decimals import digits, shortest
from parity.causes.optimizer.course import Course, course
from parity.causes.optimizer.faults import Variant
from parity.causes.optimizer.steps import Columns
from parity.recording.recording import Array, Recording

_SCHEDULES_WORDS = "jaxreg.lr_scheduler has PyTorch's schedules"
_WARM_UP_NAME = "jaxreg.lr_scheduler.linear_lr"
# Rates that a sentence lists.
_MOST_LISTED_RATES = 4
_SCHEDULE_FIX = (
    "count the schedule as PyTorch does: scheduler.step() after each epoch or batch, the first one at step 0"
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
    """The port's learning rates, how far off they may be, and PyTorch's; each of shape ``(steps,)``."""

    rates: Array
    slack: Array
    recorded: Array


def explanations(steps: Columns, recording: Recording) -> Iterator[tuple[Variant, Course]]:
    """Yield rates that explain the port's steps, in words and as the course with them."""
    read = _read(steps, np.ones(len(steps.owner), bool))
    if read is None:
        yield from _of_some(steps)
        return
    whole = next(iter(recording.learning_rates.values())).astype(np.float64)
    for name, rates, what, fix in _schedules(read, whole):
        made = _course(steps, rates)
        if steps.explained(made):
            yield Variant(name, steps.rule, what, fix), made
            return
    if steps.jax.size < 2:  # one number is met by any rate
        return
    constant = list(_constant(steps, read))
    # One number a step is met by any rate of each step.
    yield from constant or (_any_schedule(steps, read) if steps.jax.shape[1] > 1 else ())


def _read(steps: Columns, chosen: Array) -> _Read | None:
    """Return the rate of each step at which the weights move as PyTorch's rule moves them, where there is one."""
    own = course(steps.rule, steps.fed).weights
    moved = (steps.fed.weights - own.value)[:, chosen]
    port = (steps.fed.weights - steps.jax)[:, chosen]
    slack = np.maximum(own.slack, np.finfo(np.float64).tiny)[:, chosen]
    recorded = steps.rule.rates[:, chosen]
    if (recorded != recorded[:, :1]).any() or not np.isfinite(port).all():
        return None
    if not moved.any(1).all():
        return None
    # The element that tells the most of each step: a mean over all of them would round worse than that one.
    best = (np.arange(len(moved)), (np.abs(moved) / slack).argmax(1))
    share = port[best] / moved[best]
    # Rounding scales with the weights' size, and with the step's own where that is larger.
    off = np.abs(port - share[:, None] * moved) > slack * np.maximum(1, np.abs(share))[:, None]
    if off.any():
        return None
    tight = slack[best] / np.abs(moved[best])
    rates = recorded[:, 0]
    return _Read(share * rates, tight * np.abs(rates) * np.maximum(1, np.abs(share)), rates)


def _course(steps: Columns, rates: Array, doubt: float | Array = 0.0) -> Course:
    """Return what the rule makes at these rates; ``doubt`` is how far, relative, each may be from the port's own."""
    spread = np.broadcast_to(rates if rates.ndim == 2 else rates[:, None], steps.rule.rates.shape)
    made = course(dataclasses.replace(steps.rule, rates=spread), steps.fed)
    moved = np.abs(steps.fed.weights - made.weights.value)
    return dataclasses.replace(made, weights=made.weights.with_slack(doubt * moved))


def _doubt(slack: float, factor: float) -> float:
    """Return how far a factor may be from the port's own, relative."""
    return float(slack) / abs(factor) if factor else 0.0


def _near(read: _Read, rates: Array) -> bool:
    count = min(len(rates), len(read.rates))
    return bool((np.abs(read.rates[:count] - rates[:count]) <= read.slack[:count]).all())


def _schedules(read: _Read, whole: Array) -> Iterator[tuple[str, Array, str, str]]:
    count = len(read.rates)
    single = whole.astype(np.float32).astype(np.float64)[:count]
    if _near(read, single):
        fix = "compute the learning rate in float64: a Python number, or a schedule that makes no float32 of it"
        yield "float64 cut to float32", single, "its learning rate is rounded to float32", fix
    if (whole == whole[0]).all():
        return
    late = np.concatenate([whole[:1], whole[:-1]])[:count]
    # The rate after the last recorded step is not known; the port's own is taken there.
    early = whole[1 : count + 1]
    early = np.concatenate([early, read.rates[len(early) : count]])
    for rates, when in ((early, "a step early"), (late, "a step late")):
        if _near(read, rates):
            yield "schedule off by one", rates, f"its learning rate changes {when}", _SCHEDULE_FIX
    if whole.max() > whole[0] and _near(read, np.full(count, whole.max())):
        fix = "let the rate rise as PyTorch's does: " + _WARM_UP_NAME
        yield "warm-up missing", np.full(count, whole.max()), f"its learning rate is {whole.max():g} at once", fix
    if _near(read, np.full(count, whole[0])):
        fix = "give the optimizer the schedule: jaxreg.lr_scheduler"
        yield "schedule missing", np.full(count, whole[0]), "its learning rate never changes", fix
    values = whole[np.concatenate([[True], whole[1:] != whole[:-1]])]
    known = min(len(values), count)
    rates = np.concatenate([values[:known], read.rates[known:]])
    if known >= 2 and _near(read, rates) and (len(values) > 2 or not _near(read, np.append(values, values[-1]))):
        fix = "step the schedule once an epoch: jaxreg.lr_scheduler with steps_per_epoch=..."
        yield "schedule stepped per batch", rates, "its learning rate changes with every batch", fix


def _any_schedule(steps: Columns, read: _Read) -> Iterator[tuple[Variant, Course]]:
    """Try a rate of its own at every step."""
    rates = np.array([shortest(float(rate), float(slack)) for rate, slack in zip(read.rates, read.slack, strict=True)])
    made = _course(steps, rates)
    if not steps.explained(made):
        return
    own, theirs = (", ".join(f"{rate:.6g}" for rate in some[:_MOST_LISTED_RATES]) for some in (rates, read.recorded))
    name, fix = (
        "schedule",
        f"give it PyTorch's rates, {theirs}{', …' if len(rates) > _MOST_LISTED_RATES else ''}: {_SCHEDULES_WORDS}",
    )
    if rates[0] == 0 and read.recorded[0] > 0 and (np.diff(read.recorded) > 0).any():
        name, fix = "warm-up from zero", f"start the warm-up from {read.recorded[0]:g} as PyTorch does: {_WARM_UP_NAME}"
    what = (
        f"its learning rates are {own}{', …' if len(rates) > _MOST_LISTED_RATES else ''}, where PyTorch's are {theirs}"
    )
    yield Variant(name, steps.rule, what, fix), made


def _constant(steps: Columns, read: _Read) -> Iterator[tuple[Variant, Course]]:
    """Try another rate: a constant factor, as far as it is determined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares, slack = read.rates / read.recorded, read.slack / np.abs(read.recorded)
    known = np.isfinite(shares)
    if not known.any():
        return
    best = int(np.where(known, slack, np.inf).argmin())
    factor = shortest(float(shares[best]), float(slack[best]))
    if (np.abs(shares - factor) > slack + slack[best])[known].any() or factor == 1:
        return
    made = _course(steps, factor * read.recorded, _doubt(slack[best], factor))
    if steps.explained(made):
        yield _said(steps, factor, float(slack[best]), ""), made


def _said(steps: Columns, factor: float, slack: float, of: str) -> Variant:
    own = float(steps.rule.rates[0, 0])
    if factor < 0:
        size = "" if factor == -1 else f", and its size is {digits(-factor, slack)} times PyTorch's"
        what = f"its learning rate{of} has the wrong sign: it steps in the opposite direction{size}"
        fix = f"turn the sign of the update, with optax.scale_by_learning_rate({own:g}) or optax.scale({-own:g})"
        return Variant("learning rate of the wrong sign", steps.rule, what, fix)
    # Two numbers in words: the factor's distance from one is known to as many digits as the factor itself.
    near_one = f"1 {factor - 1:+.{_digits(factor - 1, slack)}g}" if abs(factor - 1) < 0.1 else digits(factor, slack)
    what = f"its learning rate{of} is {near_one.replace('+', '+ ').replace(' -', ' - ')} times PyTorch's"
    return Variant("learning rate", steps.rule, what, f"set the learning rate to {own:g}, as PyTorch has it")


def _digits(value: float, slack: float) -> int:
    return int(np.clip(np.floor(np.log10(abs(value) / max(slack, 1e-300))), 1, 15))


def _of_some(steps: Columns) -> Iterator[tuple[Variant, Course]]:
    """Try each parameter at its own constant factor."""
    rates, told = np.array(steps.rule.rates), []
    doubt = np.zeros(rates.shape[1])
    for number, name in enumerate(steps.names):
        chosen = steps.owner == number
        read = _read(steps, chosen)
        if read is None or not read.recorded.all():
            return
        shares, slack = read.rates / read.recorded, read.slack / np.abs(read.recorded)
        best = int(slack.argmin())
        factor = shortest(float(shares[best]), float(slack[best]))
        if (np.abs(shares - factor) > slack + slack[best]).any() or read.rates.size * chosen.sum() < 2:
            return
        rates[:, chosen] *= factor
        doubt[chosen] = _doubt(slack[best], factor)
        if factor != 1:
            told.append((factor, float(slack[best]), f" of {name}"))
    made = _course(steps, rates, doubt)
    if told and steps.explained(made) and len(told) < len(steps.names):
        yield _said(steps, *told[0]), made
