"""Coarse products are named and told apart, whatever their length; honest float32 never is."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import parity
from parity import Port, Recording
from parity.causes import find
from parity.judging.cause import Cause
from parity.judging.finding import Finding
from parity.replay.replay import replay
from parity.replay.session import Session
from tests.helpers.strategies import Training
from tests.helpers.torch_programs import regression


@dataclasses.dataclass(frozen=True)
class Slow(Training):
    """A training at a rate that needs no eigenvalue of its data."""

    def learning_rate(self) -> float:
        return 1e-9


def recorded(rows: int, inputs: int) -> Recording:
    return parity.record(regression(Slow(rows, inputs, 2, 1.0, 1.0, 3, 2, 0.1, True)))


def _coarse(port: Port, bits: int) -> Port:
    """Operands of the forward product and of both backward ones are rounded, in float32 alone."""

    def rounded(x: Any) -> Any:
        return jax.lax.reduce_precision(x, 8, bits)

    @jax.custom_vjp
    def product(x: Any, w: Any) -> Any:
        return rounded(x) @ rounded(w)

    def backward(kept: Any, cotangent: Any) -> Any:
        x, w = kept
        return rounded(cotangent) @ rounded(w).T, rounded(x).T @ rounded(cotangent)

    product.defvjp(lambda x, w: (product(x, w), (x, w)), backward)

    def apply(params: Any, inputs: Any) -> Any:
        if inputs.dtype == jnp.float64:
            return port.apply(params, inputs)
        return product(inputs, params["kernel"]) + params["bias"][None]

    return dataclasses.replace(port, apply=apply)


def _causes(recording: Recording, port: Port) -> tuple[Cause, ...]:
    """With bounds so loose that everything holds: what is coarse is to be seen without them."""
    session = Session.of(port, recording)
    replayed = replay(session)
    findings: tuple[Finding, ...] = ()
    return find(session, replayed, None, findings)  # type: ignore[arg-type]


@pytest.mark.cases(4)
@pytest.mark.parametrize(("bits", "name"), [(10, "TF32 products"), (7, "bfloat16 products")])
@pytest.mark.parametrize(("rows", "inputs"), [(16, 3), (8, 16), (1000, 3), (8, 1000), (100_000, 2), (4, 100_000)])
def test_coarse_products_are_named(bits: int, name: str, rows: int, inputs: int) -> None:
    recording = recorded(rows, inputs)
    [cause] = _causes(recording, _coarse(parity.port(recording), bits))
    assert cause.name == name
    assert not cause.alternatives
    assert "highest" in cause.fix


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "name"), [(10, "TF32 products"), (7, "bfloat16 products")])
@pytest.mark.parametrize(("rows", "inputs"), [(1_000_000, 1), (2, 1_000_000)])
def test_products_of_a_million_terms(bits: int, name: str, rows: int, inputs: int) -> None:
    recording = recorded(rows, inputs)
    assert [cause.name for cause in _causes(recording, _coarse(parity.port(recording), bits))] == [name]


@pytest.mark.cases(2)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (2, 1), (16, 3), (1000, 3), (100_000, 2), (4, 100_000)])
def test_honest_products_never_are(rows: int, inputs: int) -> None:
    recording = recorded(rows, inputs)
    assert _causes(recording, parity.port(recording)) == ()
