"""The table that results of many trainings print, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

# Trainings that a table shows.
SHOWN_ROWS = 12


def as_text(title: str, rows: Sequence[Sequence[str]], count: int) -> str:
    """Return a table below its title.

    Args:
        title: the first line.
        rows: the cells, the first row with the names of the columns.
        count: rows that there are, of which those beyond :data:`SHOWN_ROWS` are only counted.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    hidden = count - SHOWN_ROWS
    return "\n".join([title, *lines, *([f"and {hidden:,} more"] if hidden > 0 else [])])


def as_html(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table below its title, as a notebook shows it."""
    head, *body = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f"<p>{html.escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def counted(count: int, word: str) -> str:
    """Return a number of things, such as "1 step" or "1,000 steps"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
