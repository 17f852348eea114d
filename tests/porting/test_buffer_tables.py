"""A table that a port works out is PyTorch's, if rounding alone can tell the two apart; and no other is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from parity.porting.buffer_tables import with_tables

WIDTH, LONGEST, USED = 8, 40, 5


class Positions(torch.nn.Module):
    """A layer between two others that adds the sinusoidal encoding of positions, as most write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 2)
        at = torch.arange(float(LONGEST))[:, None]
        rates = torch.exp(torch.arange(0, WIDTH, 2).float() * (-math.log(10000.0) / WIDTH))
        table = torch.zeros(1, LONGEST, WIDTH)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(at * rates), torch.cos(at * rates)
        self.table: torch.Tensor
        self.register_buffer("table", table)

    def forward(self, x: Any) -> Any:
        return self.last(self.first(x) + self.table[:, : x.shape[1]])


def program() -> None:
    torch.manual_seed(0)
    model = Positions()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(3, USED, WIDTH), torch.randn(3, USED, 2)
    for _ in range(2):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def encoding(length: int, dtype: Any, base: float = 10000.0) -> Any:
    at = jnp.arange(length, dtype=dtype)[:, None]
    rates = jnp.exp(jnp.arange(0, WIDTH, 2, dtype=dtype) * (-math.log(base) / WIDTH))
    return jnp.zeros((length, WIDTH), dtype).at[:, 0::2].set(jnp.sin(at * rates)).at[:, 1::2].set(jnp.cos(at * rates))


with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    MADE_BEFORE = np.asarray(encoding(LONGEST, jnp.float32))


def port(table: Callable[[Any], Any]) -> Callable[[parity.Recording], parity.Port]:
    def apply(params: Any, x: Any) -> Any:
        hidden = x @ params["first.weight"].T + params["first.bias"] + table(x)
        return hidden @ params["last.weight"].T + params["last.bias"]

    def build(recording: parity.Recording) -> parity.Port:
        return parity.Port(dict(recording.initial), apply, lambda a, b: jnp.mean((a - b) ** 2), optax.sgd(0.1))

    return build


@pytest.mark.parametrize(
    ("table", "holds"),
    [
        (lambda x: encoding(x.shape[1], x.dtype), True),
        (lambda x: MADE_BEFORE[:USED], True),
        (lambda x: jax.jit(encoding, static_argnums=(0, 1))(LONGEST, x.dtype)[: x.shape[1]], True),
        (lambda x: encoding(x.shape[1], x.dtype, 10001.0), False),
        (lambda x: encoding(x.shape[1] + 1, x.dtype)[1:], False),
    ],
    ids=["in apply", "made before", "compiled", "another base", "a position late"],
)
@jax.numpy_rank_promotion("allow")  # ports are written as people write them
@jax.numpy_dtype_promotion("standard")
def test_positions_that_the_port_works_out(table: Callable[[Any], Any], holds: bool) -> None:
    verdict = parity.check(parity.record(program), port(table))
    assert verdict.ok is holds, verdict.explanation


@given(st.integers(2, 30), st.floats(0.01, 3.0), st.floats(-7, -1), st.integers(0, 29))
@settings(max_examples=40)
def test_a_table_is_taken_within_rounding_alone(count: int, step: float, size: float, place: int) -> None:
    own = np.exp(step * np.arange(count) / 10).astype(np.float32)
    off = own.copy()
    off[place % count] *= np.float32(1 + 10**size)
    x = jnp.zeros(count, jnp.float32)

    def function(x: Any) -> Any:
        return x + jnp.exp(step * jnp.arange(count, dtype=x.dtype) / 10)

    with jax.enable_x64(True):
        wide = x.astype(np.float64)
        taken = [np.asarray(with_tables(function, {"t": table}, own.dtype)(wide)) for table in (own, off)]
        plain = np.asarray(function(wide))
    np.testing.assert_allclose(taken[0], own.astype(np.float64), rtol=1e-15)
    # The bound of these few operations is some tens of units.
    if 10**size > 1e-4:
        np.testing.assert_array_equal(taken[1], plain)
    # In the recorded dtype nothing is changed.
    assert with_tables(function, {"t": off}, own.dtype)(x).dtype == np.float32
    np.testing.assert_array_equal(with_tables(function, {"t": off}, own.dtype)(x), function(x))
