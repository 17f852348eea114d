"""Trainings of many kinds, each as the same code in float32, which is recorded, and in float64, to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A training: ``data`` gives one step's tensors, ``loss`` calls the model on them."""

    model: Callable[[], nn.Module]
    optimizer: Optimizer
    data: Callable[[], dict[str, torch.Tensor]]
    loss: Callable[[nn.Module, dict[str, torch.Tensor]], torch.Tensor]
    schedule: bool = False

    def run(
        self, steps: int = 4, dtype: torch.dtype = torch.float32, seen: Callable[..., None] = lambda *_: None
    ) -> None:
        """Train; ``seen(model, optimizer, loss)`` is called after each step."""
        torch.manual_seed(5)
        model = self.model().to(dtype)
        optimizer = self.optimizer(model)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5) if self.schedule else None
        for _ in range(steps):
            batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.data().items()}
            optimizer.zero_grad()
            loss = self.loss(model, batch)
            loss.backward()
            optimizer.step()
            seen(model, optimizer, loss)
            if schedule:
                schedule.step()

    def program(self, steps: int = 4) -> Callable[[], None]:
        """The training as a program to record."""

        def program() -> None:
            self.run(steps)

        return program


class Attention(nn.Module):
    """A token mixer that takes a dict and gives a dict."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attend = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, 11)
        self.register_buffer("places", torch.randn(6, 8))

    def forward(self, batch: dict[str, torch.Tensor], scale: float = 1.0) -> dict[str, torch.Tensor]:
        x = scale * self.embed(batch["ids"]) + self.get_buffer("places")
        mixed, shares = self.attend(x, x, x, key_padding_mask=batch["mask"])
        return {"logits": self.head(self.drop(self.norm(x + mixed))), "shares": shares}


class Two(nn.Module):
    """Two inputs, one of them by name, and a tuple back; makes a float32 tensor of its own on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, a: torch.Tensor, *, b: torch.Tensor, name: str = "") -> tuple[torch.Tensor, None, torch.Tensor]:
        lift = torch.zeros(4, dtype=torch.float32) + 0.1
        mixed = torch.tanh(self.left(a) + self.right(b).float() + lift)
        return mixed, None, mixed.mean(1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def conv() -> nn.Module:
    norm = nn.BatchNorm2d(3, momentum=None)
    return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))


def classes(rows: int = 9) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(rows, 4), "y": torch.randint(0, 3, (rows,))}


def _images() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(5, 1, 6, 6), "y": torch.randint(0, 2, (5,))}


def _tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 11, (4, 6))
    return {"ids": ids, "mask": torch.rand(4, 6) > 0.8, "y": torch.randint(0, 11, (4, 6))}


def _pair() -> dict[str, torch.Tensor]:
    return {"a": torch.randn(7, 3), "b": torch.randn(7, 2), "y": torch.randn(7, 4), "w": torch.rand(7)}


def cross_entropy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"])


def _weighted(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0]).to(batch["x"].dtype))(model(batch["x"]), batch["y"])


def _masked(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    out = model({"ids": batch["ids"], "mask": batch["mask"]}, scale=0.5)
    each = F.cross_entropy(out["logits"].view(-1, 11), batch["y"].view(-1), reduction="none")
    counted = (~batch["mask"]).view(-1)
    return (each * counted).sum() / counted.sum()


def _by_hand(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    mixed, _, mean = model(batch["a"], b=batch["b"], name="both")
    first, second = (mixed - batch["y"]).abs().chunk(2, dim=1)
    loss = (batch["w"] * first.sum(1)).mean() + second.mean()
    loss += 0.1 * mean.square().mean()
    return loss


def _groups(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 0.02}]
    return torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.99), amsgrad=True)


def optimizer(kind: Any, **options: Any) -> Optimizer:
    return lambda model: kind(model.parameters(), **options)


KINDS: dict[str, Kind] = {
    "mlp": Kind(mlp, optimizer(torch.optim.Adam, lr=0.01), classes, cross_entropy, schedule=True),
    "conv": Kind(conv, optimizer(torch.optim.SGD, lr=0.05, momentum=0.9), _images, _weighted),
    "attention": Kind(Attention, _groups, _tokens, _masked),
    "two": Kind(Two, optimizer(torch.optim.RMSprop, lr=0.01, centered=True, momentum=0.5), _pair, _by_hand),
    "adagrad": Kind(
        mlp, optimizer(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.25), classes, cross_entropy
    ),
    "nadam": Kind(mlp, optimizer(torch.optim.NAdam, lr=0.01), classes, cross_entropy),
    "rprop": Kind(mlp, optimizer(torch.optim.Rprop, lr=0.01), classes, cross_entropy),
}
