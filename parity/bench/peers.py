"""The ways to train that are timed beside each other, each the best that its library's user would write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxreg
from parity.bench.workloads import Array, Data, Workload

Params = dict[str, jax.Array]
Train = Callable[[], Array]


class Peer(NamedTuple):
    """A way to train.

    Attributes:
        name: what it is called in tables.
        prepare: brings the data to where they are worked on, and gives what trains on them: called without arguments,
            it comes back when the user has the result: the model, where its library has one, can be called, and weights
            and bias are arrays on the host, returned as one array, a row a training.
        unfit: why it cannot serve a workload; empty where it can.
        trains: what it trains of a workload, where that is not all of it.
    """

    name: str
    prepare: Callable[[Workload, Data, Any], Train]
    unfit: Callable[[Workload, Any], str] = lambda workload, device: ""
    trains: Callable[[Workload], Workload] = lambda workload: workload


def _one(workload: Workload, device: jax.Device) -> str:
    return "one training at a time" if workload.settings or workload.groups else ""


def _whole(workload: Workload, device: jax.Device) -> str:
    return _one(workload, device) or ("the whole batch only" if workload.batch else "")


# -- NumPy and scikit-learn


def _numpy(workload: Workload, data: Data, device: jax.Device) -> Train:
    x, y, rate = data.x, data.y, np.float32(workload.learning_rate)
    scale = np.float32(2 / len(x))

    def train() -> Array:
        w, b = data.weight.T.copy(), data.bias.copy()
        for _ in range(workload.epochs):
            residual = x @ w + b - y
            w -= rate * scale * (x.T @ residual)
            b -= rate * scale * residual.sum(0)
        return np.append(w, b)

    return train


# -- JAX without jaxreg


def _on(device: jax.Device, *arrays: Array) -> list[jax.Array]:
    return [jax.device_put(array, device) for array in arrays]


def _loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def _optax_step(optimizer: optax.GradientTransformation) -> Callable[..., tuple[Params, optax.OptState]]:
    def step(params: Params, state: optax.OptState, x: jax.Array, y: jax.Array) -> tuple[Params, optax.OptState]:
        updates, state = optimizer.update(jax.grad(_loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    return step


def _optax(workload: Workload, data: Data, device: jax.Device) -> Train:
    optimizer = optax.sgd(workload.learning_rate)
    x, y, w, b = _on(device, data.x, data.y, data.weight.T, data.bias)
    step = jax.jit(_optax_step(optimizer))

    def train() -> Array:
        params = {"w": w, "b": b}
        state = optimizer.init(params)
        for _ in range(workload.epochs):
            params, state = step(params, state, x, y)
        return np.append(params["w"], params["b"])

    return train


def _scan(workload: Workload, data: Data, device: jax.Device) -> Train:
    optimizer = optax.sgd(workload.learning_rate)
    x, y, w, b = _on(device, data.x, data.y, data.weight.T, data.bias)
    step = _optax_step(optimizer)

    @jax.jit
    def run(params: Params, x: jax.Array, y: jax.Array) -> Params:
        first = (params, optimizer.init(params))
        return jax.lax.scan(lambda carry, _: (step(*carry, x, y), None), first, length=workload.epochs)[0][0]

    def train() -> Array:
        params = run({"w": w, "b": b}, x, y)
        return np.append(params["w"], params["b"])

    return train


def _vmapped(workload: Workload, data: Data, device: jax.Device) -> Train:
    x, y, w, b, rates = _on(device, data.x, data.y, data.weight.T, data.bias, workload.rates.astype(np.float32))
    data_axis, rate_axis = (0, None) if workload.groups else (None, 0)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(data_axis, data_axis, rate_axis))
    def run(x: jax.Array, y: jax.Array, rate: jax.Array) -> Params:
        def step(params: Params, _: None) -> tuple[Params, None]:
            gradient = jax.grad(_loss)(params, x, y)
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient), None

        return jax.lax.scan(step, {"w": w, "b": b}, length=workload.epochs)[0]

    def train() -> Array:
        params = run(x, y, rates if workload.settings else rates[0])
        return np.concatenate([np.asarray(params["w"])[:, :, 0], np.asarray(params["b"])], 1)

    return train


def _flax(workload: Workload, data: Data, device: jax.Device) -> Train:
    x, y = _on(device, data.x, data.y)
    start = _model(data)

    @nnx.jit  # type: ignore[untyped-decorator]
    def step(model: jaxreg.Linear, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
        gradients = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
        optimizer.update(model, gradients)

    def train() -> Array:
        model = nnx.clone(start)
        optimizer = nnx.Optimizer(model, optax.sgd(workload.learning_rate), wrt=nnx.Param)
        for _ in range(workload.epochs):
            step(model, optimizer, x, y)
        return np.append(model.kernel.get_value(), model.bias.get_value())

    return train


# -- jaxreg


def _model(data: Data) -> jaxreg.Linear:
    model = jaxreg.Linear(data.weight.shape[1], 1, rngs=nnx.Rngs(0))
    model.kernel[...] = jnp.asarray(data.weight.T)
    model.bias[...] = jnp.asarray(data.bias)
    return model


def _jaxreg(workload: Workload, data: Data, device: jax.Device, plan: str = "auto") -> Train:
    x, y = _on(device, data.x, data.y)
    model, optimizer = _model(data), jaxreg.sgd(workload.learning_rate)
    train: Callable[[], Any]
    if workload.settings:
        settings = [{"learning_rate": float(rate)} for rate in workload.rates]
        train = functools.partial(jaxreg.sweep, model, x, y, settings=settings, epochs=workload.epochs, plan=plan)
    elif workload.groups:
        train = functools.partial(
            jaxreg.fit_groups, model, x, y, optimizer=optimizer, epochs=workload.epochs, plan=plan
        )
    else:
        batches: dict[str, Any] = {"batch_size": workload.batch} if workload.batch else {}
        train = functools.partial(
            jaxreg.fit, model, x, y, optimizer=optimizer, epochs=workload.epochs, plan=plan, **batches
        )

    def run() -> Array:
        return _on_host(train())

    return run


def _on_host(result: jaxreg.FitResult | jaxreg.SweepResult | jaxreg.GroupsResult) -> Array:
    """Make the trained model (of a sweep the best one, of groups the first one), and weights arrays on the host.

    Then a user has the result, the losses too.
    """
    jax.block_until_ready(result.losses)  # type: ignore[no-untyped-call]
    if isinstance(result, jaxreg.FitResult):
        model: Any = result.model
        return np.concatenate([model.kernel.get_value(), model.bias.get_value()], axis=None)
    if isinstance(result, jaxreg.SweepResult):
        result.model()
    else:
        result.model(result.labels[0])
    bias, kernel = map(np.asarray, jax.tree.leaves(result.params))
    return np.concatenate([kernel[:, :, 0], bias], 1)


def _many(workload: Workload, device: jax.Device) -> str:
    return "" if workload.settings or workload.groups else "for many trainings at once"


def _swept(workload: Workload, device: jax.Device) -> str:
    return "" if workload.settings else "for sweeps"


def _one_setting(workload: Workload) -> Workload:
    return dataclasses.replace(workload, settings=0)


def _not_spectral(workload: Workload, device: jax.Device) -> str:
    return "the whole batch only" if workload.batch else ""


OURS = (
    Peer("jaxreg", _jaxreg),
    Peer("jaxreg, stepwise", functools.partial(_jaxreg, plan="stepwise")),
    Peer("jaxreg, compressed", functools.partial(_jaxreg, plan="compressed")),
    Peer("jaxreg, spectral", functools.partial(_jaxreg, plan="spectral"), _not_spectral),
    Peer("jaxreg, one setting", lambda w, *rest: _jaxreg(_one_setting(w), *rest), _swept, _one_setting),
)
OTHERS = (
    Peer("NumPy loop", _numpy, _whole),
    Peer("Optax, jitted step", _optax, _whole),
    Peer("Flax, jitted step", _flax, _whole),
    Peer("lax.scan", _scan, _whole),
    Peer("lax.scan, vmapped", _vmapped, _many),
)
