"""What relative figures are relative to: the tensor's largest element over all steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import parity
from parity.judging import comparisons, judge, scales
from parity.judging.comparisons import Comparison
from parity.judging.finding import Finding
from parity.judging.scales import spacing

EPS = float(np.finfo(np.float64).eps)


def case(torch64: Any, jax64: Any, bound64: float, **changes: Any) -> Comparison:
    """A gradient of so many steps, in float64 on both sides and rounded once in float32."""
    exact, own = np.array(torch64, np.float64), np.array(jax64, np.float64)
    wide = np.full(exact.shape, 1e-6)
    arrays: dict[str, Any] = {
        "torch": exact.astype(np.float32),
        "jax": own.astype(np.float32),
        "torch64": exact,
        "jax64": own,
        "torch_bound": wide,
        "jax_bound": wide,
        "bound64": np.full(exact.shape, bound64),
        "steps": np.arange(len(exact)),
        **changes,
    }
    return Comparison("gradient", "bias", **arrays)


def found(given: Comparison) -> Finding:
    return judge._compare(given, np.zeros(0))


def test_a_tensor_within_float64s_rounding_of_zero_has_nothing_relative() -> None:
    finding = found(case([[1e-17, -3e-17]], [[-2e-17, 1e-18]], 1e-16))
    assert finding.holds
    assert finding.zero
    assert (finding.ulps, finding.float64_difference, finding.float64_bound, finding.jax_error) == (None,) * 4
    assert finding.difference == pytest.approx(3.1e-17, rel=1e-6)


def test_one_number_beyond_rounding_is_enough_to_be_relative_to() -> None:
    finding = found(case([[1e-17, 2.0]], [[-2e-17, 2.0 + 4 * EPS]], 1e-14))
    assert not finding.zero
    assert finding.float64_difference == 2 * EPS
    assert finding.float64_bound == 5e-15


def test_a_converged_tensor_is_relative_to_its_largest_step() -> None:
    finding = found(case([[1.0], [1e-12]], [[1.0], [1.1e-12]], 1e-15, jax=np.array([[1.0], [2e-7]], np.float32)))
    assert finding.float64_difference == pytest.approx(1e-13)
    # 2e-7 is 8e11 times the spacing of numbers near 1e-12, and 1.7 times that of numbers near 1.
    assert finding.ulps == pytest.approx(2e-7 / spacing(1.0, np.dtype(np.float32)), rel=1e-4)


@pytest.mark.parametrize("bound64", [np.inf, 0.0])
def test_without_a_bound_or_with_none_only_zero_itself_is_zero(bound64: float) -> None:
    assert not found(case([[1e-17]], [[1e-17]], bound64)).zero
    assert found(case([[0.0]], [[0.0]], bound64)).zero


def test_what_is_not_finite_is_not_zero_and_its_distance_is_not_nothing() -> None:
    nowhere = found(case([[np.nan]], [[np.nan]], 0.0))
    assert not nowhere.zero
    assert nowhere.float64_difference is None
    one_side = found(case([[1.0]], [[1.0]], 1e-15, jax=np.array([[np.nan]], np.float32)))
    assert one_side.difference == np.inf
    assert one_side.jax_error == np.inf


def test_what_is_zero_on_one_side_alone_is_not_zero() -> None:
    finding = found(case([[1e-17]], [[0.3]], 1e-16))
    assert not finding.holds
    assert not finding.zero
    assert finding.float64_difference is None
    assert "a factor of" not in finding.message


def test_the_last_of_many_steps_is_relative_to_them_all() -> None:
    wide = np.array([[1e-15], [10.0]])
    whole = dataclasses.replace(case([[0.5], [0.25]], [[0.5], [0.26]], 0.0), bound64=wide)
    finding = found(comparisons._last(whole))
    assert not finding.zero
    assert finding.float64_difference == pytest.approx(0.02)


@pytest.mark.parametrize(("bound", "known"), [(1e-6, False), (1e-13, True), (np.inf, True)])
def test_a_run_without_a_digit_has_no_relative_error(bound: float, known: bool) -> None:
    """A training that starts where it converges: float64 has its gradient, and float32 has nothing of it."""
    own = np.array([[3e-8]], np.float32)
    limits = {name: np.array([[bound]]) for name in ("torch_bound", "jax_bound")}
    finding = found(case([[1e-12]], [[1e-12]], 1e-20, torch=-own, jax=own, **limits))
    assert finding.float64_difference == 0
    assert (finding.ulps is not None, finding.jax_error is not None) == (known, known)


def test_a_wide_bound_hides_no_figure_of_an_accurate_run() -> None:
    limits = {name: np.array([[50.0]]) for name in ("torch_bound", "jax_bound")}
    finding = found(case([[1.0]], [[1.0]], 1e-15, jax=np.array([[1.0 + 2**-23]], np.float32), **limits))
    assert (finding.ulps, finding.unbounded) == (1.0, 1.0)


def test_a_tensor_that_is_zero_to_rounding_lacks_no_bound() -> None:
    assert found(case([[1e-17]], [[-1e-17]], 1e-16)).unbounded == 0


def test_a_factor_is_told_to_the_digits_that_make_it_one() -> None:
    assert "a factor of 1.0000012." in found(case([[1.0]], [[1.0000012]], 1e-15)).message


def test_initial_weights_that_are_not_finite_do_not_differ_by_nothing() -> None:
    gap = comparisons._mismatch(
        "initial weights", "w", 0, np.ones(2, np.float32), np.array([1.0, np.nan]), "{name} by {gap:.3g}"
    )
    assert gap.message == "w by inf"


@given(st.floats(2.0**-149, 2.0**126, width=32))
def test_a_spacing_is_that_of_the_numbers_there(size: float) -> None:
    assert spacing(size, np.dtype(np.float32)) == float(np.spacing(np.float32(size)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_numbers_have_a_spacing_too(dtype: type) -> None:
    info = np.finfo(dtype)
    wanted = float(info.max) - float(np.nextafter(info.max, dtype(0)))
    assert spacing(float(info.max), np.dtype(dtype)) == spacing(np.inf, np.dtype(dtype)) == wanted


@given(exact=arrays(np.float64, (3, 2), elements=st.floats(-1e3, 1e3)), bound=st.floats(1e-18, 1e-3))
def test_a_size_is_never_smaller_than_the_bound_that_it_is_told_from(exact: np.ndarray[Any, Any], bound: float) -> None:
    size = scales.size(exact, np.full(exact.shape, bound))
    assert (size is None) == (np.abs(exact).max() <= bound + scales.UNDERFLOW)
    assert size is None or size == np.abs(exact).max()


def bias_before_batch_norm() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 2)
    for _ in range(3):
        loss = torch.nn.functional.mse_loss(model(x), x[:, :1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item())


def port(recording: parity.Recording) -> parity.Port:
    def apply(params: Any, state: Any, x: Any) -> Any:
        hidden = x @ params["0.weight"].T + params["0.bias"]
        mean, variance = hidden.mean(0), hidden.var(0)
        scaled = (hidden - mean) / jnp.sqrt(variance + 1e-5) * params["1.weight"] + params["1.bias"]
        rows = len(x)
        new = {
            "1.running_mean": 0.9 * state["1.running_mean"] + 0.1 * mean,
            "1.running_var": 0.9 * state["1.running_var"] + 0.1 * variance * rows / (rows - 1),
        }
        return scaled @ params["2.weight"].T + params["2.bias"], new

    def loss(made: Any, wanted: Any) -> Any:
        return jnp.mean((made - wanted) ** 2)

    return parity.Port(dict(recording.initial), apply, loss, optax.sgd(0.1), state=dict(recording.initial_buffers))


@pytest.mark.thorough
@jax.numpy_rank_promotion("allow")  # the port is written as people write them
def test_a_bias_before_a_batch_norm_is_zero_in_every_view() -> None:
    verdict = parity.check(parity.record(bias_before_batch_norm), port)
    assert verdict.ok, str(verdict)
    rows = {(finding.stage, finding.tensor): finding for finding in verdict.findings}
    assert rows["gradient", "0.bias"].zero
    assert not rows["gradient", "0.weight"].zero
    claimed = max(f.float64_difference or 0.0 for f in verdict.findings)
    assert claimed < 1e-9
    told = " ".join(verdict.sentences)
    assert "nothing is relative to it: gradient, 0.bias; trajectory, 0.bias.grad." in told
    for view in (str(verdict), verdict.to_markdown(), verdict._repr_html_()):
        assert "zero" in view.lower()
    matrix = parity.matrix(verdict.recording, port, precisions=["highest"])
    assert all((stage.relative_error or 0.0) < 1e-5 for stage in matrix.cells[0].stages)
