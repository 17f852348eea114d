"""Batches of the rows' own order by the compressed plan: the float64 loop's steps, and when it is taken."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg import _memory
from jaxreg._statistics import gram_root, host_blas
from tests.jaxreg.plans.test_plans import OPTIONS, coefficients, follow
from tests.jaxreg.statistics.test_gram_root import FLOAT32, drawn, exact


@dataclasses.dataclass(frozen=True)
class Batched:
    """A training in batches, none of fewer rows than its cross-products have but the last."""

    rows: int
    inputs: int
    outputs: int
    more: int
    bias: bool
    weighted: bool
    drop_last: bool
    mean: bool
    epochs: int
    seed: int

    @property
    def size(self) -> int:
        return self.inputs + 1 + self.outputs + self.more

    def data(self) -> tuple[Any, Any, Any]:
        random = np.random.default_rng(self.seed)
        x, y = (random.standard_normal((self.rows, n)).astype(np.float32) for n in (self.inputs, self.outputs))
        return x, y, random.random(self.rows).astype(np.float32) + 0.5 if self.weighted else None

    def batches(self) -> Iterator[slice]:
        end = self.rows - self.rows % self.size if self.drop_last else self.rows
        for _ in range(self.epochs):
            yield from (slice(at, min(at + self.size, end)) for at in range(0, end, self.size))

    def loop(self, start: Any, rate: float, options: dict[str, Any]) -> tuple[Any, Any]:
        """Losses, and the weights after each step, of PyTorch's SGD in float64."""
        x, y, weights = self.data()
        x, y = (np.c_[x, np.ones(len(x))] if self.bias else x).astype(np.float64), y.astype(np.float64)
        weights = (np.ones(len(x)) if weights is None else weights.astype(np.float64))[:, None]
        scale = (lambda rows: 1 / (weights[rows].sum() * self.outputs)) if self.mean else (lambda rows: 1.0)
        return follow(((x[rows], y[rows], weights[rows], scale(rows)) for rows in self.batches()), start, rate, options)


problems = st.builds(
    Batched,
    rows=st.integers(1, 300),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 3),
    more=st.integers(0, 40),
    bias=st.booleans(),
    weighted=st.booleans(),
    drop_last=st.booleans(),
    mean=st.booleans(),
    epochs=st.integers(0, 4),
    seed=st.integers(0, 2**31 - 1),
).filter(lambda problem: not problem.drop_last or problem.rows >= problem.size)


@pytest.mark.thorough
@given(problem=problems, options=OPTIONS)
@example(Batched(7, 2, 1, 20, True, True, False, True, 3, 0), {})
@example(Batched(300, 12, 3, 0, False, False, True, False, 3, 0), {"momentum": 0.9})
@settings(max_examples=25)
def test_the_result_is_the_float64_loops_rounded_once(problem: Batched, options: dict[str, Any]) -> None:
    model = jaxreg.Linear(problem.inputs, problem.outputs, use_bias=problem.bias, rngs=nnx.Rngs(problem.seed))
    start, rate = coefficients(model), 0.02 if problem.mean else 0.0003
    losses, after = problem.loop(start, rate, options)
    x, y, weights = problem.data()
    result = jaxreg.fit(
        model,
        x,
        y,
        optimizer=jaxreg.sgd(rate, **options),
        epochs=problem.epochs,
        batch_size=problem.size,
        drop_last=problem.drop_last,
        weights=weights,
        loss=jaxreg.mse_loss if problem.mean else functools.partial(jaxreg.mse_loss, reduction="sum"),
        plan="compressed",
        record=("weights",),
    )
    assert (result.plan, result.steps) == ("compressed", len(losses))
    # One rounding to float32, and float64's of as many sums and steps as there are, on both sides.
    slack = 2.0**-24 + 64 * (problem.size + problem.inputs) * max(result.steps, 1) * 2.0**-53
    size = max([abs(start).max(), *(abs(one).max() for one in after)])
    assert abs(coefficients(result.model) - (after[-1] if after else start)).max() <= slack * size
    assert result.losses.shape == losses.shape
    assert (abs(np.asarray(result.losses) - losses) <= 2 * slack * max(losses.max(initial=0), 1.0)).all()
    kernels = np.asarray(result.trace.weights["kernel"], np.float64)
    for seen, right in zip(kernels, after, strict=True):
        assert abs(seen - right[: problem.inputs]).max() <= slack * size


