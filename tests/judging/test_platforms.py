"""The matrix of platforms and precisions. A CPU multiplies in one way, so the port here rounds its operands itself."""

from __future__ import annotations

import json
import types
from importlib.resources import files
from typing import Any

import jax
import jax.numpy as jnp
import jsonschema
import pytest
from jax import lax

import parity
from parity import Matrix, Port, Recording
from parity.judging import platforms
from parity.replay import replay
from parity.replay.session import Session
from parity.report.render import numbers
from tests.helpers.torch_programs import regression, small

# Bits of the mantissa that products keep: TF32 has 10, bfloat16 has 7.
BITS = {"high": 10, "default": 7}


def _port(recording: Recording, rate: float = 1.0) -> Port:
    """A linear layer whose operands are rounded as the precision that is asked for says."""
    honest = parity.port(recording)

    def apply(params: Any, inputs: Any) -> Any:
        asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        kernel = params["kernel"]
        if bits := BITS.get(asked):
            inputs, kernel = (lax.reduce_precision(value, 8, bits) for value in (inputs, kernel))
        return inputs @ kernel + jnp.expand_dims(params["bias"], 0)

    def loss(predictions: Any, targets: Any) -> Any:
        return rate * jnp.mean((predictions - targets) ** 2)

    return Port(honest.params, apply, loss, honest.optimizer, honest.names)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return parity.record(regression(small(6)))


@pytest.fixture(scope="module")
def matrix(recording: Recording) -> Matrix:
    return parity.matrix(recording, _port, precisions=["highest", "high", "default", "TF32_TF32_F32"])


def test_each_precision_is_replayed_at_that_precision(matrix: Matrix) -> None:
    highest, high, default, _ = matrix.cells
    assert [cell.holds for cell in matrix.cells] == [True, False, False, False]
    for cell, bits in ((high, 10), (default, 7)):
        forward, loss, gradient, update = cell.stages
        assert [stage.stage for stage in cell.stages] == ["forward", "loss", "gradient", "update"]
        assert not forward.holds
        assert not gradient.holds
        assert (forward.bound_used or 0) > 1
        # Rounding to so many bits is off by half of the last one at most; a sum of three products by thrice that.
        assert 2.0 ** -(bits + 5) < (forward.relative_error or 0) < 2.0 ** -(bits - 1)
        assert (loss.relative_error or 0) > (highest.stages[1].relative_error or 0)
        # The optimizer is fed the recorded gradients: no product goes into it.
        assert update == highest.stages[3]
    assert all((stage.bound_used or 0) < 1 and (stage.relative_error or 0) < 1e-6 for stage in highest.stages)


def test_it_holds_where_it_does_at_the_highest(matrix: Matrix, recording: Recording) -> None:
    assert matrix.ok
    other = parity.matrix(recording, lambda recording: _port(recording, 1.001), precisions=["highest"])
    assert not other.ok
    assert [stage.holds for stage in other.cells[0].stages] == [True, False, False, True]


def test_a_precision_that_a_platform_has_not_is_said(matrix: Matrix) -> None:
    cell = matrix.cells[3]
    assert cell.stages == ()
    assert "The precision 'TF32_TF32_F32' is not supported by dot_general on CPU" in cell.failure


def test_it_is_shown_and_kept(matrix: Matrix, recording: Recording) -> None:
    shown = repr(matrix)
    rows = [line.split()[:4] for line in shown.splitlines() if line.startswith("cpu")]
    assert rows[0][:3] == ["cpu", "highest", "✓"]
    assert rows[1][:3] == ["cpu", "high", "✗"]
    assert rows[3] == ["cpu", "TF32_TF32_F32", "–", "–"]
    assert "is not supported by dot_general on CPU" in " ".join(shown.split())
    assert matrix._repr_html_().count("<tr>") == 5
    schema = json.loads(files("parity.report").joinpath("schema.json").read_text())
    part = schema["properties"]["programs"]["items"]["properties"]["matrix"]
    jsonschema.validate(numbers.encode(matrix.to_dict()), {**part, "$defs": schema["$defs"]})


def test_every_platform_there_has_a_row_for_each_precision(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    [here] = platforms.platforms()
    assert here.platform == "cpu"
    gpu = types.SimpleNamespace(platform="gpu", device_kind="one of ours")
    honest = replay.locked_run
    asked: list[tuple[str, str]] = []

    def locked(session: Session, *, device: Any, precision: str) -> Any:
        asked.append((device.platform, precision))
        return honest(session, device=here, precision="default" if device is gpu else precision)

    monkeypatch.setattr(platforms, "platforms", lambda: [here, gpu])
    monkeypatch.setattr(replay, "locked_run", locked)
    matrix = parity.matrix(recording, _port, precisions=["highest", "high"])
    assert asked == [("cpu", "highest"), ("cpu", "high"), ("gpu", "highest"), ("gpu", "high")]
    assert [cell.holds for cell in matrix.cells] == [True, False, False, False]
    assert not matrix.ok


def test_a_name_that_is_no_precision_is_refused(recording: Recording) -> None:
    with pytest.raises(parity.ParityError, match="takes, such as 'high', got 'tf23'"):
        parity.matrix(recording, precisions=["tf23"])
