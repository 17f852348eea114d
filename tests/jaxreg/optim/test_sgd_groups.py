"""Parameter groups against those of torch.optim.SGD, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxreg
from tests.helpers.sgd_drift import Drift, Options, format_of

STEPS = 20
BASE: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.1}
# By our names and by PyTorch's: no decay on biases, a rate of its own for the second layer, the third one frozen.
OURS: dict[str, Any] = {
    "layers.2.*": None,
    "*.bias": {"weight_decay": 0.0},
    "layers.1.kernel": {"learning_rate": 0.5, "momentum": 0.0},
}
THEIRS: dict[str, Any] = {
    "0.bias": {"weight_decay": 0.0},
    "1.bias": {"weight_decay": 0.0},
    "1.weight": {"lr": 0.5, "momentum": 0.0},
    "0.weight": {},
}


def _model() -> nnx.Sequential:
    rngs = nnx.Rngs(0)
    return nnx.Sequential(*(jaxreg.Linear(3, 3, param_dtype=jnp.float64, rngs=rngs) for _ in range(3)))


def test_groups_are_pytorchs() -> None:
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        model = _model()
        start = jaxreg.state_dict.export(model)
        shapes = {name: array.shape for name, array in start.items()}
        gradients = [{name: np.asarray(random.normal(size=shapes[name])) for name in shapes} for _ in range(STEPS)]
        parameters = {name: torch.nn.Parameter(torch.from_numpy(array.copy())) for name, array in start.items()}
        groups = [{"params": [parameters[name]], **settings} for name, settings in THEIRS.items()]
        theirs = torch.optim.SGD(groups, lr=0.1, **BASE)
        graph, params = nnx.split(model, nnx.Param)
        ours = jaxreg.sgd_groups(OURS, 0.1, **BASE)
        state, update = ours.init(params), jax.jit(ours.update)
        for gradient in gradients:
            for name, parameter in parameters.items():
                parameter.grad = torch.from_numpy(gradient[name])
            theirs.step()
            given = nnx.state(jaxreg.state_dict.load(model, gradient), nnx.Param)
            updates, state = update(given, state, params)
            params = optax.apply_updates(params, updates)
        trained = jaxreg.state_dict.export(nnx.merge(graph, params))
    for name, array in trained.items():
        settings: dict[str, Any] = {"lr": 0.1, **BASE, **THEIRS.get(name, {"lr": 0.0})}
        rate = settings.pop("lr")
        drift = Drift(Options(**settings), start[name], *format_of(np.float64))
        for gradient in gradients:
            drift.step(gradient[name], rate)
        assert (abs(array - parameters[name].detach().numpy()) <= 2 * drift.off).all()
        frozen = name.startswith("2.")
        assert (array == start[name]).all() == frozen


def test_fit_takes_groups() -> None:
    x = jnp.linspace(-1, 1, 20).reshape(-1, 1)
    model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
    result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd_groups({"bias": None}, 0.1), epochs=50)
    trained: Any = result.model
    assert float(trained.bias[0]) == float(model.bias[0])
    assert float(trained.kernel[0, 0]) != float(model.kernel[0, 0])


@pytest.mark.parametrize(
    ("groups", "settings", "message"),
    [
        ({"*bias": {"lr": 0.1}}, {}, "group '*bias': 'lr' is no setting of sgd; it has ('learning_rate', 'momentum'"),
        ({}, {"betas": 1}, "sgd_groups: 'betas' is no setting of sgd"),
        ({"*bias": 0.1}, {}, "group '*bias' must be settings such as"),
        ({"*bias": {"momentum": -1}}, {}, "momentum must be at least 0 and finite, got -1"),
    ],
)
def test_settings_that_are_none(groups: Any, settings: Any, message: str) -> None:
    with pytest.raises(jaxreg.ArgumentError) as error:
        jaxreg.sgd_groups(groups, 0.1, **settings)
    assert message in str(error.value)


@pytest.mark.parametrize("groups", [{"*bais": None}, {"*": {}, "bias": None}])
def test_a_pattern_that_takes_nothing(groups: Any) -> None:
    optimizer = jaxreg.sgd_groups(groups, 0.1)
    with pytest.raises(
        jaxreg.ArgumentError, match=r"no parameter is left for the pattern '.*'; the parameters are bias, k"
    ):
        optimizer.init({"kernel": jnp.ones(1), "bias": jnp.ones(1)})
