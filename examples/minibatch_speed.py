"""One minibatch training three ways, in one run: a DataLoader loop, tensors by hand, jaxreg.fit. Needs PyTorch."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from flax import nnx
from torch.utils.data import DataLoader, TensorDataset

import jaxreg

ROWS, FEATURES, BATCH, EPOCHS, REPEATS = 10_000, 32, 64, 20, 3
RATE, MOMENTUM = 0.01, 0.9

random = np.random.default_rng(0)
inputs = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
targets = (inputs @ random.normal(size=(FEATURES, 1)) + random.normal(size=(ROWS, 1))).astype(np.float32)
x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
model = jaxreg.Linear(FEATURES, 1, rngs=nnx.Rngs(0))
start = {name: torch.from_numpy(values) for name, values in jaxreg.state_dict.export(model).items()}


def data_loader() -> float:
    net = torch.nn.Linear(FEATURES, 1)
    net.load_state_dict(start)
    optimizer, loss_fn = torch.optim.SGD(net.parameters(), RATE, MOMENTUM), torch.nn.MSELoss()
    order = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows, wanted in DataLoader(TensorDataset(x, y), BATCH, shuffle=True, generator=order):
            loss = loss_fn(net(rows), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.item()


@torch.no_grad()
def by_hand() -> float:
    """Gradients written out, no autograd, no DataLoader; an order of its own, since none is to be matched."""
    weight, bias = start["weight"].T.clone(), start["bias"].clone()
    pull_weight, pull_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    order = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(ROWS, generator=order).split(BATCH):  # type: ignore[no-untyped-call]
            part = x[rows]
            error = torch.addmm(bias, part, weight).sub_(y[rows])
            loss = error.square().mean()
            error.mul_(2 / len(rows))
            pull_weight.mul_(MOMENTUM).addmm_(part.T, error)
            pull_bias.mul_(MOMENTUM).add_(error.sum(0))
            weight.add_(pull_weight, alpha=-RATE)
            bias.add_(pull_bias, alpha=-RATE)
    return loss.item()


def in_jax() -> float:
    order = jaxreg.torch_random.Generator(0)
    optimizer = jaxreg.sgd(RATE, MOMENTUM)
    result = jaxreg.fit(model, inputs, targets, optimizer=optimizer, epochs=EPOCHS, batch_size=BATCH, shuffle=order)
    return float(result.losses[-1])


WAYS: dict[str, Callable[[], float]] = {"DataLoader": data_loader, "by hand": by_hand, "jaxreg.fit": in_jax}
times: dict[str, list[float]] = {name: [] for name in WAYS}
last = {name: train() for name, train in WAYS.items()}  # the first run warms up, and compiles
for _ in range(REPEATS):
    for name, train in WAYS.items():
        begin = time.perf_counter()
        train()
        times[name].append(time.perf_counter() - begin)

for name, taken in times.items():
    ratio = statistics.median(a / b for a, b in zip(taken, times["jaxreg.fit"], strict=True))
    print(
        f"{name:10}  {1e3 * statistics.median(taken):8.1f} ms  {ratio:5.1f} times jaxreg's  last loss {last[name]:.5f}"
    )
