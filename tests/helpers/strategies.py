"""What Hypothesis draws in more than one test."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Training:
    """A regression problem and how long, and how fast, to train on it."""

    rows: int
    inputs: int
    outputs: int
    input_scale: float
    target_scale: float
    seed: int
    steps: int
    rate_share: float
    bias: bool

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs ``(rows, inputs)`` and targets ``(rows, outputs)``, float32."""
        random = np.random.default_rng(self.seed)
        x = self.input_scale * random.normal(size=(self.rows, self.inputs))
        y = x @ random.normal(size=(self.inputs, self.outputs)) + random.normal(size=(self.rows, self.outputs))
        return x.astype(np.float32), (self.target_scale * y).astype(np.float32)

    def learning_rate(self) -> float:
        """``rate_share`` of the rate at which the largest curvature stops shrinking: at 1 and above it diverges."""
        x, y = self.data()
        design = np.concatenate([x, np.ones((self.rows, 1))], 1).astype(np.float64)
        curvature = 2 / y.size * np.linalg.eigvalsh(design.T @ design)[-1]
        return float(self.rate_share * 2 / curvature)


def scales() -> st.SearchStrategy[float]:
    """Data scales from 1e-3 to 1e3."""
    return st.floats(-3, 3).map(lambda power: 10.0**power)


# Rows, inputs, outputs and steps of problems that share their compiled programs.
_SHAPES = [(1, 1, 1, 25), (2, 3, 1, 5), (7, 1, 4, 25), (33, 16, 2, 25), (129, 5, 3, 1), (300, 16, 4, 12)]


def trainings_of_few_shapes() -> st.SearchStrategy[Training]:
    """:func:`trainings` where each costs much to compile: any numbers, in a few shapes."""

    def shaped(training: Training, shape: tuple[int, int, int, int]) -> Training:
        rows, inputs, outputs, steps = shape
        return dataclasses.replace(training, rows=rows, inputs=inputs, outputs=outputs, steps=steps)

    return st.builds(shaped, trainings(), st.sampled_from(_SHAPES))


def trainings() -> st.SearchStrategy[Training]:
    """Problems of 1 to 300 rows, 1 to 16 inputs and 1 to 4 outputs, some of which diverge."""
    return st.builds(
        Training,
        rows=st.integers(1, 300),
        inputs=st.integers(1, 16),
        outputs=st.integers(1, 4),
        input_scale=scales(),
        target_scale=scales(),
        seed=st.integers(0, 2**31 - 1),
        steps=st.integers(1, 25),
        rate_share=st.sampled_from([0.01, 0.3, 0.9, 1.1]),
        bias=st.booleans(),
    )
