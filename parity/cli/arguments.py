"""Arguments of the command line that more than one command has."""

from __future__ import annotations

import argparse
import contextlib
from typing import TypeAlias

# The parser's commands, to which each command adds its own.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that judges a program."""
    parser.add_argument(
        "--port",
        metavar="FILE.py:NAME",
        help="your JAX side, of any model: a parity.Port, or a function that makes one from the Recording",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="use the seed N in place of the program's own")
    parser.add_argument(
        "--no-dropout",
        dest="dropout",
        action="store_false",
        help="switch dropout off, because no two frameworks drop the same values",
    )
    parser.add_argument(
        "--memory-limit",
        type=_bytes,
        metavar="BYTES",
        help="the most memory for the recorded tensors (default: 4e8); beyond it, only the first steps, every k-th "
        "and the last keep theirs",
    )
    talk(parser)


def talk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that takes a while: how much it says."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    parser.add_argument(
        "--traceback", action="store_true", help="print Python's traceback, too, where the command fails"
    )


def _bytes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"expected a number of bytes, such as 2e9, got {text!r}")


def count(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return int(text)