@given(
    rows=st.integers(1, 3000),
    inputs=st.sampled_from([1, 3, 30, 70]),
    outputs=st.integers(1, 3),
    size=st.integers(1, 700),
    weighted=st.booleans(),
    shared=st.booleans(),
    small=st.booleans(),
)
@settings(max_examples=50)
def test_every_batch_has_its_own_rows_products(
    rows: int, inputs: int, outputs: int, size: int, weighted: bool, shared: bool, small: bool
) -> None:
    data = drawn(rows, inputs, outputs, weighted, seed=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_blas, "_MIN_SHARED_PRODUCTS", 0 if shared else 1 << 60)
        patch.setattr(host_blas, "_NUMBERS_A_BLOCK", 1 << 12)
        patch.setattr(host_blas, "has_small_products", lambda: small)
        found = gram_root.products_of_batches(*data, dtype=FLOAT32, size=size, rows=rows)
    parts = [[a if a is None else a[at : at + size] for a in data] for at in range(0, rows, size)]
    assert np.array_equal(found, [exact(*part) for part in parts])


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (1000, 64), (1024, 64), (5000, 3000)])
@pytest.mark.parametrize("weighted", [False, True])
def test_xla_makes_the_same_ones(rows: int, size: int, weighted: bool) -> None:
    data = drawn(rows, 5, 2, weighted, seed=1)
    with jax.enable_x64(True):
        found = gram_root.products_of_batches_on(data, "float32", size, rows)
    assert np.array_equal(found, host_blas.products_of_batches(*data, FLOAT32, size, rows))


def example_of(rows: int = 64, seed: int = 0) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    x, y = (random.standard_normal((rows, n)).astype(np.float32) for n in (3, 2))
    return jaxreg.Linear(3, 2, rngs=nnx.Rngs(seed)), x, y


@pytest.mark.cases(1)
@pytest.mark.parametrize("optimizer", [optax.adam(0.05), optax.sgd(optax.cosine_decay_schedule(0.1, 60))])
@jax.numpy_dtype_promotion("standard")  # Optax's own
def test_any_optimizer_takes_the_steps_of_a_float64_loop(optimizer: Any) -> None:
    model, x, y = example_of()
    train = functools.partial(jaxreg.fit, optimizer=optimizer, epochs=12, batch_size=15, record=("gradients",))
    result = train(model, x, y, plan="compressed", at=[0, 59])
    with jax.enable_x64(True):
        wide = jaxreg.Linear(3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        nnx.update(wide, jax.tree.map(lambda leaf: leaf.astype(np.float64), nnx.state(model)))
        expected = train(wide, x.astype(np.float64), y.astype(np.float64), at=[0, 59])
    assert (result.plan, expected.plan) == ("compressed", "stepwise")
    slack = 2.0**-24 + 64 * 15 * 60 * 2.0**-53
    for name in ("kernel", "bias"):
        a, b = (np.asarray(found.trace.gradients[name], np.float64) for found in (result, expected))
        assert a.shape[0] == 2
        assert abs(a - b).max() <= slack * abs(b).max()
    assert abs(np.asarray(result.losses, np.float64) - np.asarray(expected.losses)).max() <= 2 * slack


@pytest.mark.parametrize("bad", [1.0, np.nan, np.inf, 3e38])
@pytest.mark.parametrize("where", ["inputs", "targets", "weights"])
def test_what_overflows_does_as_in_the_loop(bad: float, where: str) -> None:
    model, x, y = example_of()
    weights = np.ones(len(x), np.float32)
    {"inputs": x[:, 0], "targets": y[:, 0], "weights": weights}[where][40] = bad
    rate = 50.0 if bad == 1 else 0.01  # which diverges
    given_: dict[str, Any] = {"optimizer": jaxreg.sgd(rate, 0.5), "epochs": 30, "batch_size": 15, "weights": weights}
    expected, found = (jaxreg.fit(model, x, y, plan=plan, **given_) for plan in ("stepwise", "compressed"))
    assert bad == 3e38 or not np.isfinite(expected.losses[-1])
    for ours, theirs in ((found.losses, expected.losses), (found.model.kernel[...], expected.model.kernel[...])):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))


