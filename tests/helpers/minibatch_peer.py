"""The same minibatch training in PyTorch, with its own ``DataLoader``, and how far rounding can part the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from jaxreg.torch_random import Generator

U = 2.0**-53


@dataclasses.dataclass(frozen=True)
class Problem:
    """A training on batches, in float64. ``kind`` says what shuffles: nothing, a generator, the global one, a key."""

    rows: int
    batch_size: int
    drop_last: bool
    kind: str
    epochs: int = 2
    inputs: int = 3
    outputs: int = 2
    momentum: float = 0.0
    seed: int = 0

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(self.seed)
        x = random.normal(size=(self.rows, self.inputs))
        return x, x @ random.normal(size=(self.inputs, self.outputs)) + random.normal(size=(self.rows, self.outputs))

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight as PyTorch has it, ``(outputs, inputs)``, and bias."""
        weight, bias = Generator(self.seed).linear(self.inputs, self.outputs, dtype=np.float64)
        assert bias is not None
        return weight, bias


@dataclasses.dataclass(frozen=True)
class Run:
    """What PyTorch did: each step's batch and loss, the weights before each step and after the last, the generator."""

    batches: list[tuple[np.ndarray, np.ndarray]]
    losses: np.ndarray
    weights: np.ndarray  # (steps + 1, inputs + 1, outputs), the bias last
    state: bytes


def _loaders(problem: Problem, generator: torch.Generator) -> Iterator[DataLoader[tuple[torch.Tensor, ...]]]:
    data = TensorDataset(*map(torch.from_numpy, problem.data()))
    size, drop_last = problem.batch_size, problem.drop_last
    if problem.kind == "key":
        for epoch in range(problem.epochs):
            key = jax.random.fold_in(jax.random.key(problem.seed), epoch)
            order = np.asarray(jax.random.permutation(key, problem.rows)).tolist()
            yield DataLoader(data, size, sampler=order, drop_last=drop_last)
        return
    own = generator if problem.kind == "generator" else None
    loader = DataLoader(data, size, shuffle=problem.kind != "none", drop_last=drop_last, generator=own)
    for _ in range(problem.epochs):
        yield loader


def train(problem: Problem, rate: float) -> Run:
    """The loop of a PyTorch user, seeded with the problem's seed."""
    model = torch.nn.Linear(problem.inputs, problem.outputs, dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), problem.start(), strict=True):
            parameter.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=problem.momentum)
    generator = torch.Generator().manual_seed(problem.seed)

    def weights() -> np.ndarray:
        return np.concatenate([model.weight.detach().numpy().T, model.bias.detach().numpy()[None]])

    batches, losses, seen = [], [], [weights()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        for loader in _loaders(problem, generator):
            for x, y in loader:
                loss = torch.nn.functional.mse_loss(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                batches.append((x.numpy(), y.numpy()))
                losses.append(loss.item())
                seen.append(weights())
        state = torch.get_rng_state() if problem.kind == "global" else generator.get_state()
    return Run(batches, np.array(losses), np.stack(seen), state.numpy().tobytes())


def bounds(problem: Problem, run: Run, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """How far, to first order, rounding can part two honest runs: each step's loss, and the weights after it (2-norm).

    A step is a linear map of weights and velocity, and what it rounds wrong is of the size of the sums that it takes
    (Higham, ch. 3). So the distance after a step is at most the sum of what each step before it added, each times the
    norm of the maps since. Both runs add theirs.
    """
    d, m = problem.inputs + 1, problem.momentum
    velocity = np.zeros_like(run.weights[0])
    maps, added = np.empty((0, 2 * d, 2 * d)), np.empty(0)
    of_loss, of_weights, apart = [], [], 0.0
    for (x, y), w in zip(run.batches, run.weights, strict=False):
        z = np.concatenate([x, np.ones((len(x), 1))], 1)
        sizes, residual = abs(z) @ abs(w) + abs(y), z @ w - y
        wrong = (d + 2) * U * sizes + np.linalg.norm(z, axis=1, keepdims=True) * apart
        of_loss.append(2 * (2 * abs(residual) * wrong + wrong**2).mean() + 2 * (y.size + 4) * U * (residual**2).mean())

        scale = 2 / y.size
        gradient = scale * z.T @ residual
        in_gradient = (len(x) + d + 6) * U * scale * (abs(z).T @ sizes)
        moved = m * velocity + gradient
        in_velocity = in_gradient + 3 * U * (abs(m * velocity) + abs(gradient))
        in_weights = rate * in_velocity + 3 * U * (abs(w) + rate * abs(moved))
        velocity = moved

        curvature, eye = scale * z.T @ z, np.eye(d)
        step = np.block([[eye - rate * curvature, -rate * m * eye], [curvature, m * eye]])
        maps = np.concatenate([step @ maps, np.eye(2 * d)[None]])
        added = np.append(added, 2 * np.hypot(np.linalg.norm(in_weights), np.linalg.norm(in_velocity)))
        apart = float(np.linalg.norm(maps[:, :d], 2, axis=(1, 2)) @ added)
        of_weights.append(apart)
    return np.array(of_loss), np.array(of_weights)
