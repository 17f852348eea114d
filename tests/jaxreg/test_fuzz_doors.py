"""Every public function, with one or two arguments that are of any kind: it takes them, or refuses with our own error.

``HYPOTHESIS_PROFILE=thorough pytest --thorough tests/jaxreg/test_fuzz_doors.py`` draws twenty times as many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jaxreg
from jaxreg import lr_scheduler, state_dict, torch_random
from tests.jaxreg.test_fuzz import ANYTHING

pytestmark = pytest.mark.thorough

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)
Y = X.sum(1, keepdims=True)
MODEL = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
OPTIMIZER = jaxreg.sgd(0.1)
DATA: dict[str, Any] = {"inputs": X, "targets": Y, "weights": np.ones(6, np.float32)}
LOSS: dict[str, Any] = {"predictions": jnp.asarray(Y), "targets": jnp.asarray(Y), "reduction": "sum", "weights": None}
HOW: dict[str, Any] = {"epochs": 2, "at": [0], "plan": "auto", "precision": None}


def stepped(make: Callable[..., Any]) -> Callable[..., Any]:
    """A schedule's values, which are what comes of its arguments."""

    def call(**given_: Any) -> Any:
        schedule = make(**given_)
        return [schedule(step) for step in (0, 1, 7)]

    return call


def read_back(**given_: Any) -> Any:
    return state_dict.load(MODEL, {"weight": given_["weight"], "bias": given_["bias"]})


def resumed(**given_: Any) -> Any:
    group = {"lr": given_["lr"], "momentum": given_["momentum"], "params": given_["params"]}
    mapping = {"state": {0: {"momentum_buffer": given_["buffer"]}}, "param_groups": [group]}
    return state_dict.load_optimizer(OPTIMIZER, MODEL, mapping, step=given_["step"], names=given_["names"])


