"""What is trained: model, data, loss, optimizer, as plain values from which both sides are written."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

FEATURES, CLASSES = 6, 3
CHANNELS, SIDE = 2, 6
TOKENS, LENGTH = 11, 5

# What each model is given, and how many numbers it answers with for every row.
TABLE, IMAGE, WORDS = "table", "image", "words"
GIVEN = {
    "linear": (TABLE, 3),
    "square": (TABLE, FEATURES),
    "one": (TABLE, 1),
    "mlp_relu": (TABLE, CLASSES),
    "mlp_gelu": (TABLE, CLASSES),
    "mlp_tanh": (TABLE, CLASSES),
    "mlp_one": (TABLE, 1),
    "conv_batch": (IMAGE, CLASSES),
    "conv_group": (IMAGE, CLASSES),
    "attention": (WORDS, TOKENS),
    "tagger": (WORDS, CLASSES),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """One training; the same values, the same training on both sides.

    Attributes:
        model: a key of ``GIVEN``.
        optimizer: ``"SGD"``, ``"Adam"`` or ``"AdamW"``.
        options: its settings by PyTorch's names, the learning rate among them.
        loss: ``"mse"``, ``"l1"``, ``"huber"`` or ``"cross_entropy"``.
        reduction: ``"mean"`` or ``"sum"``.
        steps: how many optimizer steps.
        rows, batch: rows of data, and of each batch; ``None`` takes all rows at every step.
        falls: the learning rate is halved every so many epochs; ``None``: it stays.
        decay_matrices_only: biases and normalisations are left out of the weight decay.
        input_scale, target_scale: what the drawn data are multiplied with.
        dependent: whether the last feature is nearly the sum of the others.
        double: whether it is trained in float64.
        seed: of the data and the initial weights.
    """

    model: str
    optimizer: str = "SGD"
    options: tuple[tuple[str, Any], ...] = (("lr", 0.05),)
    loss: str = "mse"
    reduction: str = "mean"
    steps: int = 6
    rows: int = 12
    batch: int | None = None
    falls: int | None = None
    decay_matrices_only: bool = False
    input_scale: float = 1.0
    target_scale: float = 1.0
    dependent: bool = False
    double: bool = False
    seed: int = 0

    def with_options(self, **options: Any) -> Training:
        """The same training with other settings of the optimizer."""
        return dataclasses.replace(self, options=tuple(sorted((dict(self.options) | options).items())))

    @property
    def settings(self) -> dict[str, Any]:
        """The optimizer's settings."""
        return dict(self.options)

    @property
    def batches_per_epoch(self) -> int:
        """How many steps go once through the data."""
        return -(-self.rows // (self.batch or self.rows))

    def data(self) -> tuple[Array, Array]:
        """Inputs and targets, in the dtype of the training; words and classes as int64."""
        random = np.random.default_rng(self.seed)
        dtype = np.float64 if self.double else np.float32
        given, outputs = GIVEN[self.model]
        inputs = _inputs(given, self.rows, random)
        if self.dependent and given == TABLE:
            inputs[:, -1] = inputs[:, :-1].sum(1) + 1e-5 * random.normal(size=self.rows)
        if given != WORDS:
            inputs = (self.input_scale * inputs).astype(dtype)
        answers = self.rows * LENGTH if self.model == "attention" else self.rows
        if self.loss == "cross_entropy":
            targets = random.integers(0, outputs, answers)
            return inputs, targets.reshape(self.rows, -1) if self.model == "attention" else targets
        return inputs, (self.target_scale * random.normal(size=(answers, outputs))).astype(dtype)


def _inputs(given: str, rows: int, random: np.random.Generator) -> Array:
    if given == WORDS:
        return random.integers(0, TOKENS, (rows, LENGTH))
    return random.normal(size=(rows, FEATURES) if given == TABLE else (rows, CHANNELS, SIDE, SIDE))
