"""SGD's state to and from PyTorch: half a training there, half here, and the other way round."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxreg
from jaxreg import lr_scheduler, state_dict
from tests.helpers.sgd_drift import Drift, Options, format_of

HALF = 10
RULE: dict[str, Any] = {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}
OTHER = {"weight_decay": 0.0, "momentum": 0.5}


def _models() -> tuple[torch.nn.Sequential, nnx.Sequential]:
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)).double()
    ours = nnx.Sequential(*(jaxreg.Linear(n, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)) for n in (3, 2)))
    return theirs, state_dict.load(ours, theirs.state_dict())


def _gradients(model: nnx.Module) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = {name: array.shape for name, array in state_dict.export(model).items()}
    return [{name: random.normal(size=shape) for name, shape in shapes.items()} for _ in range(2 * HALF)]


def _their_steps(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, gradients: Any, scheduler: Any = None
) -> None:
    for gradient in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradient[name].copy())
        optimizer.step()
        if scheduler:
            scheduler.step()


def _our_steps(model: Any, optimizer: optax.GradientTransformation, state: Any, gradients: Any) -> Any:
    graph, params = nnx.split(model, nnx.Param)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(nnx.state(state_dict.load(model, gradient), nnx.Param), state, params)
        params = optax.apply_updates(params, updates)
    return nnx.merge(graph, params), state


def _as_tensors(exported: dict[str, Any]) -> dict[str, Any]:
    for entry in exported["state"].values():
        entry["momentum_buffer"] = torch.from_numpy(entry["momentum_buffer"])
    return exported


def _hold(
    start: dict[str, np.ndarray], a: dict[str, Any], b: dict[str, Any], gradients: Any, rates: Any, rules: Any
) -> None:
    for name, array in start.items():
        drift = Drift(Options(**rules(name)), array, *format_of(np.float64))
        for gradient, rate in zip(gradients, rates, strict=True):
            drift.step(gradient[name], rate, rate_off=30 * 2.0**-53 * rate)
        assert (abs(np.asarray(a[name]) - np.asarray(b[name])) <= 2 * drift.off).all()
        assert not (np.asarray(a[name]) == array).any()


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_half_in_pytorch_half_here(tmp_path: Path, through_a_file: bool, groups: bool) -> None:
    with jax.enable_x64(True):
        theirs, ours = _models()
        start, gradients = state_dict.export(ours), _gradients(ours)
        optimizer = _their_optimizer(theirs, groups)
        _their_steps(theirs, optimizer, gradients[:HALF])
        saved: dict[str, Any] = optimizer.state_dict()
        if through_a_file:
            state_dict.save_file(saved, tmp_path / "optimizer")
            saved = state_dict.load_file(tmp_path / "optimizer")
        ours = state_dict.load(ours, theirs.state_dict())
        continued = state_dict.make_optimizer(saved, ours)
        state = state_dict.load_optimizer(continued, ours, saved)
        ours, state = _our_steps(ours, continued, state, gradients[HALF:])
        _their_steps(theirs, optimizer, gradients[HALF:])
        _hold(start, state_dict.export(ours), theirs.state_dict(), gradients, [0.1] * 2 * HALF, _rules(groups))


def _their_optimizer(model: torch.nn.Module, groups: bool) -> torch.optim.SGD:
    if not groups:
        return torch.optim.SGD(model.parameters(), lr=0.1, **RULE)
    named = dict(model.named_parameters())
    biases: dict[str, Any] = {"params": [pair for pair in named.items() if pair[0].endswith("bias")], **OTHER}
    rest: dict[str, Any] = {"params": [pair for pair in named.items() if not pair[0].endswith("bias")]}
    return torch.optim.SGD([biases, rest], lr=0.1, **RULE)


def _rules(groups: bool) -> Any:
    return lambda name: {**RULE, **OTHER} if groups and name.endswith("bias") else RULE


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_half_here_half_in_pytorch(tmp_path: Path, through_a_file: bool, groups: bool) -> None:
    with jax.enable_x64(True):
        theirs, ours = _models()
        start, gradients = state_dict.export(ours), _gradients(ours)
        given: dict[str, Any] = {"groups": {"*bias": OTHER}} if groups else {}
        optimizer = jaxreg.sgd_groups({"*bias": OTHER}, 0.1, **RULE) if groups else jaxreg.sgd(0.1, **RULE)
        state = optimizer.init(nnx.state(ours, nnx.Param))
        ours, state = _our_steps(ours, optimizer, state, gradients[:HALF])
        saved = state_dict.export_optimizer(state, ours, 0.1, **RULE, **given)
        if through_a_file:
            state_dict.save_file(saved, tmp_path / "optimizer")
            saved = state_dict.load_file(tmp_path / "optimizer")
        theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.export(ours).items()})
        continued = _their_optimizer(theirs, groups)
        continued.load_state_dict(_as_tensors(saved))
        _their_steps(theirs, continued, gradients[HALF:])
        ours, _ = _our_steps(ours, optimizer, state, gradients[HALF:])
        _hold(start, state_dict.export(ours), theirs.state_dict(), gradients, [0.1] * 2 * HALF, _rules(groups))


def test_a_schedule_goes_on() -> None:
    with jax.enable_x64(True):
        theirs, ours = _models()
        start, gradients = state_dict.export(ours), _gradients(ours)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, **RULE)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
        _their_steps(theirs, optimizer, gradients[:HALF], scheduler)
        ours = state_dict.load(ours, theirs.state_dict())
        rate = lr_scheduler.step_lr(0.1, 7, 0.5)
        continued = jaxreg.sgd(rate, **RULE)
        saved = optimizer.state_dict()
        with pytest.raises(jaxreg.ArgumentError, match=r"say how many were made with step="):
            state_dict.load_optimizer(continued, ours, saved)
        state = state_dict.load_optimizer(continued, ours, saved, step=scheduler.state_dict()["last_epoch"])
        assert (
            state_dict.export_optimizer(state, ours, rate, **RULE)["param_groups"][0]["lr"]
            == saved["param_groups"][0]["lr"]
        )
        ours, _ = _our_steps(ours, continued, state, gradients[HALF:])
        _their_steps(theirs, optimizer, gradients[HALF:], scheduler)
        rates = [0.1 * 0.5 ** (step // 7) for step in range(2 * HALF)]
        _hold(start, state_dict.export(ours), theirs.state_dict(), gradients, rates, _rules(False))


def test_the_settings_are_pytorchs_own() -> None:
    theirs, ours = torch.nn.Linear(3, 2), jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    state = jaxreg.sgd(0.1, **RULE).init(nnx.state(ours, nnx.Param))
    exported = state_dict.export_optimizer(state, ours, 0.1, **RULE)
    expected = torch.optim.SGD(theirs.named_parameters(), lr=0.1, **RULE).state_dict()
    assert exported == expected  # and no state from before the first step


def test_the_state_of_a_flax_optimizer() -> None:
    model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    rate = lr_scheduler.step_lr(0.5, 1)
    optimizer = nnx.Optimizer(model, jaxreg.sgd(rate, 0.9), wrt=nnx.Param)
    gradient = nnx.state(model, nnx.Param)
    kernel = np.asarray(model.kernel[...])
    optimizer.update(model, gradient)
    exported = state_dict.export_optimizer(optimizer.opt_state, model, rate, 0.9)
    assert exported["state"][0]["momentum_buffer"].tolist() == kernel.T.tolist()
    assert exported["param_groups"][0]["lr"] == float(rate(1))


def test_what_does_not_fit_is_listed() -> None:
    theirs, ours = torch.nn.Linear(3, 2), jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    theirs(torch.ones(3)).sum().backward()
    optimizer.step()
    saved: Any = optimizer.state_dict()
    saved["state"][0]["momentum_buffer"] = torch.ones(3, 2)
    saved["state"][1]["momentum_buffer"] = torch.ones(2, dtype=torch.float64)
    with pytest.raises(jaxreg.ArgumentError) as error:
        state_dict.load_optimizer(jaxreg.sgd(0.1, 0.9), ours, saved)
    assert str(error.value).splitlines() == [
        "cannot load the optimizer's state:",
        "- the momentum buffer of 'weight' must have shape (2, 3), got (3, 2); PyTorch keeps (out, in)",
        "- the momentum buffer of 'bias' must have dtype float32, got float64",
    ]
    with pytest.raises(jaxreg.ArgumentError, match=r"'weight' has a momentum buffer, but the optimizer keeps none"):
        state_dict.load_optimizer(jaxreg.sgd(0.1), ours, saved)
    del saved["state"][0]
    saved["state"][1]["momentum_buffer"] = torch.ones(2)
    with pytest.raises(jaxreg.ArgumentError, match=r"'weight': no momentum buffer, while others"):
        state_dict.load_optimizer(jaxreg.sgd(0.1, 0.9), ours, saved)


def test_parameters_without_names() -> None:
    theirs, ours = torch.nn.Linear(3, 2), jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    groups: list[dict[str, Any]] = [{"params": [theirs.bias]}, {"params": [theirs.weight], "lr": 0.5}]
    saved = torch.optim.SGD(groups, lr=0.1).state_dict()
    with pytest.raises(jaxreg.ArgumentError, match=r"give names=, PyTorch's names in that order, of 'weight', 'bias'"):
        state_dict.make_optimizer(saved, ours)
    optimizer = state_dict.make_optimizer(saved, ours, names=["bias", "weight"])
    ones = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    updates: Any = optimizer.update(ones, optimizer.init(ones), ones)[0]
    assert (float(updates["bias"][0]), float(updates["kernel"][0, 0])) == (-float(np.float32(0.1)), -0.5)
    with pytest.raises(jaxreg.ArgumentError, match=r"'w' is no parameter of the model"):
        state_dict.make_optimizer(saved, ours, names=["bias", "w"])


def test_parameters_that_the_optimizer_was_not_given_are_frozen() -> None:
    theirs, ours = torch.nn.Linear(3, 2), jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    saved = torch.optim.SGD([("weight", theirs.weight)], lr=0.1).state_dict()
    optimizer = state_dict.make_optimizer(saved, ours)
    ones = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    updates: Any = optimizer.update(ones, optimizer.init(ones), ones)[0]
    assert updates["bias"].tolist() == [0, 0]


def test_the_state_of_another_optimizer() -> None:
    saved = torch.optim.Adam(torch.nn.Linear(3, 2).parameters()).state_dict()
    model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(
        jaxreg.ArgumentError, match=r"must be the state of a torch.optim.SGD, its groups lack \['momentum'"
    ):
        state_dict.make_optimizer(saved, model)
    wrong: Any = {"weight": 1}
    with pytest.raises(jaxreg.ArgumentError, match=r"as torch.optim.SGD.state_dict\(\) gives"):
        state_dict.make_optimizer(wrong, model)
    state = jaxreg.sgd(0.1).init(nnx.state(model, nnx.Param))
    with pytest.raises(jaxreg.ArgumentError, match=r"the state counts no steps"):
        state_dict.export_optimizer(state, model, lr_scheduler.step_lr(0.1, 1))
