"""Inputs that nobody here chose: those of PyTorch's own tests, forward, gradients and 20 optimizer steps.

All of them are run, in float32 and float64, and held to bounds that the arithmetic gives
(see ``tests.helpers.sgd_drift``).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxreg
from tests.helpers.sgd_drift import Drift, Options, format_of, gamma
from tests.helpers.torch_databases import (
    LOSSES,
    MODULES,
    OPERATORS,
    SGD,
    LinearInput,
    LossInput,
    linear_inputs,
    loss_inputs,
)

STEPS = 20
DTYPES = {"float32": torch.float32, "float64": torch.float64}
RULE = Options(momentum=0.9, weight_decay=0.1, nesterov=True)
WORST: dict[str, float] = {}


def _hold(what: str, ours: Any, theirs: Any, bound: Any) -> None:
    """``ours`` and ``theirs`` within twice what one side can be off by; the largest share used is kept in ``WORST``."""
    ours, theirs = (np.asarray(side, np.float64) for side in (ours, theirs))
    assert ours.shape == theirs.shape
    difference, bound = abs(ours - theirs), np.broadcast_to(2 * np.asarray(bound), ours.shape)
    if ours.size == 0:
        return
    if np.isnan(theirs).all():  # a mean over nothing
        assert np.isnan(ours).all()
        return
    assert (difference <= bound).all(), (what, difference.max(), bound.max())
    WORST[what] = max(WORST.get(what, 0.0), float((difference / np.maximum(bound, 1e-300)).max()))


def _numpy(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().numpy()


def _scan(optimizer: optax.GradientTransformation, evaluate: Any, params: Any) -> Any:
    """What ``evaluate`` gave at first, its second part the gradient, and the parameters after each step."""

    def step(carry: tuple[Any, Any], _: None) -> tuple[Any, Any]:
        params, state = carry
        evaluated = evaluate(params)
        updates, state = optimizer.update(evaluated[1], state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (evaluated, params)

    # One evaluation is compiled, in the loop: compiling is what these tests spend their time on.
    evaluated, steps = jax.lax.scan(step, (params, optimizer.init(params)), None, length=STEPS)[1]
    return *jax.tree.map(lambda array: array[0], evaluated), steps


# --- losses


@functools.partial(jax.jit, static_argnames=("loss", "settings", "rate"))
def _our_loss(p: jax.Array, t: jax.Array, *, loss: str, settings: tuple[Any, ...], rate: float) -> Any:
    function = functools.partial(getattr(jaxreg, loss), **dict(settings))

    def evaluate(p: jax.Array) -> Any:
        value, pull_back = jax.vjp(lambda p: function(p, t), p)
        return value, pull_back(jnp.ones_like(value))[0]

    return _scan(jaxreg.sgd(rate, **vars(RULE)), evaluate, p)


def _their_loss(item: LossInput, loss: str, rate: float) -> Any:
    function = functools.partial(getattr(torch.nn.functional, loss), **item.settings)
    p = torch.nn.Parameter(item.predictions.detach().clone())
    optimizer = torch.optim.SGD([p], lr=rate, **vars(RULE))
    first: list[Any] = []
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = function(p, item.targets.detach())
        value.sum().backward()
        first = first or [_numpy(value).copy(), _numpy(p.grad).copy()]
        optimizer.step()
        steps.append(_numpy(p).copy())
    return *first, np.array(steps)


def _loss_bounds(item: LossInput, loss: str, rate: float) -> Any:
    """Bounds on the value, the gradient and the predictions of each step, from PyTorch's definition in float64.

    At most seven roundings make an element's value or gradient, relative to it: of the difference, the square, the
    constant and the product with it, a subtraction of at most half of what is left, the division. Its sum has one for
    each element.
    """
    unit, tiny = format_of(_numpy(item.predictions).dtype)
    p, t = (part.detach().double() for part in (item.predictions, item.targets))
    p.requires_grad_()
    function = functools.partial(getattr(torch.nn.functional, loss), **item.settings)
    value = function(p, t)
    # How fast the gradient turns: what an error of the predictions does to it.
    share = 1 / max(p.numel(), 1) if item.settings.get("reduction", "mean") == "mean" else 1.0
    beta = item.settings.get("beta", 1.0)
    slopes = {"mse_loss": 2.0, "l1_loss": 0.0, "huber_loss": 1.0, "smooth_l1_loss": 1 / beta if beta else 0.0}
    turn = share * slopes[loss]
    drift, offs, gradient = Drift(RULE, p.detach().numpy(), unit, tiny), [], None
    for _ in range(STEPS):
        p.grad = None
        function(p, t).sum().backward()
        now = _numpy(p.grad).copy()
        gradient = now if gradient is None else gradient
        if turn == 0:  # a sign may not be in doubt
            difference = abs(_numpy(p - t))
            assert (difference > 2 * np.asarray(drift.off)).all(), f"{item.source}: a prediction meets its target"
        drift.step(now, rate, gradient_off=gamma(7, unit) * abs(now) + turn * drift.off + tiny)
        offs.append(np.broadcast_to(drift.off, drift.weights.shape))
        p = torch.from_numpy(np.asarray(drift.weights)).requires_grad_()
    value_off = gamma(p.numel() + 7, unit) * abs(_numpy(value)) + p.numel() * tiny
    assert gradient is not None
    return value_off, gamma(7, unit) * abs(gradient) + tiny, np.array(offs)


@pytest.mark.cases(3)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", LOSSES)
def test_losses(module: str, dtype: str) -> None:
    loss, count = LOSSES[module], 0
    torch.manual_seed(1)
    for item in loss_inputs(module, DTYPES[dtype]):
        rate = 0.013
        settings = tuple(sorted(item.settings.items()))
        theirs = _their_loss(item, loss, rate)
        with jax.enable_x64(True):
            ours = _our_loss(_numpy(item.predictions), _numpy(item.targets), loss=loss, settings=settings, rate=rate)
            assert all(side.dtype == dtype for side in ours)
        bounds = _loss_bounds(item, loss, rate)
        for stage, a, b, bound in zip(("value", "gradient", "steps"), ours, theirs, bounds, strict=True):
            _hold(f"{loss} {stage} {dtype}", a, b, bound)
        count += 1
    assert count == {"MSELoss": 14, "L1Loss": 11, "SmoothL1Loss": 16, "HuberLoss": 13}[module]


# --- linear layers


@functools.partial(jax.jit, static_argnames=("graph", "rule", "rate"))
def _our_linear(params: Any, x: jax.Array, target: jax.Array, *, graph: Any, rule: tuple[Any, ...], rate: Any) -> Any:
    def loss(params: Any, x: jax.Array) -> Any:
        out = nnx.merge(graph, params)(x)
        return jaxreg.mse_loss(out, target, reduction="sum"), out

    def evaluate(params: Any) -> Any:
        (gradients, input_gradient), out = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return out, gradients, input_gradient

    return _scan(jaxreg.sgd(rate, **dict(rule)), evaluate, params)


def _run_ours(item: LinearInput, target: np.ndarray, rule: dict[str, Any], rate: Any) -> dict[str, np.ndarray]:
    weight = item.weight.numpy()
    layer = jaxreg.Linear(
        weight.shape[1], weight.shape[0], use_bias=item.bias is not None, param_dtype=weight.dtype, rngs=nnx.Rngs(0)
    )
    given = {"weight": weight} | ({} if item.bias is None else {"bias": item.bias.numpy()})
    graph, params = nnx.split(jaxreg.state_dict.load(layer, given), nnx.Param)
    x = item.inputs.numpy()
    out, gradients, input_gradient, steps = _our_linear(
        params, x, target, graph=graph, rule=tuple(sorted(rule.items())), rate=rate
    )
    result = {"forward": out, "input gradient": input_gradient}
    for stage, tree in (("gradient", gradients), ("steps", steps)):
        result[f"weight {stage}"] = np.asarray(tree["kernel"][...]).swapaxes(-1, -2)
        if item.bias is not None:
            result[f"bias {stage}"] = tree["bias"][...]
    return {name: np.asarray(array) for name, array in result.items()}


def _run_theirs(item: LinearInput, target: np.ndarray, rule: dict[str, Any], rate: Any) -> dict[str, np.ndarray]:
    x = item.inputs.clone().requires_grad_()
    given = {"weight": item.weight} | ({} if item.bias is None else {"bias": item.bias})
    params = {name: torch.nn.Parameter(value.clone()) for name, value in given.items()}
    optimizer = torch.optim.SGD(params.values(), lr=rate, **rule)
    result: dict[str, Any] = {f"{name} steps": [] for name in params}
    for step in range(STEPS):
        optimizer.zero_grad()
        out = torch.nn.functional.linear(x, params["weight"], params.get("bias"))
        loss: Any = torch.nn.functional.mse_loss(out, torch.from_numpy(target), reduction="sum")
        loss.backward()
        if step == 0:
            result |= {"forward": _numpy(out).copy(), "input gradient": _numpy(x.grad).copy()}
            result |= {f"{name} gradient": _numpy(value.grad).copy() for name, value in params.items()}
        optimizer.step()
        for name, value in params.items():
            result[f"{name} steps"].append(_numpy(value).copy())
    return {name: np.array(array) for name, array in result.items()}


def _linear_bounds(item: LinearInput, target: np.ndarray, rule: Options, rate: float) -> dict[str, Any]:
    """Bounds by the same names: of sums of products in any order (Higham, ch. 3), carried on by the gradient's slope.

    The gradient of a sum of squares is affine in the weights, so that an error of theirs turns it by no more than the
    largest eigenvalue of the (constant) second derivative. Errors of all weights together are bounded in the 2-norm.
    """
    unit, tiny = format_of(target.dtype)
    x = item.inputs.double().numpy().reshape(-1, item.inputs.shape[-1])
    t = target.astype(np.float64).reshape(-1, target.shape[-1])
    bias = item.bias is not None
    design = np.concatenate([x, np.ones((len(x), 1))], 1) if bias else x
    theta = item.weight.double().numpy()
    theta = np.concatenate([theta, item.bias.double().numpy()[:, None]], 1) if item.bias is not None else theta
    k, rows, outputs = design.shape[1], len(x), len(theta)

    def parts(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        forward_off = gamma(k, unit) * abs(design) @ abs(theta).T + tiny
        residual = design @ theta.T - t
        residual_off = forward_off + unit * abs(residual)
        gradient = 2 * residual.T @ design
        off = 2 * (residual_off.T @ abs(design) + gamma(rows + 2, unit) * abs(residual).T @ abs(design)) + tiny
        return residual, residual_off, gradient, off

    residual, residual_off, _, gradient_off = parts(theta)
    input_off = 2 * (residual_off @ abs(theta[:, : x.shape[1]]))
    input_off += 2 * gamma(outputs + 2, unit) * abs(residual) @ abs(theta[:, : x.shape[1]]) + tiny
    turn = 2 * np.linalg.norm(design, 2) ** 2 if design.size else 0.0
    drift, offs = Drift(rule, theta, unit, tiny * theta.size, np.linalg.norm), []
    for _ in range(STEPS):
        _, _, now, off = parts(drift.weights)
        drift.step(now, rate, gradient_off=np.linalg.norm(off) + turn * drift.off)
        offs.append(drift.off)
    steps = np.array(offs)
    bounds = {
        "forward": (gamma(k, unit) * abs(design) @ abs(theta).T + tiny).reshape(target.shape),
        "input gradient": input_off.reshape(item.inputs.shape),
        "weight gradient": gradient_off[:, : x.shape[1]],
        "weight steps": steps[:, None, None],
    }
    return bounds | ({"bias gradient": gradient_off[:, -1], "bias steps": steps[:, None]} if bias else {})


def _hold_linear(item: LinearInput, rule: dict[str, Any], rate: Any, dtype: str) -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=(*item.inputs.shape[:-1], len(item.weight))).astype(dtype)
    theirs = _run_theirs(item, target, rule, torch.tensor(rate) if isinstance(rate, np.ndarray) else rate)
    with jax.enable_x64(True):
        ours = _run_ours(item, target, rule, float(rate))
    bounds = _linear_bounds(item, target, Options(**rule), float(rate))
    assert ours.keys() == theirs.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert ours[name].dtype == dtype
        _hold(f"linear {name} {dtype}", ours[name], theirs[name], bound)


@pytest.mark.cases(1)
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_layers(dtype: str) -> None:
    items = list(linear_inputs(DTYPES[dtype]))
    assert len(items) == 3 + 18
    for item in items:
        _hold_linear(item, vars(RULE), 0.001, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd(dtype: str) -> None:
    item = next(iter(linear_inputs(DTYPES[dtype])))
    inputs = SGD.optim_inputs_func("cpu")
    assert len(inputs) == 9
    for given in inputs:
        rule = dict(given.kwargs)
        rate = rule.pop("lr", 1e-3)
        _hold_linear(item, rule, rate.numpy() if isinstance(rate, torch.Tensor) else rate, dtype)


# --- what PyTorch refuses


# Of PyTorch's optimizers, which take a list of tensors: there is none here, a parameter tree has each parameter once.
NOT_OURS = {
    "invalid param type",
    "a param group cannot have duplicate parameters",
    "duplicate parameters should not occur across param groups either",
    "all optimizer params should be with/without names",
    "all optimizer param groups should be with/without names.",
}


def test_what_the_optimizer_database_calls_an_error() -> None:
    refused = set()
    for case in SGD.optim_error_inputs_func("cpu", torch.float32):
        given = case.optimizer_error_input
        if given.desc in NOT_OURS:
            continue
        settings: dict[str, Any] = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in given.kwargs.items()
        }
        rate = settings.pop("lr", 1e-3)
        with pytest.raises(ValueError, match=r"learning_rate must be one number|momentum must be at least 0"):
            jaxreg.sgd(rate, **settings)
        refused.add(given.desc)
    assert refused == {"Tensor lr must be 1-element", "momentum should be between 0 and 1"}


def test_what_the_other_databases_call_an_error() -> None:
    count = 0
    for loss in LOSSES.values():
        database = OPERATORS[f"nn.functional.{loss}"]
        for case in database.error_inputs("cpu") if database.error_inputs_func else ():
            given = case.sample_input
            with pytest.raises(ValueError, match=r"must"):
                getattr(jaxreg, loss)(_numpy(given.input), _numpy(given.args[0]), **given.kwargs)
            count += 1
    for name in (*LOSSES, "Linear"):
        info = MODULES[name]
        cases = info.module_error_inputs_func
        for case in cases(info, "cpu", torch.float32, False, True) if cases else ():
            settings = case.module_error_input.constructor_input.kwargs
            with pytest.raises(ValueError, match=r"must"):
                getattr(jaxreg, LOSSES[name])(jnp.ones(2), jnp.ones(2), **settings)
            count += 1
    assert OPERATORS["nn.functional.linear"].error_inputs_func is None
    assert count == 2 + 3 + 1
