"""sweep: each of its trainings is the one that fit makes, whatever the plan, and what it refuses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg
from jaxreg._nn.linear_params import LayerParams
from jaxreg._sweeps import vectorized

PLANS = ("stepwise", "compressed", "spectral")
STEPS = 40
SCHEDULE = optax.exponential_decay(0.2, 10, 0.5)


@pytest.fixture
def data() -> tuple[nnx.Module, Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3)).astype(np.float32)
    y = (x @ random.normal(size=(3, 2)) + 0.5).astype(np.float32)
    return jaxreg.Linear(3, 2, rngs=nnx.Rngs(1)), x, y


def assert_same(one: Any, other: Any) -> None:
    """The same numbers, what is not finite included, to some roundings of float32."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_allclose(a, b, rtol=2.0**-18, atol=2.0**-20)


@pytest.mark.cases(1)
@pytest.mark.parametrize("plan", PLANS)
def test_each_training_is_the_one_that_fit_makes(data: Any, plan: str) -> None:
    model, x, y = data
    grid = {"learning_rate": [0.01, 0.3], "momentum": [0.0, 0.8], "weight_decay": [0.0, 0.1], "nesterov": [False]}
    result = jaxreg.sweep(model, x, y, settings=grid, epochs=STEPS, at=[0, 7, STEPS - 1], plan=plan)
    assert (result.plan, result.losses.shape) == (plan, (8, 3))
    for number, settings in enumerate(result.settings):
        single = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(**settings), epochs=STEPS, plan=plan)
        assert_same(result.losses[number], single.losses[np.array([0, 7, STEPS - 1])])
        assert_same(result.model(number).kernel[...], single.model.kernel[...])
        assert_same(result.model(number).bias[...], single.model.bias[...])


@pytest.mark.thorough
@pytest.mark.parametrize("plan", PLANS)
def test_those_that_diverge_do_so_among_others(data: Any, plan: str) -> None:
    model, x, y = data
    settings: list[dict[str, Any]] = [
        {"learning_rate": rate, "momentum": m} for rate, m in ((0.1, 0.0), (50.0, 0.0), (4.0, 0.5), (0.2, 0.5))
    ]
    result = jaxreg.sweep(model, x, y, settings=settings, epochs=120, at=range(120), plan=plan)
    assert np.isfinite(result.loss).tolist() == [True, False, False, True]
    assert "2 not finite at the end" in repr(result)
    for number, one in enumerate(settings):
        single = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(**one), epochs=120, plan=plan)
        assert_same(np.isfinite(result.losses[number]), np.isfinite(single.losses))
        assert_same(np.isnan(result.losses[number]), np.isnan(single.losses))
        assert_same(np.isnan(result.model(number).kernel[...]), np.isnan(single.model.kernel[...]))


@pytest.mark.parametrize("plan", PLANS)
def test_seeds_and_targets(data: Any, plan: str) -> None:
    _, x, y = data
    model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(9))
    grid = {"seed": [3, 4], "targets": [y, -2 * y], "learning_rate": 0.05}
    result = jaxreg.sweep(model, x, settings=grid, epochs=5, plan=plan)
    for number, (seed, targets) in enumerate([(3, y), (3, -2 * y), (4, y), (4, -2 * y)]):
        start = jaxreg.Linear(3, 2, rngs=nnx.Rngs(seed))
        single = jaxreg.fit(start, x, targets, optimizer=jaxreg.sgd(0.05), epochs=5, plan=plan)
        assert_same(result.losses[number, 0], single.losses[-1])
        assert_same(result.model(number).kernel[...], single.model.kernel[...])


@pytest.mark.thorough
@jax.numpy_dtype_promotion("standard")  # Optax's own
def test_any_optimizer_and_any_model(data: Any) -> None:
    model, x, y = data
    result = jaxreg.sweep(
        model, x, y, settings={"learning_rate": [0.01, 0.1], "b1": [0.5, 0.9]}, optimizer=optax.adam, epochs=STEPS
    )
    assert result.plan == "compressed"
    for number, one in enumerate(result.settings):
        single = jaxreg.fit(model, x, y, optimizer=optax.adam(**one), epochs=STEPS, plan="compressed")
        assert_same(result.losses[number, 0], single.losses[-1])
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    result = jaxreg.sweep(net, x, y, settings={"learning_rate": [0.01, 0.1]}, epochs=STEPS)
    assert result.plan == "stepwise"
    single = jaxreg.fit(net, x, y, optimizer=jaxreg.sgd(0.1), epochs=STEPS)
    assert_same(result.model(1)(x), single.model(x))


