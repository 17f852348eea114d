"""The command: every fault, then honest trainings; figures, misses by name, exit code 1 where a figure is missed."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import torch

from tests.judge_score import score
from tests.judge_score.faults import FAULTS
from tests.judge_score.trainings import Training

# Trainings after which what JAX has traced is let go: of each it keeps all, and Python's collector walks through it.
_FORGET = 20


def main() -> int:
    """Run the command; 0 where every figure is met, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.judge_score",
        description="Put faults into ports and draw honest trainings, and score what parity says of them.",
    )
    parser.add_argument("--faults-only", action="store_true", help="no honest trainings")
    parser.add_argument("--honest", type=int, default=2000, metavar="N", help="how many to draw (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--only", default="", metavar="WORDS", help="the faults whose names or causes hold these words")
    arguments = parser.parse_args()
    say = _progress()
    with tempfile.TemporaryDirectory() as folder:
        _share_compilations(folder)
        return _run(arguments, say)


def _share_compilations(folder: str) -> None:
    """Trainings of one shape are the same program with other data; XLA need compile it once only.

    In ``folder``, or where JAX_COMPILATION_CACHE_DIR says.
    """
    torch.set_num_threads(1)
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _run(arguments: argparse.Namespace, say: Callable[[str, str], None]) -> int:
    faults = [fault for fault in FAULTS if arguments.only in fault.name or arguments.only in fault.cause]
    judged = []
    for fault in faults:
        judged.append(score.judge_fault(fault))
        say(f"fault {len(judged)}/{len(faults)}", "" if judged[-1].located and judged[-1].named else str(judged[-1]))

    alarms: list[score.Alarm] = []
    seen = 0

    def honest(training: Training) -> None:
        nonlocal seen
        seen += 1
        if seen % _FORGET == 0:
            jax.clear_caches()
        alarm = score.judge_honest(training)
        if alarm is not None:
            alarms.append(alarm)
        if alarm is not None or seen % 20 == 0:
            say(f"honest training {seen}", "" if alarm is None else str(alarm))

    for training in score.without_faults(faults):
        honest(training)
    if not arguments.faults_only:
        score.draw_honest(arguments.honest, arguments.seed, honest)
    print(score.table(judged, alarms, seen))
    return 0 if score.passed(judged, alarms) else 1


def _progress() -> Callable[[str, str], None]:
    begin = time.perf_counter()

    def say(place: str, miss: str) -> None:
        print(f"{time.perf_counter() - begin:7.1f} s  {place}  {miss}".rstrip(), file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
