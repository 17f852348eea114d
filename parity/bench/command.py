"""``parity bench``: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import Any

from parity._terminal import HOLDS, PARTS, progress

DEFAULT_FOLDER = "parity-bench"
_REPEATS, _SECONDS, _STARTS = 7, 20.0, 5

_EPILOG = """\
workloads:
{workloads}
  start         the fitted line's whole process, from `python` to the printed weight

what the columns mean:
  first            the first training, with all compiling
  median, spread   of the later ones, until the trained model can be called and its weights are arrays on the host:
                   warm, in turns with the other ways
  × jaxreg         how many times as long as jaxreg, with the 95 % bootstrap interval
  × limit          the same of the least time that reading the data once, or multiplying them, takes on this machine
  of bound         how far the weights are from float64's, as a share of what float32 rounding can do; beyond 1 it is
                   not the same training, and no ratio is printed

examples:
  parity bench --size 0.1                all workloads, with a tenth of the rows
  parity bench line square -o out        two of them; out/ holds bench.json and bench.html
  parity bench line --compare out/bench.json
                                         what became quicker or slower since, beyond the noise
  parity bench tall --ways eager,hand    jaxreg beside two of the ways: ten million rows take each of them minutes
  parity bench --device gpu              on the GPU, PyTorch too
"""


def add(commands: Any) -> None:
    """Add the command to the parser of ``parity``."""
    from parity.bench.workloads import WORKLOADS

    known = "\n".join(f"  {workload.name:<13} {workload.about}" for workload in WORKLOADS)
    bench = commands.add_parser(
        "bench",
        help="time jaxreg beside PyTorch, NumPy, Optax and Flax",
        description="Train linear models in every way, hold each result to the same trajectory, and time them in "
        "turns. Writes bench.json, with every timing, and bench.html, with charts.",
        epilog=_EPILOG.format(workloads=known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="what to train (default: all)")
    bench.add_argument(
        "-o", "--output", default=DEFAULT_FOLDER, metavar="FOLDER", help=f"where to (default: {DEFAULT_FOLDER})"
    )
    bench.add_argument(
        "--size", type=_share, default=1.0, metavar="SHARE", help="share of the rows, settings or groups (default: 1)"
    )
    bench.add_argument("--device", metavar="PLATFORM", help="cpu, gpu or tpu (default: what JAX takes by itself)")
    bench.add_argument("--repeats", type=_count, default=_REPEATS, metavar="N", help=f"turns (default: {_REPEATS})")
    bench.add_argument(
        "--seconds",
        type=_positive,
        default=_SECONDS,
        metavar="S",
        help=f"a way that takes longer than that in all has fewer turns, at least one (default: {_SECONDS:g})",
    )
    bench.add_argument(
        "--ways",
        type=_words,
        default=[],
        metavar="WORDS",
        help="only the ways to train with one of these words in their names, and jaxreg, such as eager,scan",
    )
    bench.add_argument("--compare", metavar="OLD.json", help="say what changed since an earlier run")
    bench.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    bench.set_defaults(run=run)


def run(arguments: argparse.Namespace, words: list[str]) -> int:
    """Carry out ``parity bench``; 0 where every way is the same training, else 1."""
    from parity.bench import document, write

    say = progress(arguments, "bench")
    write.check_writable(arguments.output)
    old = document.load(arguments.compare) if arguments.compare else None
    made = _measured(arguments, shlex.join(["parity", *words]), say)
    changes = document.changes(old, made) if old else []
    paths = write.write(made, changes, arguments.output)
    _show(made, changes)
    print(f"The page: {paths[0]}")
    return HOLDS if document.all_same(made) else PARTS


def _measured(arguments: argparse.Namespace, command: str, say: Callable[[str], None]) -> dict[str, Any]:
    from parity.bench import cold, document, workloads
    from parity.bench import run as running

    names = [name for name in arguments.workloads if name != "start"]
    chosen = [] if arguments.workloads and not names else workloads.named(names)
    on = running.device(arguments.device)
    peers = running.peers(arguments.ways)
    timed, limits = running.bench(
        [workload.scaled(arguments.size) for workload in chosen],
        peers,
        on=on,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        say=say,
    )
    starts = []
    if "start" in arguments.workloads or not arguments.workloads:
        starts = cold.starts(on.platform, repeats=_STARTS, say=lambda line: say(f"start: {line}"))
    return document.document(timed, starts, limits, on, command)


def _show(made: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from parity.bench import table

    Console().print(table.renderable(made))
    if changes:
        Console().print(table.comparison(changes))


def _share(text: str) -> float:
    value = _positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a share of at most 1, got {text}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
