"""PyTorch's optimizers as Optax transformations, against PyTorch's own database of settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

from parity._errors import UnsupportedError
from parity.capture.observed_run import plain
from parity.optimizers.rule import PORTED_KINDS
from parity.porting import torch_optimizer

STEPS = 20
# Both sides compute in float64; what a step rounds, the next ones carry on.
RELATIVE = 1e-11
INPUTS = [
    (info.optim_cls, given.kwargs, f"{info.optim_cls.__name__}-{given.desc}")
    for info in optim_db
    if info.optim_cls.__name__ in PORTED_KINDS
    for given in info.optim_inputs_func("cpu")
    if not isinstance(given.kwargs.get("lr"), torch.Tensor)
    and not any(isinstance(beta, torch.Tensor) for beta in given.kwargs.get("betas", ()))
    and not given.kwargs.get("differentiable")
]


def _recording(optimizer: Any, name: str, steps: int) -> Any:
    group = optimizer.param_groups[0]
    kind = type(optimizer)
    return SimpleNamespace(
        optimizer=SimpleNamespace(type=f"{kind.__module__}.{kind.__qualname__}"),
        rules={name: plain(group)},
        learning_rates={name: np.full(steps, group["lr"])},
        clipping={},
        environment={},
    )


@pytest.mark.parametrize(("kind", "options"), [one[:2] for one in INPUTS], ids=[one[2] for one in INPUTS])
def test_twenty_steps_are_pytorchs(kind: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((3, 2)), rng.standard_normal((STEPS, 3, 2))
    leaf = torch.tensor(start, requires_grad=True)
    optimizer = kind([leaf], **options)
    with jax.enable_x64(True):
        own = torch_optimizer.of(_recording(optimizer, "w", STEPS))
        params = {"w": jnp.asarray(start)}
        state = own.init(params)
        for gradient in gradients:
            leaf.grad = torch.tensor(gradient)
            optimizer.step()
            updates, state = own.update({"w": jnp.asarray(gradient)}, state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(params["w"], leaf.detach().numpy(), RELATIVE, RELATIVE)
    for field in state.kept.values():
        held = [value.numpy() for value in optimizer.state[leaf].values() if value is not None and value.ndim]
        assert any(np.allclose(field["w"], value, RELATIVE, RELATIVE) for value in held)


def test_another_one_is_named() -> None:
    optimizer = torch.optim.NAdam([torch.zeros(1, requires_grad=True)])
    with pytest.raises(UnsupportedError, match=r"is a torch\.optim\.nadam\.NAdam, .* it ports SGD, Adam,"):
        torch_optimizer.of(_recording(optimizer, "w", 1))
