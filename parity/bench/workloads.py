"""What is timed: trainings of one linear layer, from a hundred rows to ten million."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training, or many of a kind: ``Linear`` with bias, ``MSELoss``, ``SGD``, float32.

    Attributes:
        name: what it is called on the command line.
        about: one line that says what it is.
        rows, columns: of the inputs; of each group's inputs in a workload of groups.
        epochs: passes over all rows.
        learning_rate: of SGD, without momentum.
        batch: rows of a step; 0 for all.
        settings: trainings at as many learning rates over the same data, up to ``learning_rate``; 0 for one.
        groups: regressions on rows of their own; 0 for one.
    """

    name: str
    about: str
    rows: int
    columns: int
    epochs: int
    learning_rate: float
    batch: int = 0
    settings: int = 0
    groups: int = 0

    def scaled(self, size: float) -> Workload:
        """Return a share of it: fewer rows (at least four a column and a batch's row), settings or groups."""
        if size == 1:
            return self
        if self.groups:
            return dataclasses.replace(self, groups=max(int(self.groups * size), 2))
        if self.settings:
            return dataclasses.replace(self, settings=max(int(self.settings * size), 2))
        least = min(self.rows, 4 * max(self.columns, self.batch))
        return dataclasses.replace(self, rows=max(int(self.rows * size), least))

    @property
    def steps(self) -> int:
        """Optimizer steps of one training."""
        return self.epochs * (-(-self.rows // self.batch) if self.batch else 1)

    @property
    def bytes(self) -> int:
        """Size of inputs and targets."""
        return 4 * self.rows * (self.columns + 1) * max(self.groups, 1)

    @property
    def rates(self) -> Array:
        """The learning rate of each training."""
        if not self.settings:
            return np.array([self.learning_rate])
        return np.geomspace(self.learning_rate / 100, self.learning_rate, self.settings)


@dataclasses.dataclass(frozen=True)
class Data:
    """Inputs ``(rows, columns)`` and targets ``(rows, 1)``, with a leading axis for groups, and the first weights."""

    x: Array
    y: Array
    weight: Array
    bias: Array


_AREAS = (850, 900, 1200, 1500, 1700, 1850, 2100, 2200, 2300, 2400)
_PRICES = (150, 160, 200, 240, 280, 300, 340, 360, 380, 400)

WORKLOADS = (
    Workload("line", "the fitted line: 100 rows, 1,000 steps", 100, 1, 1000, 0.01),
    Workload("house_prices", "the house prices: 10 rows, 1,000 steps", 10, 1, 1000, 1e-7),
    Workload("tall", "ten million rows of 4 columns, 1,000 epochs", 10_000_000, 4, 1000, 0.1),
    Workload("square", "a million rows of 64 columns, 1,000 epochs", 1_000_000, 64, 1000, 0.1),
    Workload("wide", "100,000 rows of 512 columns, 1,000 epochs", 100_000, 512, 1000, 0.05),
    Workload("minibatch", "100,000 rows of 32 columns in batches of 256, 5 epochs", 100_000, 32, 5, 0.05, batch=256),
    Workload("sweep", "1,000 learning rates, 100,000 rows of 16 columns", 10**5, 16, 1000, 0.3, settings=1000),
    Workload("groups", "10,000 regressions of 100 rows and 8 columns, 1,000 epochs", 100, 8, 1000, 0.1, groups=10_000),
)  # fmt: skip


def named(names: list[str]) -> list[Workload]:
    """Return the workloads called so, each once; all of them where none is named.

    Raises:
        BenchError: there is none of a name.
    """
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        if name not in known:
            from parity._errors import BenchError  # loads JAX, which the command's help need not

            raise BenchError(f"there is no workload {name!r}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or list(WORKLOADS)


def data(workload: Workload) -> Data:
    """Make the data of a workload, the same ones each time."""
    random = np.random.default_rng(20_240)
    if workload.name == "house_prices":
        x = np.array(_AREAS, np.float32)[:, None]
        return Data(
            x, np.array(_PRICES, np.float32)[:, None], np.full((1, 1), 0.5, np.float32), np.zeros(1, np.float32)
        )
    shape = (workload.groups, workload.rows) if workload.groups else (workload.rows,)
    x = random.standard_normal((*shape, workload.columns), np.float32)
    true = random.standard_normal((workload.columns, 1), np.float32)
    y = x @ true + random.standard_normal((*shape, 1), np.float32)
    bound = 1 / np.sqrt(workload.columns)
    weight = random.uniform(-bound, bound, (1, workload.columns)).astype(np.float32)
    return Data(x, y, weight, random.uniform(-bound, bound, 1).astype(np.float32))


def check_room(whole: Workload, size: float) -> None:
    """Refuse what does not fit before it is made.

    Args:
        whole: the workload.
        size: the share of it that is asked for.

    Raises:
        BenchError: the data, twice over, are larger than the memory that is free.
    """
    from jaxreg._memory import host_memory
    from parity._errors import BenchError

    free, needed = host_memory(), 2 * whole.scaled(size).bytes
    if free is None or needed <= free:
        return
    smaller = float(f"{0.4 * free / whole.bytes:.2g}")
    fits = smaller < size and 2 * whole.scaled(smaller).bytes <= free
    raise BenchError(
        f"{whole.name} needs {needed / 2**30:.3g} GiB (the data, once for each of two libraries), and "
        f"{free / 2**30:.3g} GiB are free; " + (f"give --size {smaller:g}" if fits else "no --size makes it fit")
    )
