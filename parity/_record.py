"""``record``: run a PyTorch program unmodified and write down what its training does, through torch's public hooks."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import torch

from parity import _arbiter, _run_program
from parity._hooks import Observer
from parity._recording import PrintedLine, Recording
from parity._run_program import Program


def record(program: Program, *, seed: int | None = None, argv: Sequence[str] = ()) -> Recording:
    """Run a PyTorch training program and record it.

    The program is not edited and computes just what it computes alone: forward hooks of modules and step hooks of
    optimizers copy what passes by, and are gone afterwards. Then PyTorch trains once more in float64, on the recorded
    data and from the recorded weights, to tell rounding from differences between programs.

    Args:
        program: path of a script, run as ``python script.py`` would, or a callable without arguments.
        seed: used in place of the number the program gives to ``torch.manual_seed``; ``None`` keeps the program's.
        argv: the script's command-line arguments.

    Returns:
        A :class:`Recording`: NumPy arrays and plain values.

    Raises:
        ProgramError: the program is not there, raised, or exited with a status other than 0.
        UnsupportedError: it never steps an optimizer, or does something that cannot be recorded; the message names it.

    Example:
        >>> import torch
        >>> def program():
        ...     torch.manual_seed(0)
        ...     model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     x, y = torch.randn(8, 2), torch.randn(8, 1)
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         loss_fn(model(x), y).backward()
        ...         optimizer.step()
        >>> recording = record(program)
        >>> recording.steps, recording.observed.gradients["weight"].shape
        (3, (3, 1, 2))
    """
    name, source = _run_program.describe(program)
    printed: list[PrintedLine] = []
    with Observer(name) as observer:
        _run_program.run(program, lambda text: printed.append(observer.at(text)), seed=seed, argv=argv)
    seen = observer.finish()
    locked, free = _arbiter.rerun(seen)
    return Recording(
        name=name,
        source=source,
        seed=seed,
        model=seen.model,
        loss=seen.loss,
        optimizer=seen.optimizer,
        rules=seen.rules,
        learning_rates={name: np.array(rates, np.float64) for name, rates in seen.learning_rates.items()},
        initial=seen.initial,
        batches=tuple(seen.pool.batches),
        batch_of_step=np.array(seen.batch_of_step, np.int64),
        observed=seen.steps.stacked(),
        arbiter_locked=locked,
        arbiter_free=free,
        evaluations=tuple(seen.evaluations),
        printed=tuple(observer.settle(line) for line in printed),
        environment={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": seen.device,
            "threads": torch.get_num_threads(),
        },
    )
