"""PyTorch's ways to train a linear layer: as the tutorials do, compiled, by hand, and in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
import torch

from parity.bench.peers import Peer, Train
from parity.bench.workloads import Array, Data, Workload

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]


def _device(device: jax.Device) -> torch.device:
    return torch.device("cuda" if device.platform == "gpu" else "cpu")


def _placed(data: Data, device: jax.Device) -> list[torch.Tensor]:
    where = _device(device)
    return [torch.from_numpy(array).to(where) for array in (data.x, data.y, data.weight, data.bias)]


def _module(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    module = torch.nn.Linear(weight.shape[1], 1, device=weight.device)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)
    return module


def _seen(weight: torch.Tensor, bias: torch.Tensor) -> Array:
    return np.append(weight.detach().cpu().numpy(), bias.detach().cpu().numpy())


def _batches(workload: Workload, x: torch.Tensor, y: torch.Tensor) -> Iterator[Batch]:
    """Yield the rows of one epoch, step by step."""
    if not workload.batch:
        yield x, y
        return
    yield from zip(torch.split(x, workload.batch), torch.split(y, workload.batch), strict=True)


def _eager(workload: Workload, data: Data, device: jax.Device) -> Train:
    return _loop(workload, data, device, lambda module: module)


def _compiled(workload: Workload, data: Data, device: jax.Device) -> Train:
    return _loop(workload, data, device, torch.compile)


def _loop(workload: Workload, data: Data, device: jax.Device, made: Callable[[Objective], Objective]) -> Train:
    x, y, weight, bias = _placed(data, device)
    criterion = torch.nn.MSELoss()
    rows = torch.utils.data.TensorDataset(x, y)

    def train() -> Array:
        module = _module(weight, bias)
        optimizer = torch.optim.SGD(module.parameters(), lr=workload.learning_rate)

        @made
        def objective(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return criterion(module(x), y)

        for _ in range(workload.epochs):
            batches: Iterable[Batch] = torch.utils.data.DataLoader(rows, workload.batch) if workload.batch else [(x, y)]
            for some in batches:
                loss = objective(*some)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return _seen(module.weight, module.bias)

    return train


def _by_hand(workload: Workload, data: Data, device: jax.Device) -> Train:
    x, y, weight, bias = _placed(data, device)

    def train() -> Array:
        with torch.no_grad():
            if workload.groups:
                return np.stack([_descend(workload, x[k], y[k], weight, bias) for k in range(workload.groups)])
            return _descend(workload, x, y, weight, bias)

    return train


def _descend(workload: Workload, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Array:
    w, b, rate = weight.t().clone(), bias.clone(), workload.learning_rate
    for _ in range(workload.epochs):
        for rows, targets in _batches(workload, x, y):
            residual = torch.addmm(b, rows, w).sub_(targets)
            # Not addmm_ into the weight, which rounds it once for every row.
            w.sub_(rows.t() @ residual, alpha=2 * rate / len(rows))
            b.sub_(residual.sum(0), alpha=2 * rate / len(rows))
    return _seen(w, b)


def _batched(workload: Workload, data: Data, device: jax.Device) -> Train:
    """Train all groups, or all settings, in one product a step."""
    x, y, weight, bias = _placed(data, device)
    rates = torch.from_numpy(workload.rates.astype(np.float32)).to(x.device)
    many = workload.groups or workload.settings
    scale = -2 / workload.rows

    def train() -> Array:
        with torch.no_grad():
            if workload.settings:
                w, b = weight.t().repeat(1, many), bias.repeat(many)
                for _ in range(workload.epochs):
                    residual = torch.addmm(b, x, w).sub_(y)
                    w.add_((x.t() @ residual).mul_(rates), alpha=scale)
                    b.add_(residual.sum(0).mul_(rates), alpha=scale)
                return np.append(w.t().cpu().numpy(), b[:, None].cpu().numpy(), 1)
            w, b = weight.t().repeat(many, 1, 1), bias.repeat(many, 1, 1)
            for _ in range(workload.epochs):
                residual = torch.baddbmm(b, x, w).sub_(y)
                w.add_(x.mT @ residual, alpha=scale * workload.learning_rate)
                b.add_(residual.sum(1, keepdim=True), alpha=scale * workload.learning_rate)
            return np.append(w[..., 0].cpu().numpy(), b[..., 0].cpu().numpy(), 1)

    return train


def _graph(workload: Workload, data: Data, device: jax.Device) -> Train:
    x, y, weight, bias = _placed(data, device)
    w, b = weight.t().clone(), bias.clone()
    scale = -2 * workload.learning_rate / len(x)

    def step() -> None:
        residual = torch.addmm(b, x, w).sub_(y)
        w.add_(x.t() @ residual, alpha=scale)
        b.add_(residual.sum(0), alpha=scale)

    with torch.no_grad():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

    def train() -> Array:
        with torch.no_grad():
            w.copy_(weight.t())
            b.copy_(bias)
            for _ in range(workload.epochs):
                graph.replay()
            torch.cuda.synchronize()
            return _seen(w, b)

    return train


def _single(workload: Workload, device: jax.Device) -> str:
    return "one training at a time" if workload.settings or workload.groups else ""


def _compiles(workload: Workload, device: jax.Device) -> str:
    if workload.batch:
        return "nothing to gain over eager, which is timed"
    return _single(workload, device)


def _on_gpu(workload: Workload, device: jax.Device) -> str:
    if device.platform != "gpu":
        return "needs a GPU"
    return _compiles(workload, device)


def _not_swept(workload: Workload, device: jax.Device) -> str:
    return "one training at a time" if workload.settings else ""


def _many(workload: Workload, device: jax.Device) -> str:
    return "" if workload.settings or workload.groups else "for many trainings at once"


PEERS = (
    Peer("PyTorch eager", _eager, _single),
    Peer("PyTorch compiled", _compiled, _compiles),
    Peer("PyTorch by hand", _by_hand, _not_swept),
    Peer("PyTorch by hand, batched", _batched, _many),
    Peer("PyTorch CUDA graph", _graph, _on_gpu),
)
