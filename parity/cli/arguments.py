"""Arguments of the command line that more than one command has."""

from __future__ import annotations

import argparse
import contextlib


def common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that judges a program."""
    parser.add_argument(
        "--port",
        metavar="FILE.py:NAME",
        help="your JAX side, of any model: a parity.Port, or a function from the Recording to one",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="use N in place of the program's own torch.manual_seed")
    parser.add_argument(
        "--no-dropout",
        dest="dropout",
        action="store_false",
        help="switch dropout off for the run: no two frameworks drop the same values",
    )
    parser.add_argument(
        "--memory-limit",
        type=_bytes,
        metavar="BYTES",
        help="for the tensors that are kept; where they are more, of the first steps, every k-th and the last "
        "(default: 4e8)",
    )
    talk(parser)


def talk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that takes a while: how much it says."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress lines")
    parser.add_argument("--traceback", action="store_true", help="where it fails, also print Python's traceback")


def _bytes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"expected a number of bytes, such as 2e9, got {text!r}")


def count(text: str) -> int:
    """A number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return int(text)
