"""``parity list``: what there is to judge and to time by name."""

from __future__ import annotations

import argparse

from parity.cli.arguments import Commands
from parity.cli.terminal import HOLDS


def add(commands: Commands) -> None:
    """Add the command to the parser's commands."""
    words = "list the built-in programs and the workloads of the benchmark"
    listing = commands.add_parser("list", help=words, description=f"{words.capitalize()}.")
    listing.set_defaults(run=_list)


def _list(arguments: argparse.Namespace, words: list[str]) -> int:
    from parity.bench.workloads import WORKLOADS
    from parity.programs import BUILT_IN

    width = max(len(each.name) for each in (*BUILT_IN, *WORKLOADS))
    for title, listed in (
        ("Programs for parity report and parity check:", BUILT_IN),
        ("Workloads for parity bench:", WORKLOADS),
    ):
        print(title)
        for each in listed:
            print(f"  {each.name:{width}}  {each.about}")
    return HOLDS
