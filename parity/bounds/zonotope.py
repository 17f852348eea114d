"""How an error is carried from step to step by a linear map, as a zonotope: the image of a box under all maps so far.

Taken entry by entry, errors grow with the absolute values of each map, though their product may shrink. A zonotope
keeps the products apart until they are summed up (W. Kühn, *Rigorously computed orbits of dynamical systems without the
wrapping effect*, Computing 61, 1998).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.sparse.csgraph import connected_components

from parity.recording.recording import Array

# Multiplications a step may take; beyond them, old errors are enclosed in one box, turned the way they lie.
_STEP_MULTIPLICATIONS = 20_000_000
# The products are computed in float64: so much, relative, is added at every step for it.
_STEP_SLACK_FACTOR = 1 + 1e-12


def propagate_linear(
    maps: Float64[np.ndarray, "m p p"], local: Float64[np.ndarray, "s p"]
) -> Float64[np.ndarray, "s p"]:
    """Return bounds on the error after each step: ``e' = J e + d``, where ``|d|`` is at most ``local``, entry by entry.

    Args:
        maps: the linear map of each step, or one for all of them.
        local: what each step adds.

    Returns:
        The bounds; infinite from the first step on whose map or bound is not finite.
    """
    bound = np.full(local.shape, np.inf)
    count, parts = connected_components((maps != 0).any(0))
    with np.errstate(over="ignore", invalid="ignore"):
        for part in range(count):
            own = np.flatnonzero(parts == part)
            inside = maps[np.ix_(np.arange(len(maps)), own, own)]
            follow = _constant if len(maps) == 1 else _changing
            bound[:, own] = follow(inside, local[:, own])
    return np.where(np.isnan(bound), np.inf, bound)


def _constant(maps: Array, local: Array) -> Array:
    """Return the sum over k of |J^k| d, k steps ago."""
    total = np.zeros(local.shape)
    power = np.eye(local.shape[1])
    for ago in range(len(local)):
        spread = np.abs(power)
        if not spread.any():
            break
        total[ago:] += local[: len(local) - ago] @ (spread.T * _STEP_SLACK_FACTOR**ago)
        power = maps[0] @ power
    return total


def _changing(maps: Array, local: Array) -> Array:
    steps, size = local.shape
    most = max(4 * size, _STEP_MULTIPLICATIONS // size**2)
    bound = np.full(local.shape, np.inf)
    columns = np.zeros((size, 0))
    length = 0.0
    for step in range(steps):
        columns = np.concatenate([_STEP_SLACK_FACTOR * (maps[step] @ columns), np.diag(local[step])], 1)
        if not np.isfinite(columns).all():
            break
        bound[step] = np.abs(columns).sum(1)
        if steps * size > most:
            # Long and wide: enclosing loses a little each time, and where it lost much the Euclidean length is sharper.
            length = _STEP_SLACK_FACTOR * float(np.linalg.norm(maps[step], 2)) * length + float(
                np.linalg.norm(local[step])
            )
            bound[step] = np.minimum(bound[step], length)
            if columns.shape[1] > most:
                columns = _enclosed(columns)
    return bound


def _enclosed(columns: Array) -> Array:
    """Return a box around the zonotope, turned along its longest directions."""
    frame = np.linalg.svd(columns, full_matrices=False)[0]
    return frame * (_STEP_SLACK_FACTOR * np.abs(frame.T @ columns).sum(1))
