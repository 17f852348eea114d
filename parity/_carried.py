"""How an error in weights and momentum is carried from step to step, where the gradient is affine in the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parity._recording import Array

if TYPE_CHECKING:
    from parity._sgd_bounds import Rule


def _step_matrix(rule: Rule, rates: Array, curvature: Array) -> Array:
    """What one step does to errors in (weights, buffer): shape ``(2 p, 2 p)``, for the gradient's matrix ``(p, p)``."""
    size = len(curvature)
    unit, none = np.eye(size), np.zeros((size, size))
    gradient = np.where(rule.maximize, -1.0, 1.0)[:, None] * curvature + np.diag(rule.weight_decay)
    plain = np.concatenate([gradient, none], 1)
    taken_in = (1 - rule.dampening)[:, None] * plain + np.concatenate([none, np.diag(rule.momentum)], 1)
    heavy, nesterov = rule.heavy[:, None], rule.nesterov[:, None]
    ahead = plain + rule.momentum[:, None] * taken_in
    direction = np.where(heavy, np.where(nesterov, ahead, taken_in), plain)
    to_weights = np.concatenate([unit, none], 1) - rates[:, None] * direction
    return np.concatenate([to_weights, np.where(heavy, taken_in, 0.0)])


def by_modes(rule: Rule, rates: Array, hessians: list[Array], order: Array, local: Array) -> tuple[Array, Array]:
    """One matrix for all steps, and all columns alike: each of its modes has factors of its own.

    Along a mode of curvature h a step is a two by two matrix, the step of a problem with one weight.
    """
    curvatures, modes = np.linalg.eigh(hessians[0])
    into = np.einsum("pm,kopc->komc", np.abs(modes), local)
    kept = np.zeros(into.shape)
    carried = np.zeros(into.shape[1:])
    one = rule.of_columns(slice(1))
    blocks = np.array([_step_matrix(one, rates[0, :1], np.array([[h]])) for h in curvatures])
    if not rule.heavy[0]:
        sign = -1.0 if rule.maximize[0] else 1.0
        factors = np.abs(1 - rates[:, :1] * (sign * curvatures + rule.weight_decay[0]))
        for step in range(len(rates)):
            carried = factors[step][:, None] * carried + into[step]
            kept[step] = carried
        weights = kept[..., 0] @ np.abs(modes).T
        return np.zeros_like(weights), weights
    values, vectors = np.linalg.eig(blocks)
    try:
        inverse = np.linalg.inv(vectors)
    except np.linalg.LinAlgError:  # a critically damped mode has one vector only: nothing can be said this way
        return np.full(local.shape[:-1], np.inf), np.full(local.shape[:-1], np.inf)
    into = np.einsum("mcd,komd->komc", np.abs(inverse), into)
    for step in range(len(rates)):
        carried = np.abs(values) * carried + into[step]
        kept[step] = carried
    both = np.einsum("pm,mcd,komd->kopc", np.abs(modes), np.abs(vectors), kept)
    return both[..., 1], both[..., 0]


def by_norms(rule: Rule, rates: Array, hessians: list[Array], order: Array, local: Array) -> tuple[Array, Array]:
    """One number for the whole error, multiplied by the norm of each step's matrix: sound for any order of batches.

    Columns are measured in units of the root of their learning rate, in which a step without momentum is symmetric and
    its norm below one wherever the training is stable.
    """
    moving = ~rule.frozen
    ratio = rates[0] / (rates[0].max() or 1.0)
    # A learning rate of zero has no such unit; any will do, since the norm is that of the whole matrix in these units.
    unit = np.sqrt(np.where(ratio > 0, ratio, 1.0))
    scale = np.concatenate([unit[moving]] * 2)
    live = rule.of_columns(moving)
    norms: dict[tuple[int, bytes], float] = {}
    sizes = np.sqrt(((local / unit[:, None]) ** 2).sum((2, 3)))
    kept = np.zeros(sizes.shape)
    carried = np.zeros(sizes.shape[1:])
    for step, batch in enumerate(order):
        key = (int(batch), rates[step].tobytes())
        if key not in norms:
            matrix = _step_matrix(live, rates[step][moving], hessians[batch][np.ix_(moving, moving)])
            norms[key] = float(np.linalg.norm(matrix * scale / scale[:, None], 2))
        carried = norms[key] * carried + sizes[step]
        kept[step] = carried
    everywhere = kept[..., None] * (unit * moving)
    return everywhere, everywhere
