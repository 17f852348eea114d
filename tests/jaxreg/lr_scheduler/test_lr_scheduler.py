"""The schedules against PyTorch's own schedulers, step for step, in float64."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg import lr_scheduler
from tests.helpers.schedules import Case, cases

STEPS = 250
_loose: Any = lr_scheduler  # for what a type checker refuses already


def _theirs(case: Case, rate: float, steps: int) -> np.ndarray:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler, rates = case.theirs(optimizer), []
    for step in range(steps):
        if step:
            optimizer.step()
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def _ours(schedule: optax.Schedule, steps: int) -> np.ndarray:
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def _hold(case: Case, rate: float, steps: int) -> float:
    """Hold the two together; the largest share of the bound that was used."""
    with jax.enable_x64(True):
        ours = _ours(case.ours(rate), steps)
    assert ours.dtype == np.float64
    theirs = _theirs(case, rate, steps)
    bounds = np.fromiter(itertools.islice(case.bounds(rate), steps), float)
    assert bounds.size == steps
    assert (abs(ours - theirs) <= bounds).all(), (case, np.argmax(abs(ours - theirs) - bounds))
    return float((abs(ours - theirs) / np.maximum(bounds, 1e-300)).max())


FIXED = [
    Case("StepLR", {"step_size": 30}),
    Case("StepLR", {"step_size": 1, "gamma": 0.97}),
    Case("StepLR", {"step_size": 7, "gamma": 0.0}),
    Case("StepLR", {"step_size": 7, "gamma": -0.5}),
    Case("MultiStepLR", {"milestones": [80, 30, 30, 200]}),
    Case("MultiStepLR", {"milestones": [0, 100], "gamma": 0.5}),
    Case("MultiStepLR", {"milestones": []}),
    Case("ConstantLR", {}),
    Case("ConstantLR", {"factor": 0.7, "total_iters": 100}),
    Case("ConstantLR", {"factor": 0.7, "total_iters": 0}),
    Case("LinearLR", {}),
    Case("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 200}),
    Case("LinearLR", {"start_factor": 0.01, "end_factor": 1.0, "total_iters": 249}),
    Case("LinearLR", {"start_factor": 0.3, "total_iters": 0}),
    Case("ExponentialLR", {"gamma": 0.95}),
    Case("ExponentialLR", {"gamma": 0.0}),
    Case("ExponentialLR", {"gamma": 1.01}),
    Case("PolynomialLR", {}),
    Case("PolynomialLR", {"total_iters": 200, "power": 0.9}),
    Case("PolynomialLR", {"total_iters": 100, "power": 0.0}),
    Case("PolynomialLR", {"total_iters": 0}),
    Case("CosineAnnealingLR", {"T_max": 50}),
    Case("CosineAnnealingLR", {"T_max": 200, "eta_min": 0.01}),
    Case("CosineAnnealingLR", {"T_max": 1}),
    Case("CosineAnnealingWarmRestarts", {"T_0": 10}),
    Case("CosineAnnealingWarmRestarts", {"T_0": 10, "T_mult": 2, "eta_min": 0.001}),
    Case("CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3}),
    Case("OneCycleLR", {"max_lr": 0.4, "total_steps": STEPS}),
    Case("OneCycleLR", {"max_lr": 0.4, "epochs": 10, "steps_per_epoch": 25, "anneal_strategy": "linear"}),
    Case("OneCycleLR", {"max_lr": 0.4, "total_steps": STEPS, "three_phase": True, "pct_start": 0.4}),
    Case("OneCycleLR", {"max_lr": 0.4, "total_steps": STEPS, "pct_start": 0.0, "div_factor": 2.0}),
    Case("OneCycleLR", {"max_lr": 0.4, "total_steps": STEPS, "pct_start": 1.0, "final_div_factor": 10.0}),
    Case("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    Case(
        "SequentialLR",
        {"milestones": [20, 120]},
        (
            Case("LinearLR", {"start_factor": 0.1, "total_iters": 20}),
            Case("CosineAnnealingLR", {"T_max": 100}),
            Case("ExponentialLR", {"gamma": 0.9}),
        ),
    ),
    Case(
        "SequentialLR",
        {"milestones": [0, 50]},
        (Case("ConstantLR", {}), Case("StepLR", {"step_size": 10}), Case("MultiStepLR", {"milestones": [0, 5]})),
    ),
    Case(
        "SequentialLR",
        {"milestones": [0, 50]},
        (
            Case("ConstantLR", {}),
            Case("ConstantLR", {"factor": 0.5, "total_iters": 0}),
            Case("ConstantLR", {"factor": 0.5, "total_iters": 0}),
        ),
    ),
]


def named(case: Case) -> str:
    """The same name in every process, which a function's own is not."""
    return f"{case.name}-{list(case.arguments.values())}".partition(" at 0x")[0][:60]