RATE: dict[str, Any] = {"learning_rate": 0.1}
DOORS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sweep": (
        jaxreg.sweep,
        {"model": MODEL, **DATA, "settings": {"learning_rate": [0.1, 0.2]}, "optimizer": jaxreg.sgd, **HOW},
    ),
    "settings of a sweep": (
        lambda **settings: jaxreg.sweep(MODEL, X, Y, settings={k: [v] for k, v in settings.items()}, epochs=2),
        {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True, "seed": 3},
    ),
    "fit_groups": (
        jaxreg.fit_groups,
        {"model": MODEL, **DATA, "optimizer": OPTIMIZER, "groups": [0, 0, 1, 1, 2, 2], **HOW},
    ),
    "SufficientStatistics.of": (jaxreg.SufficientStatistics.of, DATA),
    "sgd": (
        lambda **settings: jaxreg.fit(MODEL, X, Y, optimizer=jaxreg.sgd(**settings), epochs=2),
        {**RATE, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1, "nesterov": False, "maximize": False},
    ),
    "sgd_groups": (
        lambda **settings: jaxreg.fit(MODEL, X, Y, optimizer=jaxreg.sgd_groups(**settings), epochs=2),
        {"groups": {"bias": {"learning_rate": 0.2}}, **RATE, "momentum": 0.5, "weight_decay": 0.1},
    ),
    "Linear": (jaxreg.Linear, {"in_features": 2, "out_features": 1, "use_bias": True, "rngs": nnx.Rngs(0)}),
    "mse_loss": (jaxreg.mse_loss, LOSS),
    "l1_loss": (jaxreg.l1_loss, LOSS),
    "huber_loss": (jaxreg.huber_loss, {**LOSS, "delta": 1.0}),
    "smooth_l1_loss": (jaxreg.smooth_l1_loss, {**LOSS, "beta": 1.0}),
    "Generator": (torch_random.Generator, {"seed": 3}),
    "load": (read_back, {"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)}),
    "load_optimizer": (
        resumed,
        {"lr": 0.1, "momentum": 0.9, "params": [0, 1], "buffer": np.ones((1, 2)), "step": 1, "names": None},
    ),
    "step_lr": (stepped(lr_scheduler.step_lr), {**RATE, "step_size": 2, "gamma": 0.5, "steps_per_epoch": 1}),
    "multi_step_lr": (stepped(lr_scheduler.multi_step_lr), {**RATE, "milestones": [1, 3], "gamma": 0.5}),
    "exponential_lr": (stepped(lr_scheduler.exponential_lr), {**RATE, "gamma": 0.5, "steps_per_epoch": 2}),
    "linear_lr": (stepped(lr_scheduler.linear_lr), {**RATE, "start_factor": 0.5, "end_factor": 1.0, "total_iters": 3}),
    "constant_lr": (stepped(lr_scheduler.constant_lr), {**RATE, "factor": 0.5, "total_iters": 3}),
    "polynomial_lr": (stepped(lr_scheduler.polynomial_lr), {**RATE, "total_iters": 3, "power": 2.0}),
    "cosine_annealing_lr": (stepped(lr_scheduler.cosine_annealing_lr), {**RATE, "T_max": 3, "eta_min": 0.01}),
    "cosine_annealing_warm_restarts": (
        stepped(lr_scheduler.cosine_annealing_warm_restarts),
        {**RATE, "T_0": 2, "T_mult": 2, "eta_min": 0.01},
    ),
    "cyclic_lr": (
        stepped(lr_scheduler.cyclic_lr),
        {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 2, "step_size_down": 3, "mode": "triangular2", "gamma": 0.9},
    ),
    "one_cycle_lr": (
        stepped(lr_scheduler.one_cycle_lr),
        {"max_lr": 0.2, "total_steps": 9, "pct_start": 0.3, "anneal_strategy": "cos", "three_phase": True},
    ),
}


@given(data=st.data(), door=st.sampled_from(sorted(DOORS)))
def test_any_argument_of_any_function_is_taken_or_refused(data: Any, door: str) -> None:
    function, right = DOORS[door]
    names = data.draw(st.lists(st.sampled_from(sorted(right)), min_size=1, max_size=2, unique=True))
    changed = {name: data.draw(ANYTHING, label=name) for name in names}
    if type(changed.get("epochs")) is int and changed["epochs"] > 100:
        return  # step by step, that takes as long as it says
    if callable(changed.get("learning_rate")):
        return  # a schedule, whose own errors are its own
    with jax.numpy_dtype_promotion("standard"), contextlib.suppress(jaxreg.JaxregError):
        repr(function(**{**right, **changed}))


def _in_vmap(train: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    return jax.vmap(train)(jnp.stack([x, x]), jnp.stack([y, y]))[1]


def _with(context: Callable[[], Any]) -> Callable[..., Any]:
    def run(train: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
        with context():
            return train(x, y)

    return run


TRANSFORMATIONS: dict[str, Callable[..., Any]] = {
    "none": lambda train, x, y: train(x, y),
    "jit": lambda train, x, y: jax.jit(train)(x, y),
    "vmap": _in_vmap,
    "jit of vmap": lambda train, x, y: jax.jit(lambda x, y: _in_vmap(train, x, y))(x, y),
    "vjp": lambda train, x, y: jax.vjp(train, x, y)[0],
    "jvp": lambda train, x, y: jax.jvp(train, (x, y), (x, y))[0],
    "linearize": lambda train, x, y: jax.linearize(train, x, y)[0],
    "checkpoint": lambda train, x, y: jax.checkpoint(train)(x, y),
    "eval_shape": lambda train, x, y: (jax.eval_shape(train, x, y), train(x, y))[1],
    "scan": lambda train, x, y: jax.lax.scan(lambda carry, _: (carry, train(x, y)), 0, None, length=2)[1][0],
    "disable_jit": _with(jax.disable_jit),
    "debug_nans": _with(lambda: jax.debug_nans(True)),
    "checking_leaks": _with(jax.checking_leaks),
    "transfer_guard": _with(lambda: jax.transfer_guard("disallow")),
    "bfloat16 products": _with(lambda: jax.default_matmul_precision("bfloat16")),
}


@given(
    how=st.sampled_from(sorted(TRANSFORMATIONS)),
    plan=st.sampled_from(["auto", "stepwise", "compressed", "spectral"]),
    shape=st.sampled_from([(1, 1), (7, 2)]),
    options=st.sampled_from([{}, {"momentum": 0.5, "nesterov": True}, {"weight_decay": 0.1, "maximize": True}]),
    epochs=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_transformation_gives_the_same_losses_or_says_why_not(
    how: str, plan: str, shape: tuple[int, int], options: dict[str, Any], epochs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.normal(size=shape), jnp.float32)
    y = x.sum(1, keepdims=True) + 1
    model = jaxreg.Linear(shape[1], 1, rngs=nnx.Rngs(0))

    def train(x: Any, y: Any) -> Any:
        return jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.05, **options), epochs=epochs, plan=plan).losses

    plain = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.05, **options), epochs=epochs, plan="stepwise").losses
    with jax.numpy_dtype_promotion("standard"), contextlib.suppress(jaxreg.JaxregError):
        np.testing.assert_allclose(TRANSFORMATIONS[how](train, x, y), plain, rtol=1e-4, atol=1e-6)
