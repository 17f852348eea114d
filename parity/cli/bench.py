"""``parity bench``: its arguments, and what it does with them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from parity.cli.arguments import Commands, talk
from parity.cli.terminal import HOLDS, PARTS, progress

if TYPE_CHECKING:
    from parity.report.render.numbers import JsonDict

DEFAULT_FOLDER = "parity-bench"
_DEFAULT_TURNS, _DEFAULT_SECONDS, _PROCESS_TURNS = 7, 20.0, 5

_EPILOG = """\
workloads:
{workloads}
  start         the fitted line's whole process, from `python` to the printed weight

what the columns mean:
  first            time of the first training, compiling included
  median, spread   times of the later trainings, made warm and in turns with the other ways. A time runs from the call,
                   with the data in the library's own arrays, until the user has the weights, the model and the losses.
  × jaxreg         how many times as long as jaxreg, with a 95% bootstrap interval; one turn has no interval
  cold             time of a call after the processor's caches were filled with other data
  memory           the most memory that a warm call adds to the process
  × limit          how many times as long as this machine needs to read the data once, or to multiply them
  of bound         the largest distance of any timed call's weights from float64's, as a share of the float32 rounding
                   bound; beyond 100% it is not the same training, and no ratio is given

A run is disturbed if a fixed computation between the turns, or the ways of one turn, slow down too much. The limit is
half of what one more busy program costs: 1 / (2 cores), at least 5%. A disturbed run is made again, up to three times
in all, and the table says so.

examples:
  parity bench --size 0.1                all workloads, with a tenth of the rows
  parity bench line square -o out        two of them; out/ holds bench.json and bench.html
  parity bench line --compare out/bench.json
                                         what became quicker or slower since then, beyond the noise
  parity bench tall --ways eager,hand    jaxreg beside two other ways, which take minutes for ten million rows
  parity bench --device gpu              on the GPU, PyTorch too
"""


def add(commands: Commands) -> None:
    """Add the command to the parser of ``parity``."""
    from parity.bench.workloads import WORKLOADS

    known = "\n".join(f"  {workload.name:<13} {workload.about}" for workload in WORKLOADS)
    bench = commands.add_parser(
        "bench",
        help="time jaxreg beside PyTorch, NumPy, Optax and Flax",
        description="Train linear models in every way, check that each is the same training, and time them in turns.\n"
        "Writes bench.json, with every timing, and bench.html, with charts.",
        epilog=_EPILOG.format(workloads=known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="the workloads to time (default: all)")
    bench.add_argument(
        "-o", "--output", default=DEFAULT_FOLDER, metavar="FOLDER", help=f"write to FOLDER (default: {DEFAULT_FOLDER})"
    )
    bench.add_argument(
        "--size",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="train on this share of the rows, settings or groups (default: 1)",
    )
    bench.add_argument("--device", metavar="PLATFORM", help="cpu, gpu or tpu (default: the one that JAX chooses)")
    bench.add_argument(
        "--repeats",
        type=_count,
        default=_DEFAULT_TURNS,
        metavar="N",
        help=f"number of turns (default: {_DEFAULT_TURNS})",
    )
    bench.add_argument(
        "--seconds",
        type=_positive,
        default=_DEFAULT_SECONDS,
        metavar="S",
        help=f"give each way S seconds in all; slow ways have fewer turns (default: {_DEFAULT_SECONDS:g})",
    )
    bench.add_argument(
        "--ways",
        type=_words,
        default=[],
        metavar="WORDS",
        help="time jaxreg and only those ways with one of these words in their names, such as eager,scan",
    )
    bench.add_argument("--compare", metavar="OLD.json", help="say what changed since the run that wrote OLD.json")
    talk(bench)
    bench.set_defaults(run=run)


def run(arguments: argparse.Namespace, words: list[str]) -> int:
    """Carry out ``parity bench``; 0 where every way is the same training, else 1."""
    from parity.bench import comparison, document, write

    say = progress(arguments, "bench")
    write.check_writable(arguments.output)
    old = comparison.load(arguments.compare) if arguments.compare else None
    made = _measured(arguments, shlex.join(["parity", *words]), old, say)
    changes, remarks = (comparison.changes(old, made), comparison.remarks(old, made)) if old else ([], [])
    paths = write.write(made, changes, remarks, arguments.output)
    _show(made, changes, remarks, bool(old))
    print(f"The page: {paths[0]}")
    return HOLDS if document.all_same(made) else PARTS


def _measured(
    arguments: argparse.Namespace, command: str, old: JsonDict | None, say: Callable[[str], None]
) -> JsonDict:
    from parity.bench import comparison, document, startup, workloads
    from parity.bench import run as running

    names = [name for name in arguments.workloads if name != "start"]
    chosen = [] if arguments.workloads and not names else workloads.named(names)
    with_starts = "start" in arguments.workloads or not arguments.workloads
    if old is not None:
        comparison.check_common(old, [workload.scaled(arguments.size) for workload in chosen], with_starts)
    on = running.device(arguments.device)
    measured = running.bench(
        chosen,
        running.peers(arguments.ways),
        size=arguments.size,
        on=on,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        say=say,
    )
    starts, attempts = (
        startup.starts(on, repeats=_PROCESS_TURNS, say=lambda line: say(f"start: {line}"))
        if with_starts
        else ([], None)
    )
    return document.document(measured, starts, attempts, on, command)


def _show(made: JsonDict, changes: list[JsonDict], remarks: list[str], compared: bool) -> None:
    from rich.console import Console

    from parity.bench import table

    Console().print(table.renderable(made))
    if compared:
        Console().print(table.comparison(changes, remarks))


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
