"""The table of PyTorch's functions in JAX, against PyTorch's own database of operations and samples."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import parity
from parity._errors import UnsupportedError
from parity.porting.torch_functions import FUNCTIONS
from tests.helpers.operation_graphs import differences, followed
from tests.helpers.untranslated import UNTRANSLATED

SAMPLES = 4
# Both sides compute in float64, in another order and with other approximations of special functions.
RELATIVE, ABSOLUTE = 1e-7, 1e-9


def _name(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name)


def _mixed(name: Any) -> tuple[int, str]:
    """An order that mixes the kinds, the same in every run."""
    return sum((k + 1) * ord(letter) for k, letter in enumerate(name)) % 1009, name


# Those that have a gradient in float64, which NumPy has.
DIFFERENTIABLE: dict[str, Any] = {
    _name(op): op for op in op_db if op.supports_autograd and torch.float64 in op.supported_backward_dtypes("cpu")
}


@pytest.mark.cases(60)
@pytest.mark.parametrize("name", sorted((name for name in DIFFERENTIABLE if name not in UNTRANSLATED), key=_mixed))
def test_results_and_gradients_are_pytorchs(name: str) -> None:
    op = DIFFERENTIABLE[name]
    torch.manual_seed(0)
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.simplefilter("ignore")
        samples = list(itertools.islice(op.sample_inputs("cpu", torch.float64, requires_grad=True), SAMPLES))
        for sample in samples:
            call = followed(op, sample.input, sample.args, sample.kwargs)
            for what, theirs, own in differences(call) if call else []:
                assert own.shape == theirs.shape, what
                np.testing.assert_allclose(own, theirs, RELATIVE, ABSOLUTE, err_msg=f"{what} of {sample}")


@pytest.mark.parametrize("name", ["nansum", "fmax", "fmin"])
def test_what_passes_over_nan_does_so(name: str) -> None:
    """PyTorch's own samples have none; and of equal numbers the gradient's way is told."""
    first = torch.tensor([1.0, math.nan, 3.0, 2.0], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([2.0, 1.0, math.nan, 2.0], dtype=torch.float64, requires_grad=True)
    given = () if name == "nansum" else (second,)
    with jax.enable_x64(True):
        call = followed(getattr(torch, name), first, given, {})
        assert call is not None
        for what, theirs, own in differences(call):
            np.testing.assert_array_equal(own, theirs, err_msg=what)


def test_most_of_what_has_a_gradient_is_translated() -> None:
    assert DIFFERENTIABLE.keys() >= UNTRANSLATED
    assert 1 - len(UNTRANSLATED) / len(DIFFERENTIABLE) >= 0.75


def test_a_function_can_be_given() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            torch.special.erfcx(model(torch.ones(3, 2))).mean().backward()
            optimizer.step()

    recording = parity.record(program)
    with pytest.raises(UnsupportedError, match=r"calls torch's special_erfcx, .* parity\.register"):
        parity.port(recording)
    parity.register(torch.special.erfcx, lambda x: jax.numpy.exp(x * x) * jax.scipy.special.erfc(x))
    try:
        assert parity.port(recording).params.keys() == {"weight", "bias"}
    finally:
        FUNCTIONS.pop("special_erfcx")


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(parity.PortError, match="or its name, and a function of JAX, got str and int"):
        parity.register("mul", 3)  # type: ignore[arg-type]
