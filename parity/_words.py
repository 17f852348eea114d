"""Words that messages of every room share."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """Write so many of a thing.

    >>> count(1, "cause"), count(2, "cause"), count(1200, "line"), count(0, "check"), count(2, "pass", "passes")
    ('1 cause', '2 causes', '1,200 lines', '0 checks', '2 passes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