def test_a_second_sweep_compiles_nothing(data: Any, compilations: list[str]) -> None:
    model, x, y = data
    for rates in ([0.1, 0.2], [0.3, 0.4]):
        compilations.clear()
        jaxreg.sweep(model, x, y, settings={"learning_rate": rates}, epochs=STEPS)
    assert compilations == []


def test_it_prints_the_best_first_and_draws_a_heat_map(data: Any) -> None:
    model, x, y = data
    result = jaxreg.sweep(
        model, x, y, settings={"learning_rate": np.geomspace(1e-3, 0.3, 5), "momentum": [0.0, 0.5, 0.9]}, epochs=20
    )
    lines = repr(result).splitlines()
    assert lines[1].split() == ["learning_rate", "momentum", "loss"]
    losses = [float(line.split()[-1]) for line in lines[2:-1]]
    assert losses == sorted(losses)
    assert lines[2].split()[-1] == f"{result.loss[result.best]:.4e}"
    assert lines[-1] == "and 3 more"
    assert result._repr_html_().count("<rect") == 15


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {}}, "learning_rate"),
        ({"settings": []}, "settings are empty"),
        ({"settings": {"learning_rate": [-1.0]}}, "learning_rate must be at least 0"),
        ({"settings": {"rate": [1.0]}}, "settings may be learning_rate, momentum"),
        ({"settings": [{"learning_rate": 0.1}, {"learning_rate": 0.1, "momentum": 0.5}]}, "all have the same names"),
        ({"settings": {"learning_rate": [0.1], "targets": [np.ones((60, 2))]}}, "targets came twice"),
        ({"targets": None}, "targets are missing"),
        ({"at": [40]}, "from 0 to 39"),
        ({"plan": "spectral", "loss": jaxreg.l1_loss}, "mse_loss"),
        ({"epochs": -1}, "epochs must be an integer of at least 0"),
    ],
)
def test_bad_arguments(data: Any, changes: dict[str, Any], words: str) -> None:
    model, x, y = data
    good = {"inputs": x, "targets": y, "settings": {"learning_rate": [0.1]}, "epochs": 40}
    with pytest.raises(jaxreg.ArgumentError, match=words):
        jaxreg.sweep(model, **(good | changes))


@pytest.mark.parametrize("targets", [1, 3])
def test_the_inputs_are_decomposed_once_for_all(targets: int) -> None:
    columns, kernels, bias = jnp.ones((12, 5)), jnp.ones((targets, 4, 1)), jnp.ones((targets, 1))
    with jax.enable_x64(True):
        lowered = vectorized.spectral_batch.lower(
            columns.astype(np.float64),
            np.ones((targets, 12, 1)),
            LayerParams(kernels, bias),
            np.arange(targets, dtype=np.int32),
            np.ones((targets, 8)),
            np.zeros(1),
            momentum=False,
        )
    decompositions = [line for line in lowered.as_text().splitlines() if "lapack_dgesdd" in line]
    assert decompositions
    assert all("(tensor<12x5xf64>)" in line for line in decompositions)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("rates", "other", "plan"),
    [
        ([0.1, SCHEDULE], {}, "compressed"),
        ([SCHEDULE, 0.1], {}, "compressed"),
        ([0.1, SCHEDULE], {"momentum": [0.9], "nesterov": [True]}, "compressed"),
        ([jnp.asarray(0.2), 0.1], {}, "spectral"),
        ([0.1, np.asarray(0.2), np.float32(0.3), 1], {}, "spectral"),
    ],
    ids=["schedule last", "schedule first", "flags", "array first", "arrays"],
)
def test_settings_of_different_kinds(data: Any, rates: list[Any], other: Any, plan: str) -> None:
    model, x, y = data
    result = jaxreg.sweep(model, x, y, settings={"learning_rate": rates, **other}, epochs=STEPS)
    assert result.plan == plan
    for number, one in enumerate(rates):
        rate = one if callable(one) else float(one)
        alone = jaxreg.sgd(rate, **{name: value[0] for name, value in other.items()})
        single = jaxreg.fit(model, x, y, optimizer=alone, epochs=STEPS, plan=plan)
        assert_same(result.losses[number, -1], single.losses[-1])
