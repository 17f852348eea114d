"""Holds float32 results of XLA and of PyTorch against the bound, for as many random functions as asked.

Run ``python -m tests.rounding.soundness 10000``.
"""

from __future__ import annotations

import collections
import sys
from typing import Any

import hypothesis
import jax
import numpy as np
import torch

from parity.rounding import bound
from tests.helpers.random_functions import PROGRAMS, Program

Array = Any


def beyond(result: Any, value: Any, limit: Any) -> str:
    """What breaks the bound, in words; nothing where it is kept. What is no number is only let by under infinity."""
    seen, exact, allowed = (np.asarray(a, np.float64) for a in (result, value, limit))
    assert seen.shape == exact.shape == allowed.shape
    assert not np.any(allowed < 0)
    assert not np.any(np.isnan(allowed))
    with np.errstate(invalid="ignore"):
        off = np.where(seen == exact, 0.0, np.abs(seen - exact))
    off = np.where(np.isnan(off), np.inf, off)
    bad = off > allowed
    if not bad.any():
        return ""
    place = tuple(np.argwhere(bad)[0])
    apart = f"off by {off[place]:.6g} where {allowed[place]:.6g} may be"
    return f"at {place}: {seen[place]!r} against {exact[place]!r}, {apart}"


def check(program: Program, counts: collections.Counter[str] | None = None) -> None:
    """Raises AssertionError where a float32 result is further from the exact one than its bound says."""
    counts = collections.Counter() if counts is None else counts
    inputs = program.inputs()
    function = program.jax()
    # Operation by operation: the bound is worked out without compiling each random function anew.
    with jax.disable_jit():
        values, bounds = bound(function)(*inputs)
    flat = [(np.asarray(v), np.asarray(b)) for v, b in zip(*map(jax.tree.leaves, (values, bounds)), strict=True)]
    finite = sum(int(np.isfinite(b).sum()) for _, b in flat)
    counts["functions"] += 1
    counts["elements"] += sum(b.size for _, b in flat)
    counts["finite"] += finite
    counts["functions with a finite bound"] += finite > 0
    sides = {"XLA": jax.tree.leaves(jax.jit(function)(*inputs))}
    other = program.torch()
    if other is not None:
        results = other(*map(torch.from_numpy, inputs))
        sides["PyTorch"] = [r.numpy() for r in (results if isinstance(results, list) else [results])]
        counts["functions of PyTorch"] += 1
    for side, results in sides.items():
        for result, (value, limit) in zip(results, flat, strict=True):
            wrong = beyond(result, value, limit)
            assert not wrong, f"{side} {wrong}: {program}"


def main(count: int) -> None:
    """Prints how many functions were tried, and every one that breaks its bound."""
    counts: collections.Counter[str] = collections.Counter()
    broken: list[str] = []

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(PROGRAMS)
    def run(program: Program) -> None:
        try:
            check(program, counts)
        except AssertionError as error:
            broken.append(str(error))
            print(error, flush=True)
        if counts["functions"] % 1500 == 0:
            jax.clear_caches()
            print(dict(counts), flush=True)

    run()
    print(f"{len(broken)} of {counts['functions']} functions beyond their bound:", dict(counts))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
