"""Trainings inside jax.jit, jax.vmap and jax.grad: those of a plain loop, or one error that says what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(6, 2)), jnp.float32)
Y = jnp.asarray(RANDOM.normal(size=(6, 1)), jnp.float32)
W = jnp.asarray([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], jnp.float32)
MODEL = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
GRAPH, STATE = nnx.split(MODEL)
KERNEL, STEPS = MODEL.kernel[...], 3


def loop(x: Any = X, y: Any = Y, weights: Any = W, kernel: Any = KERNEL, rate: Any = 0.1) -> Any:
    """The last loss and the kernel of gradient descent, step by step in Python."""
    bias = MODEL.bias[...]
    for _ in range(STEPS):
        errors = x @ kernel + bias[None] - y
        value = jnp.sum(weights[:, None] * errors**2) / jnp.sum(weights)
        slope = 2 * weights[:, None] * errors / jnp.sum(weights)
        kernel, bias = kernel - rate * (x.T @ slope), bias - rate * jnp.sum(slope, 0)
    return value, kernel


def fitted(x: Any = X, y: Any = Y, weights: Any = W, kernel: Any = None, rate: Any = 0.1, **options: Any) -> Any:
    model = MODEL
    if kernel is not None:
        model = nnx.merge(GRAPH, STATE, copy=True)
        model.kernel = nnx.Param(kernel)
    optimizer = options.pop("optimizer", None) or jaxreg.sgd(rate)
    result = jaxreg.fit(model, x, y, weights=weights, optimizer=optimizer, epochs=STEPS, **options)
    assert result.plan == "stepwise"
    return result.losses[-1], result.model.kernel[...]


def swept(x: Any = X, y: Any = Y, weights: Any = W) -> Any:
    result = jaxreg.sweep(MODEL, x, y, weights=weights, settings={"learning_rate": [0.2, 0.1]}, epochs=STEPS)
    assert result.plan == "stepwise"
    return result.losses[1, -1], result.params["kernel"][1]


def grouped(x: Any = X, y: Any = Y, weights: Any = W) -> Any:
    """Two groups of other sizes, of which the larger has the rows that count."""
    rows = [jnp.concatenate([leaf, leaf[:1]]) for leaf in (x, y, weights)]
    labels = ["own"] * 6 + ["other"]
    result = jaxreg.fit_groups(
        MODEL, rows[0], rows[1], weights=rows[2], groups=labels, optimizer=jaxreg.sgd(0.1), epochs=STEPS
    )
    assert result.plan == "stepwise"
    return result.losses[1, -1], result.params["kernel"][1]


def assert_same(found: Any, expected: Any) -> None:
    """To some roundings of float32."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2.0**-16, atol=2.0**-18)


def slope_of(name: str) -> Callable[..., Any]:
    def made(train: Any) -> Any:
        return jax.jit(jax.grad(lambda value: train(**{name: value})[0]))

    return made


def mapped(name: str) -> Callable[..., Any]:
    return lambda train: jax.vmap(lambda value: train(**{name: value}))


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Any]] = {
    "jit over the inputs": (lambda train: jax.jit(train), fitted, X),
    "vmap over the targets": (mapped("y"), fitted, jnp.stack([Y, 2 * Y])),
    "grad over the inputs": (slope_of("x"), fitted, X),
    "grad over the weights": (slope_of("weights"), fitted, W),
    "grad over the initial parameters": (slope_of("kernel"), fitted, KERNEL),
    "vmap over the learning rate": (mapped("rate"), fitted, jnp.asarray([0.1, 0.2])),
    "jit over a sweep's inputs": (lambda train: jax.jit(train), swept, X),
    "jit over the inputs of groups": (lambda train: jax.jit(train), grouped, X),
    "grad over the targets of groups": (slope_of("y"), grouped, Y),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_plain_loop(name: str) -> None:
    transform, train, value = CASES[name]
    assert_same(transform(train)(value), transform(loop)(value))


def test_everything_under_jit_is_traced() -> None:
    """Data that are known when it is traced, and an optimizer of Optax's own that holds a traced rate."""
    assert_same(jax.jit(lambda: fitted())(), loop())
    mapped_rate = jax.vmap(lambda rate: fitted(optimizer=optax.sgd(rate)))(jnp.asarray([0.1, 0.2]))
    assert_same(mapped_rate, jax.vmap(lambda rate: loop(rate=rate))(jnp.asarray([0.1, 0.2])))


def test_a_trace_that_does_not_reach_the_training_leaves_it_alone() -> None:
    plans = []

    def scaled(factor: Any) -> Any:
        result = jaxreg.fit(MODEL, X, Y, optimizer=jaxreg.sgd(0.1), epochs=STEPS)
        plans.append(result.plan)
        return factor * result.losses[-1]

    assert_same(jax.grad(scaled)(2.0), loop(weights=jnp.ones(6))[0])
    assert plans == ["spectral"]


def test_a_traced_result_says_so() -> None:
    shown: list[str] = []

    def trace(x: Any) -> Any:
        result = jaxreg.fit(MODEL, x, Y, optimizer=jaxreg.sgd(0.1), epochs=STEPS)
        shown.extend([repr(result), result._repr_html_()])
        return result.losses

    jax.eval_shape(trace, X)
    assert shown[0] == "FitResult(3 steps, plan 'stepwise', loss known when the traced program runs)"
    assert "known when" in shown[1]


sgd = functools.partial(jaxreg.fit, MODEL, epochs=STEPS, optimizer=jaxreg.sgd(0.1))
SUMMARY = jaxreg.SufficientStatistics.of(X, Y)
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "spectral": (lambda x: sgd(x, Y, plan="spectral"), r"plan='spectral' cannot .* traced.* plan='stepwise'"),
    "compressed": (lambda x: sgd(x, Y, plan="compressed"), r"plan='compressed' cannot .* plan='stepwise'"),
    "statistics": (lambda x: sgd(SUMMARY), "statistics in place of data cannot serve .* it is traced"),
    "summing up": (lambda x: jaxreg.SufficientStatistics.of(x, Y), "summed up outside of jax.jit"),
    "steps kept": (lambda x: sgd(X, Y, at=x[:, 0].astype(int)), "at must be known before the program is traced"),
    "epochs": (lambda x: jaxreg.fit(MODEL, X, Y, epochs=x[0, 0], optimizer=jaxreg.sgd(0.1)), "epochs must be"),
    "a sweep's setting": (
        lambda x: jaxreg.sweep(MODEL, X, Y, settings={"learning_rate": [x[0, 0]]}, epochs=STEPS),
        "learning_rate must be known before the program is traced",
    ),
    "labels": (
        lambda x: jaxreg.fit_groups(MODEL, X, Y, groups=x[:, 0], optimizer=jaxreg.sgd(0.1), epochs=STEPS),
        "groups must be known before the program is traced",
    ),
    "PyTorch's orders": (
        lambda x: sgd(x, Y, batch_size=2, shuffle=jaxreg.torch_random.Generator(0)),
        "shuffle is a Generator, which draws on the host.*give a JAX key",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_one_error(name: str) -> None:
    train, words = REFUSED[name]
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jax.eval_shape(lambda x: jnp.zeros(()) if train(x) is None else jnp.ones(()), X)
