"""Sizes, numbers and settings at the edge of what there is: right, or one error that says what to do."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import threadpoolctl
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg._plans import after_overflow
from jaxreg._statistics import host_blas

random = np.random.default_rng(0)
X = random.normal(size=(30, 1)).astype(np.float32)
Y = 2 * X + 1
EDGE = 2 / np.linalg.eigvalsh(2 * np.c_[X, np.ones(30)].T @ np.c_[X, np.ones(30)] / 30).max()


def model(outputs: int = 1) -> jaxreg.Linear:
    return jaxreg.Linear(1, outputs, rngs=nnx.Rngs(0))


def fit(**options: Any) -> jaxreg.FitResult:
    return jaxreg.fit(model(), X, Y, **{"optimizer": jaxreg.sgd(0.1), "epochs": 5, **options})


@pytest.mark.parametrize("call", [1 << 20, 128])
def test_a_training_that_diverges_slowly_ends_as_the_loop_does(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """It is followed step by step for thousands of steps, in one call or in many, and no step is left out."""
    monkeypatch.setattr(after_overflow, "CALL_STEPS", call)
    optimizer, at = jaxreg.sgd(EDGE * 1.01), [4_999, 0, 3_000, 4_999, 2_100]
    loop, closed = (fit(optimizer=optimizer, epochs=5_000, at=at, plan=plan) for plan in ("stepwise", "spectral"))
    np.testing.assert_array_equal(np.isfinite(closed.losses), np.isfinite(loop.losses))
    assert not np.isfinite(np.asarray(loop.losses)).all()
    np.testing.assert_allclose(closed.losses, loop.losses, rtol=1e-3)
    np.testing.assert_array_equal(np.isnan(closed.model.kernel[...]), np.isnan(loop.model.kernel[...]))
    swept = jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1, EDGE * 1.01]}, epochs=5_000, at=at)
    np.testing.assert_allclose(swept.losses[1], loop.losses, rtol=1e-3)


def test_what_is_kept_of_a_training_that_diverges_is_what_the_loop_keeps() -> None:
    options: dict[str, Any] = {"optimizer": jaxreg.sgd(5.0), "epochs": 60, "record": ("gradients", "weights")}
    loop, closed = (fit(plan=plan, **options) for plan in ("stepwise", "spectral"))
    structures: list[Any] = [jax.tree.structure(result.trace) for result in (closed, loop)]
    assert structures[0] == structures[1]
    assert not np.isfinite(np.asarray(loop.losses)).all()
    for mine, theirs in zip(*(jax.tree.leaves((r.losses, r.trace.weights)) for r in (closed, loop)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


@pytest.mark.parametrize("epochs", [2**31 - 1, 2**31 + 7, 2**53])
def test_a_sweep_of_more_steps_than_32_bits_count_diverges_as_fit_does(epochs: int) -> None:
    swept = jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1, 10.0]}, epochs=epochs)
    alone = fit(optimizer=jaxreg.sgd(10.0), epochs=epochs, at=[0])
    assert np.isnan(alone.model.kernel[...]).all()
    assert np.isnan(swept.model(1).kernel[...]).all()
    np.testing.assert_allclose(swept.model(0).kernel[...], [[2.0]], rtol=1e-6)


def test_steps_are_counted_as_far_as_float64_counts() -> None:
    with pytest.raises(
        jaxreg.ArgumentError, match="epochs must be at most 9,007,199,254,740,992, up to which float64 counts"
    ):
        fit(epochs=2**65)
    with pytest.raises(jaxreg.ArgumentError, match="at must hold steps from 0 to 9,"):
        fit(epochs=2**53, at=np.array([0, 2**63 + 5], np.uint64))
    with pytest.raises(jaxreg.ArgumentError, match="counts steps in 32 bits, got 2,147,483,648"):
        fit(epochs=2**31, at=[0], plan="stepwise")
    assert fit(epochs=2**31, at=[0]).plan == "spectral"


@pytest.mark.thorough
@given(st.integers(-12, 0), st.booleans())
@settings(max_examples=25)
def test_losses_uphill_where_a_decay_all_but_cancels_the_curvature(power: int, above: bool) -> None:
    """There the point of rest is far out, and what is near must not be lost in it."""
    with jax.enable_x64(True):
        x, y = X[:, :1].astype(np.float64), Y.astype(np.float64)
        design = np.c_[x, np.ones(30)]
        top = np.linalg.eigvalsh(2 * design.T @ design / 30).max()
        decay = top * (1 + (1 if above else -1) * 10.0**power)
        optimizer = jaxreg.sgd(0.01, weight_decay=decay, maximize=True)
        layer = jaxreg.Linear(1, 1, param_dtype=np.float64, rngs=nnx.Rngs(0))
        loop, closed = (
            jaxreg.fit(layer, x, y, optimizer=optimizer, epochs=40, plan=plan) for plan in ("stepwise", "spectral")
        )
        np.testing.assert_allclose(closed.losses, loop.losses, rtol=1e-11)


def test_a_training_that_is_not_there_has_no_model() -> None:
    swept = jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1, 0.2]}, epochs=5)
    wrong: list[Any] = [2, 99, -3, True, 0.5]
    for number in wrong:
        with pytest.raises(jaxreg.ArgumentError, match="number must be that of a training, an integer from 0 to 1"):
            swept.model(number)
    np.testing.assert_array_equal(swept.model(-1).kernel[...], swept.model(np.int64(1)).kernel[...])


@pytest.mark.parametrize("plan", ["auto", "stepwise"])
def test_weights_that_are_nothing_in_the_models_dtype_are_refused(plan: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"all below 1\.2e-38.*largest is 9\.8e-45; multiply them"):
        fit(weights=np.full(30, 1e-44, np.float32), plan=plan)
    weights = np.r_[np.full(15, 1e-44), np.ones(15)]
    np.testing.assert_allclose(fit(weights=weights).losses, fit(weights=(weights > 0.5) * 1.0).losses)


def test_weights_that_are_not_one_a_row_say_so() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"one for each row, shape \(30,\), got \(30, 1\)"):
        fit(weights=np.ones((30, 1)), plan="spectral")


def test_a_batch_of_more_rows_than_there_are_takes_all() -> None:
    np.testing.assert_allclose(fit(batch_size=2**31).losses, fit(batch_size=30).losses)
    assert fit(batch_size=2**40, drop_last=True).steps == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"record": None}, "record must be a collection"),
        ({"record": 3}, "record must be a collection"),
        ({"batch_size": 3, "shuffle": jnp.array([1, 2, 3], jnp.uint32)}, "shuffle must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"record": jnp.zeros(())}, "record must be a collection"),
        ({"loss": len}, "loss must be a function of two arguments"),
        ({"loss": lambda predictions: predictions}, "loss must be a function of two arguments"),
        ({"weights": 10**400}, "weights must hold numbers that float64 holds"),
        ({"at": 10**400}, "at must hold numbers that float64 holds"),
        ({"plan": np.array([1, 2])}, "plan must be one of"),
        ({"precision": jnp.ones((2, 2))}, "precision must be one that"),
        ({"precision": np.array([1, 2])}, "precision must be one that"),
    ],
)
def test_an_argument_that_is_no_such_thing_is_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=said):
        fit(**options)


def test_a_model_of_no_outputs_has_nothing_to_learn() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"targets of shape \(30, 0\) hold no numbers"):
        jaxreg.fit(model(0), X, Y[:, :0], optimizer=jaxreg.sgd(0.1), epochs=1)


@pytest.mark.parametrize(("name", "value"), [("nesterov", "yes"), ("maximize", None), ("learning_rate", 10**400)])
def test_settings_are_numbers_and_flags(name: str, value: Any) -> None:
    with pytest.raises(jaxreg.ArgumentError, match=f"{name} must be"):
        jaxreg.sgd(**{"learning_rate": 0.1, "momentum": 0.9, name: value})


def test_a_seed_alone_draws_no_layer() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"rngs must be flax\.nnx\.Rngs, such as nnx\.Rngs\(0\)"):
        jaxreg.Linear(1, 1, rngs=0)


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", ["stepwise", "compressed", "spectral"])
def test_trainings_run_under_jaxs_switches(plan: str) -> None:
    layer = model()

    def train() -> jaxreg.FitResult:
        return jaxreg.fit(layer, X, Y, optimizer=jaxreg.sgd(0.1), epochs=5, plan=plan)

    expected = np.asarray(train().losses)
    with jax.disable_jit():
        np.testing.assert_allclose(train().losses, expected, rtol=1e-6)
    with jax.debug_nans(True):
        np.testing.assert_allclose(train().losses, expected, rtol=1e-6)
    with jax.transfer_guard("disallow"):
        guarded = train()
        assert "loss" in repr(guarded)
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):  # outside of fit it is as it was
            jnp.add(X, 1)
    np.testing.assert_allclose(guarded.losses, expected, rtol=1e-6)


@pytest.mark.thorough
@jax.numpy_dtype_promotion("standard")
def test_batches_sweeps_and_groups_run_without_jit() -> None:
    def losses() -> list[Any]:
        adam = fit(optimizer=optax.adam(0.1), batch_size=7)
        swept = jaxreg.sweep(model(), X, Y, settings={"learning_rate": [0.1, 5.0]}, epochs=60)
        grouped = jaxreg.fit_groups(model(), X, Y, groups=[0, 1] * 15, optimizer=jaxreg.sgd(0.1), epochs=5)
        return [adam.losses, swept.losses, grouped.losses]

    expected = losses()
    with jax.disable_jit():
        for mine, theirs in zip(losses(), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python says of a fork with threads what may come of it
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_child_waits_for_no_thread_of_its_parents() -> None:
    """It is made while another thread has BLAS to itself; there it would wait for good."""
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with host_blas.one_thread():
            holds.set()
            done.wait(60)

    before = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(30)
        same = [one["num_threads"] for one in threadpoolctl.threadpool_info()] == before
        with host_blas.one_thread():
            os._exit(0 if same else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize("plan", ["auto", "stepwise"])
def test_a_child_without_jax_s_threads_is_told(plan: str) -> None:
    """It would wait for good, as in a pool of `multiprocessing` on Linux, which forks."""
    linear = model()
    jnp.ones(3).block_until_ready()  # now JAX has started

    def told() -> bool:
        with pytest.raises(jaxreg.JaxregError, match="this process was forked after JAX had started"):
            jaxreg.fit(linear, X, Y, optimizer=jaxreg.sgd(0.1), epochs=3, plan=plan)
        with pytest.raises(jaxreg.JaxregError, match="was forked"):
            jaxreg.sweep(linear, X, Y, settings={"learning_rate": [0.1]}, epochs=3)
        with pytest.raises(jaxreg.JaxregError, match="was forked"):
            jaxreg.SufficientStatistics.of(X, Y)
        return True

    child = os.fork()
    if not child:
        signal.alarm(60)
        status = 1
        try:
            status = 0 if told() else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fit(plan=plan)  # here all is as it was


def test_where_no_plan_can_serve_each_says_why() -> None:
    with pytest.raises(jaxreg.ArgumentError, match=r"no plan .* stepwise: it counts .*spectral: the loss"):
        fit(epochs=2**31, at=[0], loss=jaxreg.l1_loss)