def test_weights_that_overflow_alone_do_as_in_the_loop() -> None:
    model, x = jaxreg.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0)), np.zeros((64, 3), np.float32)
    optimizer = jaxreg.sgd(1.0, weight_decay=10.0)  # weights grow nine times with each step, and nothing else does
    expected, found = (
        jaxreg.fit(model, x, x[:, :2], optimizer=optimizer, epochs=30, batch_size=16, plan=plan)
        for plan in ("stepwise", "compressed")
    )
    assert np.isnan(expected.losses[-1])
    np.testing.assert_array_equal(np.isnan(found.losses), np.isnan(expected.losses))


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_of_nothing_is_not_less(seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 4, (64, 3)).astype(np.float32)
    y = x @ np.array([[1, 2], [3, -4], [5, 8]], np.float32) + 100  # whole numbers: there is nothing left to explain
    model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(seed))
    result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.1), epochs=200, batch_size=16, plan="compressed")
    last = np.asarray(result.losses, np.float64)[-100:]
    # What float64 leaves of sums of 16 squares of at most 160, in either order, three times over.
    assert (last >= 0).all()
    assert (last <= 3 * 16 * 2.0**-53 * 160**2).all()


def test_a_second_call_compiles_nothing(compilations: list[str]) -> None:
    def train(seed: int) -> None:
        model, x, y = example_of(seed=seed)
        jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.0371), epochs=7, batch_size=15, plan="compressed")

    train(0)
    assert [name for name in compilations if "solve" in name]
    compilations.clear()
    train(1)
    assert compilations == []


def test_it_is_taken_where_batches_are_seen_often_enough() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((20_000, 32)).astype(np.float32)
    model = jaxreg.Linear(32, 1, rngs=nnx.Rngs(0))
    train = functools.partial(jaxreg.fit, model, x, x[:, :1], optimizer=jaxreg.sgd(0.01), batch_size=256)
    assert train(epochs=1).plan == "stepwise"
    assert train(epochs=40).plan == "compressed"
    assert train(epochs=40, shuffle=jax.random.key(0)).plan == "stepwise"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shuffle": jax.random.key(0)}, "the same in every epoch, got shuffle"),
        ({"batch_size": 5}, "at least 6 rows, got 5"),
        ({"batch_size": 100, "drop_last": True}, "drop_last leaves no batch"),
        ({"targets": None}, "statistics are of all rows at once"),
    ],
)
def test_what_it_cannot_serve_is_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    model, x, y = example_of()
    given_ = {"optimizer": jaxreg.sgd(0.1), "epochs": 10, "batch_size": 16, "targets": y, **changes}
    inputs = x if given_["targets"] is not None else jaxreg.SufficientStatistics.of(x, y)
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.fit(model, inputs, plan="compressed", **given_)


def test_so_are_products_for_which_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_ALWAYS_FREE_BYTES", 0)
    monkeypatch.setattr(_memory, "host_memory", lambda: 2**10)
    model, x, y = example_of()
    train = functools.partial(jaxreg.fit, model, x, y, optimizer=jaxreg.sgd(0.1), epochs=1, batch_size=6)
    with pytest.raises(jaxreg.ArgumentError, match="cross-products of all batches would take"):
        train(plan="compressed")


def test_float64_keeps_to_its_own_rows() -> None:
    with jax.enable_x64(True):
        model, x = jaxreg.Linear(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0)), np.ones((8, 1))
        with pytest.raises(jaxreg.ArgumentError, match="batches of float64 would lose accuracy"):
            jaxreg.fit(model, x, x, optimizer=jaxreg.sgd(0.1), epochs=1, batch_size=4, plan="compressed")
