"""Any Optax transformation trains as in a loop by hand, or one error says why it cannot."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib

import jaxreg

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(8, 2))
Y = X @ np.array([[1.0], [-2.0]]) + 0.1 * RANDOM.normal(size=(8, 1))
STEPS = 5
PLATEAU = {"patience": 1, "cooldown": 0, "rtol": 0.5}
ASCENT = optax.chain(contrib.normalize(), optax.sgd(0.05))

# Everything that asks a step for more than gradients, state and parameters, and what wraps it.
OPTIMIZERS: dict[str, Any] = {
    "lbfgs": optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(4)),
    "a line search in an accumulation": optax.MultiSteps(
        optax.chain(optax.sgd(2.0), optax.scale_by_backtracking_linesearch(4)), 2
    ),
    "backtracking": optax.chain(optax.sgd(2.0), optax.scale_by_backtracking_linesearch(8, store_grad=True)),
    "reduce_on_plateau": optax.chain(optax.sgd(0.2), contrib.reduce_on_plateau(**PLATEAU)),
    "momo_adam": contrib.momo_adam(0.05),
    "sam that sees the gradient": contrib.sam(optax.sgd(0.1), ASCENT, opaque_mode=True),
    "sam, which takes no more names": optax.chain(contrib.sam(optax.sgd(0.1), ASCENT), optax.identity()),
    "conditionally": optax.chain(
        optax.sgd(0.2),
        optax.conditionally_transform(
            optax.scale(0.5), lambda step, value, **_: value < 1.0, forward_extra_args=True
        ),
    ),
    "lookahead": optax.lookahead(optax.sgd(0.2), 2, 0.5),
    "lookahead in a chain": optax.chain(optax.clip(1.0), optax.lookahead(optax.adam(0.1), 3, 0.5, reset_state=True)),
}  # fmt: skip


def objective(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)


def by_hand(optimizer: Any, model: Any, batches: Any) -> tuple[Any, list[float]]:
    """The loop of Optax's own examples: what it hands over is what the transformation names."""
    params: Any = {"bias": model.bias[...], "kernel": model.kernel[...]}
    looks_ahead = any(optimizer is OPTIMIZERS[name] for name in OPTIMIZERS if "lookahead" in name)
    if looks_ahead:
        params = optax.LookaheadParams.init_synced(params)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        of = functools.partial(objective, x=x, y=y)
        value, gradients = jax.value_and_grad(of)(params.fast if looks_ahead else params)
        named: Any = {"value": value, "grad": gradients, "value_fn": of}
        if optimizer is OPTIMIZERS["sam that sees the gradient"]:
            named = {"grad_fn": lambda params, _: jax.grad(of)(params)}
        elif looks_ahead or optimizer is OPTIMIZERS["sam, which takes no more names"]:
            named = {}
        updates, state = optimizer.update(gradients, state, params, **named)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for x, y in batches:
        params, state, value = step(params, state, x, y)
        losses.append(float(value))
    return (params.slow if looks_ahead else params), losses


def assert_same(result: Any, params: Any, losses: Any) -> None:
    """To float64's roundings, in which both were made."""
    np.testing.assert_allclose(result.losses, losses, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.model.kernel[...], params["kernel"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.model.bias[...], params["bias"], rtol=1e-10, atol=1e-12)


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_as_by_hand(name: str) -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = jaxreg.Linear(2, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        expected = by_hand(OPTIMIZERS[name], model, [(X, Y)] * STEPS)
        for plan in ("stepwise", "compressed"):
            assert_same(jaxreg.fit(model, X, Y, optimizer=OPTIMIZERS[name], epochs=STEPS, plan=plan), *expected)


@pytest.mark.parametrize("name", ["lookahead", "reduce_on_plateau"])
def test_it_trains_in_batches(name: str) -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = jaxreg.Linear(2, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        expected = by_hand(OPTIMIZERS[name], model, [(X[:5], Y[:5]), (X[5:], Y[5:])] * 2)
        result = jaxreg.fit(model, X, Y, optimizer=OPTIMIZERS[name], epochs=2, batch_size=5)
        assert_same(result, *expected)


def test_batches_that_are_summed_up_give_their_loss_to_the_optimizer() -> None:
    x, y = X.astype(np.float32), Y.astype(np.float32)
    model, optimizer = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0)), OPTIMIZERS["reduce_on_plateau"]
    with jax.numpy_dtype_promotion("standard"):
        reference, found = (
            jaxreg.fit(model, x, y, optimizer=optimizer, epochs=4, batch_size=4, plan=plan)
            for plan in ("stepwise", "compressed")
        )
    np.testing.assert_allclose(found.losses, reference.losses, rtol=2.0**-18)


@pytest.mark.parametrize("plan", ["stepwise", "compressed"])
def test_a_sweep_over_lookahead(plan: str) -> None:
    def make(learning_rate: Any) -> Any:
        return optax.lookahead(optax.sgd(learning_rate), 2, 0.5)

    x, y = X.astype(np.float32), Y.astype(np.float32)
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    settings = {"learning_rate": [0.1, 0.2]}
    with jax.numpy_dtype_promotion("standard"):
        many = jaxreg.sweep(model, x, y, optimizer=make, settings=settings, epochs=STEPS, plan=plan)
        alone = jaxreg.fit(model, x, y, optimizer=OPTIMIZERS["lookahead"], epochs=STEPS, plan=plan)
    np.testing.assert_allclose(many.model(1).kernel[...], alone.model.kernel[...], rtol=2.0**-18)


def test_noise_is_that_of_the_loop() -> None:
    """In float64 the same key gives other numbers: such a training is never summed up."""
    optimizer = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1))
    x, y = X.astype(np.float32), Y.astype(np.float32)
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    with jax.numpy_dtype_promotion("standard"):
        assert jaxreg.fit(model, x, y, optimizer=optimizer, epochs=2).plan == "stepwise"
    with pytest.raises(jaxreg.ArgumentError, match=r"'compressed' cannot serve .* draws random numbers"):
        jaxreg.fit(model, x, y, optimizer=optimizer, epochs=2, plan="compressed")


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            contrib.differentially_private_aggregate(1.0, 0.1, key=jax.random.key(0)),
            "batch dimension.*gradients of each row, cannot be trained with here",
        ),
        (
            optax.GradientTransformation(lambda p: p.nothing, lambda g, s, p: (g, s)),
            "the optimizer's init fails .*AttributeError",
        ),
        (
            optax.GradientTransformationExtraArgs(lambda p: (), lambda g, s, p, *, batch: (g, s)),
            "the optimizer's update fails .*batch",
        ),
    ],
)
def test_one_that_cannot_train_is_told(optimizer: Any, words: str) -> None:
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.fit(model, X, Y, optimizer=optimizer, epochs=2)
