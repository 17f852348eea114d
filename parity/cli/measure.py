"""Measuring how long the two trainings take, side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

from parity.capture import run_program
from parity.capture.run_program import Program
from parity.judging.judgement import Timing
from parity.porting.port import Port
from parity.recording.recording import Recording
from parity.replay.replay import training
from parity.replay.session import Session

# The JAX side is run this often each time: it takes under a millisecond, and PyTorch has just had the caches.
_JAX_CALLS = 5
_BOOTSTRAP_SAMPLES = 2000


def measure(
    program: Program,
    recording: Recording,
    port: Port,
    *,
    repeats: int,
    seed: int | None = None,
    argv: Sequence[str] = (),
) -> Timing | None:
    """Run both trainings ``repeats`` times, in turn. ``None`` where one step leaves nothing to measure."""
    if recording.steps < 2 or repeats < 1:
        return None
    begin = time.perf_counter()
    train = training(Session.of(port, recording))
    compile_seconds = time.perf_counter() - begin
    train()
    torch_times, jax_times = [], []
    for _ in range(repeats):
        torch_times.append(_torch_loop_seconds(program, recording.steps, seed, argv))
        jax_times.append(statistics.median(_timed(train) for _ in range(_JAX_CALLS)))
    ratios = np.array(torch_times) / np.array(jax_times)
    chance = np.random.default_rng(0)
    medians = np.median(chance.choice(ratios, (_BOOTSTRAP_SAMPLES, repeats)), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Timing(
        steps=recording.steps,
        repeats=repeats,
        torch_seconds=statistics.median(torch_times),
        jax_seconds=statistics.median(jax_times),
        ratio=float(np.median(ratios)),
        ratio_low=float(low),
        ratio_high=float(high),
        compile_seconds=compile_seconds,
    )


def _timed(train: object) -> float:
    begin = time.perf_counter()
    train()  # type: ignore[operator]
    return time.perf_counter() - begin


def _torch_loop_seconds(program: Program, steps: int, seed: int | None, argv: Sequence[str]) -> float:
    """Time the program's loop from the end of its first step to the end of its last, scaled to all steps."""
    ends: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        run_program.run(program, lambda _: None, seed=seed, argv=argv)
    finally:
        handle.remove()
    return (ends[-1] - ends[0]) * steps / (len(ends) - 1)
