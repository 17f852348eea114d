"""Words that messages of every room share."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str, plural: str = "") -> str:
    """Write so many of a thing.

    >>> count(1, "cause"), count(2, "cause"), count(1200, "line"), count(0, "check"), count(2, "pass", "passes")
    ('1 cause', '2 causes', '1,200 lines', '0 checks', '2 passes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Write words in a row.

    >>> listed(["loss"]), listed(["loss", "update"]), listed(["loss", "gradient", "update"], "or")
    ('loss', 'loss and update', 'loss, gradient or update')
    """
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