@pytest.mark.parametrize("case", FIXED, ids=named)
def test_every_step_is_pytorchs(case: Case) -> None:
    _hold(case, 0.3, STEPS)


@settings(max_examples=settings().max_examples // 2)  # test_sgd_options draws them too
@given(cases(), st.sampled_from([0.3, 0.001, 1.0]))
def test_any_arguments(case: Case, rate: float) -> None:
    _hold(case, rate, 60)


def test_one_cycle_moves_the_momentum_too() -> None:
    settings: dict[str, Any] = {"total_steps": 100, "base_momentum": 0.7, "max_momentum": 0.9}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    for three_phase in (False, True):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, three_phase=three_phase, **settings)
        theirs = []
        for _ in range(100):
            theirs.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            scheduler.step()
        with jax.enable_x64(True):
            ours = _ours(lr_scheduler.one_cycle_momentum(three_phase=three_phase, **settings), 100)
        assert abs(ours - theirs).max() <= 2 * 28 * 2.0**-53 * 0.9


def test_past_the_end_of_one_cycle_the_last_value_stands() -> None:
    case = Case("OneCycleLR", {"max_lr": 1.0, "total_steps": 10})
    _hold(case, 0.1, 11)  # PyTorch allows one step more, a little past the lowest point
    ours = _ours(case.ours(0.1), 20)
    assert (ours[10:] == ours[10]).all()
    assert ours[10] != ours[9]


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda **more: lr_scheduler.step_lr(0.3, 2, **more),
        lambda **more: lr_scheduler.multi_step_lr(0.3, [2, 3], **more),
        lambda **more: lr_scheduler.constant_lr(0.3, 0.5, 2, **more),
        lambda **more: lr_scheduler.linear_lr(0.3, 0.5, 1.0, 2, **more),
        lambda **more: lr_scheduler.exponential_lr(0.3, 0.5, **more),
        lambda **more: lr_scheduler.polynomial_lr(0.3, 3, **more),
        lambda **more: lr_scheduler.cosine_annealing_lr(0.3, 3, **more),
        lambda **more: lr_scheduler.cosine_annealing_warm_restarts(0.3, 2, 2, **more),
        lambda **more: lr_scheduler.lambda_lr(0.3, lambda epoch: 1 / (epoch + 1), **more),
        lambda **more: lr_scheduler.lambda_lr(0.3, lambda epoch: 0.5 if epoch < 2 else 2, tabulate=9, **more),
        lambda **more: lr_scheduler.sequential_lr(
            [lr_scheduler.step_lr(0.3, 1), optax.constant_schedule(1.0)], [2], **more
        ),
    ],
)
def test_stepped_once_an_epoch(schedule: Any) -> None:
    assert _ours(schedule(steps_per_epoch=7), 35).tolist() == np.repeat(_ours(schedule(), 5), 7).tolist()


def test_a_table_is_for_functions_that_cannot_be_traced() -> None:
    def factor(epoch: int) -> float:
        return 0.5 if epoch < 3 else 0.25

    schedule = lr_scheduler.lambda_lr(1.0, factor, tabulate=5)
    assert _ours(schedule, 8).tolist() == [0.5] * 3 + [0.25] * 5


