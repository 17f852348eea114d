"""The PyTorch side: models as people write them, and the training loop around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.judge_score.trainings import CHANNELS, CLASSES, FEATURES, GIVEN, SIDE, TOKENS, Training

WIDTH, HEADS, HIDDEN = 8, 2, 8


class Perceptron(nn.Module):
    """Two layers; the hidden one is square in nothing, so only its name says what it is."""

    def __init__(self, outputs: int, activation: Callable[[Any], Any]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, outputs)
        self.activation = activation

    def forward(self, x: Any) -> Any:
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(x)))))


class Convolutional(nn.Module):
    """A convolution, a normalisation, a pooling, and a linear layer."""

    def __init__(self, batch: bool) -> None:
        super().__init__()
        self.batch = batch
        self.conv = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if batch else nn.GroupNorm(2, 4)
        self.fc = nn.Linear(4 * (SIDE // 2) ** 2, CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.conv(x))
        x = F.max_pool2d(F.relu(x), 2) if self.batch else F.avg_pool2d(F.gelu(x), 2)
        return self.fc(x.flatten(1))


class Attention(nn.Module):
    """A pre-norm block over an embedding, with attention written out; answers with logits for every place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, words: Any) -> Any:
        x = self.embedding(words)
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        shares = (q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS)).softmax(-1)
        x = x + self.out((shares @ v).transpose(1, 2).reshape(n, length, WIDTH))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x).flatten(0, 1)


class Tagger(nn.Module):
    """PyTorch's own attention over an embedding, the mean over places, and a class for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, words: Any) -> Any:
        x = self.embedding(words)
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.head(x.mean(1))


_MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(FEATURES, GIVEN["linear"][1]),
    "square": lambda: nn.Linear(FEATURES, FEATURES),
    "one": lambda: nn.Linear(FEATURES, 1),
    "mlp_relu": lambda: Perceptron(CLASSES, F.relu),
    "mlp_gelu": lambda: Perceptron(CLASSES, F.gelu),
    "mlp_tanh": lambda: Perceptron(CLASSES, torch.tanh),
    "mlp_one": lambda: Perceptron(1, torch.tanh),
    "conv_batch": lambda: Convolutional(batch=True),
    "conv_group": lambda: Convolutional(batch=False),
    "attention": Attention,
    "tagger": Tagger,
}
_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
    "cross_entropy": nn.CrossEntropyLoss,
}


def program(training: Training) -> Callable[[], None]:
    """The PyTorch program of a training."""

    def run() -> None:
        torch.manual_seed(training.seed)
        x, y = (torch.from_numpy(array) for array in training.data())
        model = _MODELS[training.model]()
        if training.double:
            model = model.double()
        loss_fn = _LOSSES[training.loss](reduction=training.reduction)
        optimizer = getattr(torch.optim, training.optimizer)(_groups(training, model), **training.settings)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, training.falls, 0.5) if training.falls else None
        for number, rows in enumerate(_rows(training)):
            optimizer.zero_grad()
            loss = loss_fn(model(x[rows]), y[rows].flatten() if training.loss == "cross_entropy" else y[rows])
            loss.backward()
            optimizer.step()
            if scheduler is not None and (number + 1) % training.batches_per_epoch == 0:
                scheduler.step()

    return run


def _groups(training: Training, model: nn.Module) -> Any:
    if not training.decay_matrices_only:
        return model.parameters()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]


def _rows(training: Training) -> Iterator[slice]:
    """The rows of each step, in order, again and again."""
    size = training.batch or training.rows
    for step in range(training.steps):
        start = step % training.batches_per_epoch * size
        yield slice(start, min(start + size, training.rows))
