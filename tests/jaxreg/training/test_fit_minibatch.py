"""fit on batches: PyTorch's DataLoader loop, the generator it leaves, one program, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg._plans import batches
from jaxreg.torch_random import Generator
from tests.helpers import minibatch_peer
from tests.helpers.minibatch_peer import Problem

RATE = 0.05


def shuffle_of(problem: Problem) -> Any:
    match problem.kind:
        case "none":
            return None
        case "key":
            return jax.random.key(problem.seed)
    return Generator(problem.seed)


def model_of(problem: Problem) -> jaxreg.Linear:
    weight, bias = problem.start()
    model = jaxreg.Linear(problem.inputs, problem.outputs, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = jnp.asarray(weight.T), jnp.asarray(bias)
    return model


def fit(problem: Problem, shuffle: Any, **more: Any) -> jaxreg.FitResult:
    return jaxreg.fit(
        model_of(problem),
        *problem.data(),
        optimizer=jaxreg.sgd(RATE, problem.momentum),
        epochs=problem.epochs,
        batch_size=problem.batch_size,
        shuffle=shuffle,
        drop_last=problem.drop_last,
        global_generator=problem.kind == "global",
        **more,
    )


def assert_same_training(problem: Problem) -> None:
    theirs = minibatch_peer.train(problem, RATE)
    of_loss, of_weights = minibatch_peer.bounds(problem, theirs, RATE)
    with jax.enable_x64(True):
        shuffle = shuffle_of(problem)
        ours = fit(problem, shuffle, record=("weights",))
    assert ours.steps == len(theirs.losses)
    assert ours.losses.shape == theirs.losses.shape
    assert (abs(np.asarray(ours.losses) - theirs.losses) <= of_loss).all()
    weights = np.concatenate([ours.trace.weights["kernel"], ours.trace.weights["bias"][:, None]], 1)
    assert (np.linalg.norm(weights - theirs.weights[1:], axis=(1, 2)) <= of_weights).all()
    final = np.concatenate([ours.model.kernel[...], ours.model.bias[...][None]])
    assert np.array_equal(final, weights[-1] if len(weights) else theirs.weights[0])
    if isinstance(shuffle, Generator):
        assert shuffle.state() == theirs.state


@given(
    st.builds(
        Problem,
        rows=st.integers(1, 60),
        batch_size=st.integers(1, 70),
        drop_last=st.booleans(),
        kind=st.sampled_from(["none", "generator", "global", "key"]),
        epochs=st.integers(0, 3),
        momentum=st.sampled_from([0.0, 0.9]),
        seed=st.integers(0, 2**32 - 1),
    )
)
@settings(max_examples=20)
@example(Problem(rows=23, batch_size=5, drop_last=False, kind="global", momentum=0.9))
@example(Problem(rows=23, batch_size=5, drop_last=True, kind="generator", momentum=0.9))
@example(Problem(rows=5, batch_size=6, drop_last=True, kind="global"))
@example(Problem(rows=5, batch_size=6, drop_last=False, kind="key"))
@example(Problem(rows=8, batch_size=3, drop_last=False, kind="generator", epochs=0))
@example(Problem(rows=18, batch_size=1, drop_last=False, kind="none"))
def test_it_is_the_loop_over_a_dataloader(problem: Problem) -> None:
    assert_same_training(problem)


@pytest.mark.thorough
def test_it_is_the_loop_over_a_dataloader_of_ten_thousand_rows() -> None:
    assert_same_training(Problem(10_000, 64, False, "generator", epochs=1, inputs=32, outputs=1, momentum=0.9))


def test_a_training_in_parts_is_one_training(monkeypatch: pytest.MonkeyPatch, compilations: list[str]) -> None:
    problem = Problem(rows=9, batch_size=4, drop_last=False, kind="generator", epochs=8, momentum=0.9)
    # Orders of three epochs at once: parts of three, three, and two.
    monkeypatch.setattr(batches, "ORDERS_AT_ONCE", 30)
    assert_same_training(problem)
    assert len([name for name in compilations if "_train" in name]) == 1
    compilations.clear()
    assert_same_training(problem)
    assert compilations == []


@pytest.mark.parametrize("kind", ["none", "generator", "key"])
def test_one_program_that_a_second_call_finds_compiled(kind: str, compilations: list[str]) -> None:
    # A rate of its own for each kind, so that no other test has compiled the program before.
    optimizer = jaxreg.sgd({"none": 0.011, "generator": 0.012, "key": 0.013}[kind], momentum=0.5)
    x, y = (array.astype(np.float32) for array in Problem(10, 4, False, kind).data())

    def train(seed: int) -> None:
        model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(seed))
        shuffle = shuffle_of(Problem(10, 4, False, kind, seed=seed))
        jaxreg.fit(model, x, y, optimizer=optimizer, epochs=7, batch_size=4, shuffle=shuffle)

    train(0)
    assert len([name for name in compilations if "_train" in name]) == 1
    compilations.clear()
    train(1)
    assert compilations == []


class Counting(nnx.Module):
    """A linear layer that writes down how many rows its last three batches had."""

    def __init__(self) -> None:
        self.layer = jaxreg.Linear(3, 1, rngs=nnx.Rngs(0))
        self.rows = nnx.BatchStat(jnp.array(0))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        self.rows[...] = 100 * (self.rows[...] % 10_000) + inputs.shape[0]
        return self.layer(inputs)[..., 0]


def no_mean(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.abs(predictions - targets) + 1).sum() / jnp.log(predictions.shape[0] + 1.0)


def test_any_loss_optimizer_and_module_with_a_state() -> None:
    """Against the plain loop: a loss that is no mean, inputs with more axes, and a state that every batch changes."""
    x, y = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(11, 2, 3), (11, 2)]))
    optimizer = optax.adam(0.01)
    fixed: dict[str, Any] = {
        "loss": no_mean,
        "epochs": 2,
        "batch_size": 4,
        "shuffle": Generator(3),
        "record": ["weights"],
    }
    graph, params, rest = nnx.split(Counting(), nnx.Param, ...)

    def objective(params: Any, rows: np.ndarray) -> jax.Array:
        return no_mean(nnx.merge(graph, params, rest, copy=True)(x[rows]), y[rows])

    state, expected = optimizer.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam counts its steps in integers
        result = jaxreg.fit(Counting(), x, y, optimizer=optimizer, **fixed)
        for order in Generator(3).dataloader_order(11, 2):
            for rows in (order[:4], order[4:8], order[8:]):
                value, gradients = jax.value_and_grad(objective)(params, rows)
                updates, state = optimizer.update(gradients, state, params)
                params = optax.apply_updates(params, updates)
                expected.append(float(value))
    # Adam divides by the gradient's own size, so a rounding stays one: some tens of them in float32.
    np.testing.assert_allclose(result.losses, expected, rtol=64 * 2.0**-24)
    np.testing.assert_allclose(result.model.layer.kernel[...], params["layer"]["kernel"][...], atol=64 * 2.0**-24)
    assert result.trace.weights["layer"]["kernel"].shape == (6, 3, 1)
    assert int(result.model.rows[...]) == 40403  # the last batches had 4, 4 and 3 rows


def test_a_generator_goes_on_where_the_last_training_stopped() -> None:
    problem = Problem(rows=13, batch_size=4, drop_last=False, kind="generator", epochs=3)
    with jax.enable_x64(True):
        generator, both = Generator(2), Generator(2)
        first, second = fit(problem, generator).losses, fit(problem, generator).losses
        both.dataloader_order(13, 6)
    assert (first != second).all()
    assert generator.state() == both.state()


@pytest.mark.cases(2)
@pytest.mark.parametrize("rows", [1, 2, 3, 100, 1625, 1626, 20_000])
def test_permutations_are_jaxs_own(rows: int) -> None:
    for seed in range(3):
        for key in (jax.random.key(seed), jax.random.key(seed, impl="rbg")):
            order = jax.jit(batches.permutation, static_argnums=1)(key, rows)
            assert order.dtype == jnp.int32
            assert (order == jax.random.permutation(key, rows)).all()


def test_equal_bits_keep_their_order_as_in_jaxs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(key: jax.Array, shape: tuple[int, ...], *_: Any) -> jax.Array:
        return jnp.arange(shape[0], dtype=jnp.uint32) // 3 % 4

    monkeypatch.setattr(jax.random, "bits", few)
    order = np.argsort(few(jax.random.key(0), (50,)), kind="stable")  # fifty rows take one round
    assert batches.permutation(jax.random.key(0), 50).tolist() == order.tolist()


def test_keys_of_the_old_kind_are_taken() -> None:
    problem = Problem(rows=7, batch_size=2, drop_last=False, kind="none", epochs=1)
    with jax.enable_x64(True):
        old, new = (fit(problem, key).losses for key in (jax.random.PRNGKey(4), jax.random.key(4)))
    assert (old == new).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, or None, got 0"),
        ({"batch_size": 2.0}, "batch_size must be an integer of at least 1, or None, got 2.0"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, or None, got True"),
        ({"shuffle": True}, "shuffle must be a jaxreg.torch_random.Generator, one JAX key such as"),
        ({"shuffle": torch.Generator()}, "or None, got <torch._C.Generator object"),
        ({"shuffle": jax.random.split(jax.random.key(0), 2)}, "got an array of shape (2,) and dtype key<fry>"),
        ({"shuffle": jnp.arange(4)}, "got an array of shape (4,) and dtype int32"),
        ({"drop_last": 1}, "drop_last must be True or False, got 1"),
        ({"global_generator": None}, "global_generator must be True or False, got None"),
        ({"global_generator": True}, "a jaxreg.torch_random.Generator given as shuffle stands for, got None"),
        ({"batch_size": None, "shuffle": Generator(0)}, "shuffle needs a batch_size; without one every step takes all"),
        ({"batch_size": None, "drop_last": True}, "drop_last needs a batch_size"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    x = jnp.ones((5, 1))
    good = {"optimizer": jaxreg.sgd(0.1), "epochs": 1, "batch_size": 2}
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.fit(jaxreg.Linear(1, 1, rngs=nnx.Rngs(0)), x, x, **(good | change))
    assert message in str(error.value)