def test_the_rate_may_be_traced() -> None:
    rates = jnp.array([0.1, 0.2])
    for make, arguments in ((lr_scheduler.step_lr, (3,)), (lr_scheduler.one_cycle_lr, (9,))):

        def value(rate: Any, make: Any = make, arguments: Any = arguments) -> Any:
            return make(rate, *arguments)(4)

        together = jax.jit(jax.vmap(value))(rates)
        one_by_one = jnp.stack([value(float(r)) for r in rates])
        assert abs(together - one_by_one).max() <= 8 * 2.0**-24 * 0.2


def test_equal_settings_make_the_same_optimizer() -> None:
    assert jaxreg.sgd(lr_scheduler.step_lr(0.1, 5)) is jaxreg.sgd(lr_scheduler.step_lr(0.1, 5))
    assert lr_scheduler.multi_step_lr(0.1, [5, 9]) == lr_scheduler.multi_step_lr(0.1, (9, 5))
    assert lr_scheduler.step_lr(0.1, 5) != lr_scheduler.step_lr(0.1, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lr_scheduler.step_lr(-0.1, 3), "learning_rate must be at least 0 and finite, got -0.1"),
        (lambda: lr_scheduler.step_lr(0.1, 0), "step_size must be an integer of at least 1, got 0"),
        (lambda: lr_scheduler.step_lr(0.1, 3, float("nan")), "gamma must be a finite number, got nan"),
        (lambda: lr_scheduler.step_lr(0.1, 3, steps_per_epoch=0), "steps_per_epoch must be an integer of at least 1"),
        (
            lambda: _loose.multi_step_lr(0.1, [1.5]),
            "each of milestones must be an integer of at least 0, got 1.5",
        ),
        (lambda: lr_scheduler.multi_step_lr(0.1, [1], -0.5), "gamma must be at least 0 and finite, got -0.5"),
        (lambda: lr_scheduler.constant_lr(0.1, 1.5), "factor must be a number from 0 to 1, got 1.5"),
        (lambda: lr_scheduler.linear_lr(0.1, 0.0), "start_factor must be a number above 0 and at most 1, got 0.0"),
        (lambda: lr_scheduler.linear_lr(0.1, end_factor=2), "end_factor must be a number from 0 to 1, got 2"),
        (lambda: lr_scheduler.polynomial_lr(0.1, 5, -1.0), "power must be at least 0 and finite, got -1.0"),
        (lambda: lr_scheduler.cosine_annealing_lr(0.1, 0), "T_max must be an integer of at least 1, got 0"),
        (
            lambda: _loose.cosine_annealing_warm_restarts(0.1, 1.0),
            "T_0 must be an integer of at least 1, got 1.0",
        ),
        (lambda: lr_scheduler.cosine_annealing_warm_restarts(0.1, 1, 0), "T_mult must be an integer of at least 1"),
        (lambda: lr_scheduler.one_cycle_lr(0.1), "give total_steps, or both epochs and steps_per_epoch"),
        (lambda: lr_scheduler.one_cycle_lr(0.1, 0), "total_steps must be an integer of at least 1, got 0"),
        (lambda: lr_scheduler.one_cycle_lr(0.1, 10, pct_start=2.0), "pct_start must be a number from 0 to 1, got 2.0"),
        (lambda: lr_scheduler.one_cycle_lr(0.1, 10, pct_start=0.1), "must not be 1, got 0.1 of 10"),
        (lambda: _loose.one_cycle_lr(0.1, 9, anneal_strategy="exp"), 'must be "cos" or "linear", got \'exp\''),
        (lambda: _loose.lambda_lr(0.1, 0.5), "lr_lambda must be a function"),
        (lambda: lr_scheduler.sequential_lr([], []), "schedules must be at least one schedule"),
        (
            lambda: lr_scheduler.sequential_lr([lr_scheduler.step_lr(1, 1)], [3]),
            "milestones must be one fewer than the 1",
        ),
        (lambda: lr_scheduler.sequential_lr([lr_scheduler.step_lr(1, 1)] * 3, [3, 2]), "milestones must not go back"),
    ],
)
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        make()
    assert message in str(error.value)
