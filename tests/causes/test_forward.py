"""Faults in loss, model, data and weights, each named."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
import parity
from parity import Port, Recording
from tests.helpers.judged import causes, only
from tests.helpers.torch_programs import regression, small


@functools.cache
def recorded(outputs: int = 3) -> Recording:
    return parity.record(regression(small(4, outputs=outputs)))


def _loss(loss: Callable[[Any, Any], Any]) -> Callable[[Port], Port]:
    return lambda port: dataclasses.replace(port, loss=loss)


def _apply(change: Callable[[Port, Any, Any], Any]) -> Callable[[Port], Port]:
    return lambda port: dataclasses.replace(port, apply=lambda params, inputs: change(port, params, inputs))


def _half_gradient(predictions: Any, targets: Any) -> Any:
    value = jaxreg.mse_loss(predictions, targets)
    return 0.5 * value + jax.lax.stop_gradient(0.5 * value)


def _dropped(port: Port, params: Any, inputs: Any) -> Any:
    made = port.apply(params, inputs)
    return jnp.where(jax.random.bernoulli(jax.random.key(0), 0.9, made.shape), made / 0.9, 0)


def _cut(port: Port, params: Any, inputs: Any) -> Any:
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return port.apply(narrow, inputs.astype(jnp.float32)).astype(inputs.dtype)


def _other_weights(port: Port) -> Port:
    return dataclasses.replace(port, params=jax.tree.map(lambda leaf: 2 * leaf, port.params))


def _stopped_row(port: Port, w: Any, x: Any) -> Any:
    """One use of a weight is stopped, of two; and what changes nothing is stopped too."""
    first = jax.lax.stop_gradient(w["kernel"][:1])
    shift = jax.lax.stop_gradient(jnp.max(x))
    return port.apply({**w, "kernel": jnp.concatenate([first, w["kernel"][1:]])}, x - shift + shift)


FAULTS: list[tuple[Callable[[Port], Port], str, str]] = [
    (_loss(lambda p, t: optax.l2_loss(p, t).mean()), "half loss", "jaxreg.mse_loss"),
    (_loss(_half_gradient), "half loss", "differentiate"),
    (_loss(lambda p, t: jaxreg.mse_loss(p, t, reduction="sum")), "sum for mean", "mean"),
    (_loss(lambda p, t: jnp.square(p - t).sum(-1).mean()), "mean over another axis", "axes"),
    (_loss(lambda p, t: jnp.square(p - t).mean(-1).sum()), "mean over another axis", "axes"),
    (_loss(lambda p, t: 0.7 * jaxreg.mse_loss(p, t)), "scaled loss", "1.428"),
    (_apply(lambda port, w, x: port.apply({**w, "kernel": w["kernel"].T}, x)), "transposed weight", "kernel.T"),
    (_apply(_dropped), "dropout left on", "eval"),
    (_apply(_cut), "float64 cut to float32", "astype"),
    (
        _apply(lambda port, w, x: port.apply({**w, "bias": jax.lax.stop_gradient(w["bias"])}, x)),
        "frozen parameter",
        "stop_gradient",
    ),
    (_apply(_stopped_row), "stop_gradient", "stop_gradient"),
    (_other_weights, "initial weights", "recording.initial"),
    (_loss(lambda p, t: jnp.where(p.sum() < 1e9, jnp.nan, 0.0) * jaxreg.mse_loss(p, t)), "not finite", "debug_nans"),
]


@pytest.mark.cases(2)
@pytest.mark.parametrize(("fault", "name", "fix"), FAULTS)
def test_faults_are_named(fault: Callable[[Port], Port], name: str, fix: str) -> None:
    found = causes(recorded(), fault(parity.port(recorded())))
    assert [cause.name for cause in found] == [name]
    assert fix in found[0].fix
    assert not found[0].alternatives


def test_broadcasting_is_named() -> None:
    recording = recorded(1)
    port = dataclasses.replace(parity.port(recording), loss=lambda p, t: jnp.mean((p - t[:, 0]) ** 2))
    assert only(recording, port).name == "broadcast loss"


def test_what_is_recorded_of_the_loss_tells_a_half_from_a_mean() -> None:
    """With two outputs, half of the loss is as much as a mean over them too much, which PyTorch's mean rules out."""
    recording = recorded(2)
    port = dataclasses.replace(parity.port(recording), loss=lambda p, t: optax.l2_loss(p, t).mean())
    assert only(recording, port).name == "half loss"


def test_an_unknown_fault_has_no_cause() -> None:
    port = parity.port(recorded())
    wrong = dataclasses.replace(port, apply=lambda params, inputs: jnp.sin(port.apply(params, inputs)))
    assert causes(recorded(), wrong) == ()


def test_a_square_weight_that_starts_transposed() -> None:
    port = parity.port(recorded())
    turned = {**port.params, "kernel": np.asarray(port.params["kernel"]).T}
    cause = only(recorded(), dataclasses.replace(port, params=turned))
    assert (cause.name, cause.stage) == ("transposed weight", "initial weights")
