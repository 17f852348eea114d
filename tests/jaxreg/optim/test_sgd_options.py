"""sgd over the full product of its options, schedules and dtypes, 50 steps against torch.optim.SGD.

Everything that can be is traced, so that nothing is compiled per example: one program for each structure and dtype.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import jaxreg
from tests.helpers.schedules import Case, cases
from tests.helpers.sgd_drift import Drift, Options, format_of

STEPS, SIZE = 50, 4
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

options = st.builds(
    Options,
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    dampening=st.sampled_from([0.0, 0.3, 1.0, 1.5]),
    weight_decay=st.sampled_from([0.0, 0.01, 0.5]),
    nesterov=st.booleans(),
    maximize=st.booleans(),
).filter(lambda drawn: not drawn.nesterov or (drawn.momentum > 0 and drawn.dampening == 0))


@functools.partial(jax.jit, static_argnames=("nesterov", "maximize"))
def _run(
    start: jax.Array, gradients: jax.Array, rates: jax.Array, numbers: jax.Array, *, nesterov: bool, maximize: bool
) -> jax.Array:
    momentum, dampening, weight_decay = numbers
    optimizer = jaxreg.sgd(
        lambda step: rates[step],
        momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=maximize,
    )

    def step(carry: tuple[Any, Any], gradient: jax.Array) -> tuple[Any, Any]:
        weights, state = carry
        updates, state = optimizer.update(gradient, state, weights)
        assert updates.dtype == gradient.dtype
        weights = optax.apply_updates(weights, updates)
        return (weights, state), weights

    return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]


def _torch_run(
    start: np.ndarray, gradients: np.ndarray, case: Case | None, rate: float, chosen: Options, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's rates and weights, both as float64."""
    kind = DTYPES[dtype]
    parameter = torch.nn.Parameter(torch.from_numpy(start).to(kind))
    optimizer = torch.optim.SGD([parameter], lr=rate, **vars(chosen))
    scheduler = case and case.theirs(optimizer)
    rates, weights = [], []
    for number, gradient in enumerate(gradients):
        if number and scheduler:
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.from_numpy(gradient).to(kind)
        optimizer.step()
        weights.append(parameter.detach().to(torch.float64).numpy().copy())
    return np.array(rates), np.array(weights)


def _hold(case: Case | None, rate: float, chosen: Options, dtype: str, seed: int) -> float:
    """Hold the two together; the largest share of the bound that was used."""
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    random = np.random.default_rng(seed)
    start, gradients = (random.normal(size=shape).astype(kind) for shape in (SIZE, (STEPS, SIZE)))
    start64, gradients64 = start.astype(np.float64), gradients.astype(np.float64)
    theirs_rates, theirs = _torch_run(start64, gradients64, case, rate, chosen, dtype)
    with jax.enable_x64(True):
        rates = jnp.full(STEPS, rate) if case is None else jax.vmap(case.ours(rate))(jnp.arange(STEPS))
        numbers = jnp.array([chosen.momentum, chosen.dampening, chosen.weight_decay])
        ours = np.asarray(
            _run(start, gradients, rates, numbers, nesterov=chosen.nesterov, maximize=chosen.maximize)
        ).astype(np.float64)
    our_rates = np.asarray(rates)
    bounds = itertools.repeat(0.0) if case is None else case.bounds(rate)
    info: Any = jnp.finfo(kind)
    drift, worst = Drift(chosen, start64, *format_of(kind)), 0.0
    for number, rate_off in zip(range(STEPS), bounds, strict=False):
        assert abs(our_rates[number] - theirs_rates[number]) <= rate_off
        drift.step(gradients64[number], theirs_rates[number], rate_off=rate_off)
        if 2 * drift.peak > float(info.max):
            break
        difference = abs(ours[number] - theirs[number])
        assert (difference <= 2 * drift.off).all(), (number, difference, drift.off)
        worst = max(worst, float((difference / (2 * drift.off)).max()))
    return worst


WORST: dict[str, float] = {}


@given(
    case=st.one_of(st.none(), cases()),
    rate=st.floats(1e-4, 1.0),
    chosen=options,
    dtype=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 2**31),
)
def test_the_full_product(case: Case | None, rate: float, chosen: Options, dtype: str, seed: int) -> None:
    WORST[dtype] = max(WORST.get(dtype, 0.0), _hold(case, rate, chosen, dtype, seed))


@pytest.mark.parametrize(
    "fault",
    [
        Options(momentum=0.9, dampening=0.5 + 1e-12),
        Options(momentum=0.9 + 1e-12, dampening=0.5),
        Options(momentum=0.9, dampening=0.5, weight_decay=1e-12),
        Options(momentum=0.9, dampening=0.5, maximize=True),
    ],
)
def test_the_bound_catches_a_fault(fault: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Options(momentum=0.9, dampening=0.5)
    _hold(None, 0.1, right, "float64", 0)
    monkeypatch.setitem(globals(), "_torch_run", functools.partial(_faulty, _torch_run, fault))
    with pytest.raises(AssertionError):
        _hold(None, 0.1, right, "float64", 0)


def _faulty(run: Any, fault: Options, *arguments: Any) -> Any:
    return run(*arguments[:4], fault, *arguments[5:])
