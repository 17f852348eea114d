"""What the commands have in common: exit codes, and lines of progress."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

HOLDS, PARTS, NOT_JUDGED = 0, 1, 2


def progress(arguments: argparse.Namespace, name: str) -> Callable[[str], None]:
    """What prints lines of progress, with the time since now."""
    begin = time.perf_counter()

    def say(line: str) -> None:
        if not arguments.quiet:
            print(f"{name}: {line} ({time.perf_counter() - begin:.1f} s)", file=sys.stderr, flush=True)

    return say
