"""The float64 run of a port and of its program is the recorded training, and no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from jax.nn import softplus
from jax.numpy import finfo

import jaxreg
import parity

F = torch.nn.functional


class OwnEpsilon(torch.nn.Module):
    """A layer whose epsilon is the dtype's own, written out by a user."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return torch.log(torch.sigmoid(self.linear(x)) + torch.finfo(x.dtype).eps)


def program(layer: Callable[[], torch.nn.Module]) -> Callable[[], None]:
    def run() -> None:
        torch.manual_seed(0)
        model = layer()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = torch.randn(8, 4), torch.randn(8, 4)
        for _ in range(2):
            loss = F.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def rms(epsilon: Any) -> Any:
    def apply(params: Any, x: Any) -> Any:
        own = jnp.finfo(x.dtype).eps if epsilon is None else epsilon
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + own) * params["weight"]

    return apply


def own_epsilon(params: Any, x: Any) -> Any:
    made = jax.nn.sigmoid(x @ params["linear.weight"].T + params["linear.bias"])
    return jnp.log(made + 1.1920929e-07)


def hard_sigmoid(params: Any, x: Any) -> Any:
    return jax.nn.hard_sigmoid(x @ params["0.weight"].T + params["0.bias"])


def linear(params: Any, x: Any) -> Any:
    return 100 * (x @ params["0.weight"].T + params["0.bias"])


class Hundredfold(torch.nn.Linear):
    """So large that softplus is the identity for some, and so far below zero that it is nothing for others."""

    def forward(self, x: Any) -> Any:
        return 100 * super().forward(x)


def softplus_layer(**settings: Any) -> Callable[[], torch.nn.Module]:
    return lambda: torch.nn.Sequential(Hundredfold(4, 4), torch.nn.Softplus(**settings))


def after_a_layer(activation: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda params, x: activation(linear(params, x))


@dataclasses.dataclass(frozen=True)
class Kept:
    activation: Callable[[Any], Any]


ACTIVATIONS, KEPT = [jax.nn.softplus], Kept(jax.nn.softplus)

HONEST = {
    "softplus": (softplus_layer(), lambda params, x: jax.nn.softplus(linear(params, x))),
    "softplus, imported by name": (softplus_layer(), lambda params, x: softplus(linear(params, x))),
    "softplus, its threshold written out": (
        softplus_layer(),
        lambda params, x: jnp.where(
            linear(params, x) > 20, linear(params, x), jax.nn.softplus(jnp.minimum(linear(params, x), 20))
        ),
    ),
    "softplus, a larger threshold and another beta": (
        softplus_layer(beta=2.0, threshold=50),
        lambda params, x: jax.nn.softplus(2 * linear(params, x)) / 2,
    ),
    "softplus, held by a function": (softplus_layer(), after_a_layer(jax.nn.softplus)),
    "softplus, held by a list": (softplus_layer(), lambda params, x: ACTIVATIONS[0](linear(params, x))),
    "softplus, held by an object": (softplus_layer(), lambda params, x: KEPT.activation(linear(params, x))),
    "finfo, imported by name": (
        OwnEpsilon,
        lambda params, x: jnp.log(
            jax.nn.sigmoid(x @ params["linear.weight"].T + params["linear.bias"]) + finfo(x.dtype).eps
        ),
    ),
    "RMSNorm, finfo": (lambda: torch.nn.RMSNorm(4), rms(None)),
    "RMSNorm, a number": (lambda: torch.nn.RMSNorm(4), rms(1.1920929e-07)),
    "an epsilon of one's own": (OwnEpsilon, own_epsilon),
    "hard sigmoid": (lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Hardsigmoid()), hard_sigmoid),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", HONEST)
@jax.numpy_rank_promotion("allow")  # ports are written as people write them
def test_the_constants_are_the_recorded_dtypes_own(name: str) -> None:
    layer, apply = HONEST[name]

    def port(recording: parity.Recording) -> parity.Port:
        return parity.Port(dict(recording.initial), apply, lambda a, b: jnp.mean((a - b) ** 2), optax.sgd(0.1))

    functions = torch.finfo, jnp.finfo, np.finfo, jax.nn.softplus, nnx.softplus, finfo, softplus
    verdict = parity.check(parity.record(program(layer)), port)
    assert verdict.ok, verdict.explanation
    assert [*ACTIVATIONS, KEPT.activation] == 2 * [softplus]
    assert functions == (torch.finfo, jnp.finfo, np.finfo, jax.nn.softplus, nnx.softplus, finfo, softplus)


@pytest.mark.thorough
def test_an_activation_that_a_module_keeps_has_the_threshold() -> None:
    class Net(nnx.Module):
        def __init__(self, recording: parity.Recording) -> None:
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.linear.kernel[...] = jnp.asarray(recording.initial["0.weight"].T)
            self.linear.bias[...] = jnp.asarray(recording.initial["0.bias"])
            self.activation = nnx.softplus

        def __call__(self, x: jax.Array) -> jax.Array:
            made: jax.Array = self.activation(100 * self.linear(x))
            return made

    def port(recording: parity.Recording) -> parity.Port:
        names = {"0.weight": "linear.kernel.T", "0.bias": "linear.bias"}
        return parity.Port.from_nnx(Net(recording), jaxreg.mse_loss, optax.sgd(0.1), names=names)

    verdict = parity.check(parity.record(program(softplus_layer())), port)
    assert verdict.ok, verdict.explanation


@pytest.mark.thorough
@jax.numpy_rank_promotion("allow")
def test_a_lower_threshold_of_softplus_is_another_function() -> None:
    def port(recording: parity.Recording) -> parity.Port:
        apply = HONEST["softplus"][1]
        return parity.Port(dict(recording.initial), apply, lambda a, b: jnp.mean((a - b) ** 2), optax.sgd(0.1))

    verdict = parity.check(parity.record(program(softplus_layer(threshold=5))), port)
    first = verdict.first_divergence
    assert first is not None
    assert first.stage == "forward"


@pytest.mark.thorough
def test_no_dropout_reaches_the_ports_dropout() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

        def __call__(self, x: Any) -> Any:
            return self.drop(self.linear(x))

    def port(recording: parity.Recording) -> parity.Port:
        net = Net()
        net.linear.kernel[...] = jnp.asarray(recording.initial["0.weight"].T)
        net.linear.bias[...] = jnp.asarray(recording.initial["0.bias"])
        names = {"0.weight": "linear.kernel.T", "0.bias": "linear.bias"}
        return parity.Port.from_nnx(net, lambda a, b: jnp.mean((a - b) ** 2), optax.sgd(0.1), names)

    dropping = program(lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)))
    verdict = parity.check(dropping, port, dropout=False)
    assert verdict.ok, verdict.explanation


def test_a_port_that_raises_is_told_with_its_line() -> None:
    def port(recording: parity.Recording) -> parity.Port:
        def apply(params: Any, x: Any) -> Any:
            rows, columns, depth = x.shape
            return x[:rows, :columns, :depth]

        return parity.Port(dict(recording.initial), apply, lambda a, b: jnp.mean((a - b) ** 2), optax.sgd(0.1))

    with pytest.raises(
        parity.PortError, match=r"test_float64_constants\.py, line \d+ \(rows, columns, depth = x\.shape\): Val"
    ):
        parity.check(program(lambda: torch.nn.Linear(4, 4)), port)
