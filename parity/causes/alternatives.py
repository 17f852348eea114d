"""Causes that one recording cannot tell apart, and how near an explanation comes."""

from __future__ import annotations

import dataclasses

from parity.judging.cause import Cause


def mark_alternatives(causes: list[Cause]) -> list[Cause]:
    """Return causes that one recording cannot tell apart, each marked with the others."""
    by_name = {cause.name: cause for cause in reversed(causes)}
    if len(by_name) < 2:
        return list(by_name.values())
    marked = []
    for cause in reversed(by_name.values()):
        others = tuple(name for name in reversed(by_name) if name != cause.name)
        told = f"Either this or {' or '.join(others)}; this recording cannot tell them apart: {cause.sentence}"
        marked.append(dataclasses.replace(cause, sentence=told, alternatives=others))
    return marked


def within(agreement: float) -> str:
    """Return how near two sides are, as the end of a sentence.

    >>> within(0.0), within(1.6e-16)
    ('exactly', 'within 2e-16')
    """
    return f"within {agreement:.0e}" if agreement else "exactly"
