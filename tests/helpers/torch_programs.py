"""PyTorch programs for the tests, as callables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.helpers.strategies import Training


def regression(
    training: Training,
    *,
    reduction: str = "mean",
    optimizer: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Callable[[], None]:
    """A training loop for ``training``, in the order of PyTorch's tutorials."""
    options = {"lr": training.learning_rate(), **(optimizer or {})}

    def program() -> None:
        torch.manual_seed(training.seed)
        x, y = (torch.from_numpy(array) for array in training.data())
        model = torch.nn.Linear(training.inputs, training.outputs, bias=training.bias)
        if dtype is not None:
            model, x, y = model.to(dtype), x.to(dtype), y.to(dtype)
        loss_fn = torch.nn.MSELoss(reduction=reduction)
        sgd = torch.optim.SGD(model.parameters(), **options)
        for _ in range(training.steps):
            loss = loss_fn(model(x), y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()

    return program


def small(steps: int = 12, **changes: Any) -> Training:
    """A well-behaved training: 40 rows, 3 inputs, 2 outputs."""
    given: dict[str, Any] = {
        "rows": 40,
        "inputs": 3,
        "outputs": 2,
        "input_scale": 1.0,
        "target_scale": 1.0,
        "seed": 1,
        "steps": steps,
        "rate_share": 0.1,
        "bias": True,
    }
    return Training(**(given | changes))


def minibatches(rows: int = 50, size: int = 16, epochs: int = 3, momentum: float = 0.0) -> Callable[[], None]:
    """Shuffled batches with a smaller last one, and a learning rate that falls."""

    def program() -> None:
        torch.manual_seed(0)
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32))
        y = x @ torch.ones(3, 1)
        model, loss_fn = torch.nn.Linear(3, 1), torch.nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        data = torch.utils.data.TensorDataset(x, y)
        for _ in range(epochs):
            for inputs, targets in torch.utils.data.DataLoader(data, batch_size=size, shuffle=True):
                optimizer.zero_grad()
                loss_fn(model(inputs), targets).backward()
                optimizer.step()
            scheduler.step()

    return program
