"""What rounding can do to SGD's state and weights: in one step, and carried along a whole training.

For a linear model with MSE the gradient is an affine function of the weights, so an error is carried from step to step
by a fixed matrix. It is followed in that matrix's own modes, where each is multiplied by one factor a step: entry by
entry the factors' absolute values would grow where the errors in truth die out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer

from parity._linear_bounds import Format
from parity._recording import Array


@dataclasses.dataclass(frozen=True)
class Rule:
    """SGD's constant settings."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Rule:
        """The rule of a recorded ``torch.optim.SGD``."""
        numbers = {name: float(settings[name]) for name in ("momentum", "dampening", "weight_decay")}
        return cls(**numbers, nesterov=bool(settings["nesterov"]), maximize=bool(settings["maximize"]))


class Rounded(NamedTuple):
    """Roundings of the steps themselves, leading axis the steps: of the decayed gradient, the buffer, the weights."""

    gradient: Array
    buffer: Array
    weights: Array


def step_roundings(
    rule: Rule,
    rates: Float64[np.ndarray, " steps"],
    gradient: Float64[np.ndarray, "steps o p"],
    buffer: Float64[np.ndarray, "steps o p"] | None,
    before: Float64[np.ndarray, "steps o p"],
    after: Float64[np.ndarray, "steps o p"],
    form: Format,
) -> Rounded:
    """Roundings that the steps commit, given what they were given; ``buffer`` is the one after each step."""
    u, gamma2 = form.unit, form.gamma(2)
    rate = rates.reshape(-1, *[1] * (gradient.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        sign = -1.0 if rule.maximize else 1.0
        decayed = sign * gradient + rule.weight_decay * before
        off_gradient = (gamma2 * rule.weight_decay * np.abs(before) + u * np.abs(decayed)) * (rule.weight_decay != 0)
        off_buffer = np.zeros_like(gradient)
        direction, off_direction = decayed, off_gradient
        if buffer is not None:
            previous = np.concatenate([np.zeros_like(buffer[:1]), buffer[:-1]])
            share = abs(1 - rule.dampening)
            off_buffer = gamma2 * (rule.momentum * np.abs(previous) + share * np.abs(decayed)) + u * np.abs(buffer)
            off_buffer[0] = 0.0  # the first buffer is the gradient itself
            direction, off_direction = buffer, np.zeros_like(buffer)
            if rule.nesterov:
                direction = decayed + rule.momentum * buffer
                off_direction = gamma2 * rule.momentum * np.abs(buffer) + u * np.abs(direction) + off_gradient
        off_weights = rate * ((1 + gamma2) * off_direction + gamma2 * np.abs(direction)) + u * np.abs(after)
    flushed = form.tiny * (8 + rate)
    return Rounded(off_gradient, off_buffer + 8 * form.tiny * (buffer is not None), off_weights + flushed)


def locked_bounds(rule: Rule, rates: Array, rounded: Rounded, form: Format) -> tuple[Array, Array]:
    """Bounds on buffer and weights where every step is fed exact gradients and starts from exact weights."""
    slack = 1 + 8 * form.unit
    share = abs(1 - rule.dampening)
    buffer = np.zeros_like(rounded.buffer)
    carried = np.zeros_like(rounded.buffer[0])
    for step in range(len(rates)):
        fresh = rounded.gradient[step] * (1.0 if step == 0 else share)
        carried = slack * (rule.momentum * carried + fresh + rounded.buffer[step])
        buffer[step] = carried
    rate = rates.reshape(-1, *[1] * (buffer.ndim - 1))
    if rule.momentum == 0:
        through = rounded.gradient
    else:
        through = rule.momentum * buffer if rule.nesterov else buffer
    return buffer, slack * (rate * through + rounded.weights)


def free_bounds(
    rule: Rule,
    rates: Float64[np.ndarray, " steps"],
    hessians: list[Float64[np.ndarray, "p p"]],
    order: Integer[np.ndarray, " steps"],
    off_gradient: Float64[np.ndarray, "steps o p"],
    rounded: Rounded,
) -> tuple[Array, Array]:
    """Bounds on buffer and weights ``(steps, o, p)`` of a training on its own.

    Args:
        rule: the settings.
        rates: learning rates, ``(steps,)``.
        hessians: of each batch, ``(p, p)``, the same for every output.
        order: which batch each step is fed.
        off_gradient: what rounding does to each step's gradient at the step's own weights, ``(steps, o, p)``.
        rounded: the roundings of the steps themselves.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        local = _local(rule, rates, off_gradient, rounded)
        commuting = len(hessians) == 1 and (rule.momentum == 0 or bool((rates == rates[0]).all()))
        follow = _by_modes if commuting else _by_norms
        buffer, weights = follow(rule, rates, [_decayed(rule, hessian) for hessian in hessians], order, local)
    return np.where(np.isnan(buffer), np.inf, buffer), np.where(np.isnan(weights), np.inf, weights)


def _decayed(rule: Rule, hessian: Array) -> Array:
    return (-1 if rule.maximize else 1) * hessian + rule.weight_decay * np.eye(len(hessian))


def _local(rule: Rule, rates: Array, off_gradient: Array, rounded: Rounded) -> Array:
    """What each step adds to the error of (weights, buffer): shape ``(steps, o, p, 2)``."""
    rate = rates[:, None, None]
    fresh = off_gradient + rounded.gradient
    if rule.momentum == 0:
        return np.stack([rate * fresh + rounded.weights, np.zeros_like(fresh)], -1)
    share = np.full_like(rate, abs(1 - rule.dampening))
    share[0] = 1.0
    buffer = share * fresh + rounded.buffer
    direction = fresh + rule.momentum * buffer if rule.nesterov else buffer
    return np.stack([rate * direction + rounded.weights, buffer], -1)


def _blocks(rule: Rule, rate: float, curvatures: Array) -> Array:
    """What one step does to an error in (weight, buffer) along each mode: shape ``(p, 2, 2)``."""
    h, zero = curvatures, np.zeros_like(curvatures)
    if rule.momentum == 0:
        return np.stack([np.stack([1 - rate * h, zero], -1), np.stack([zero, zero], -1)], -2)
    to_buffer = np.stack([(1 - rule.dampening) * h, zero + rule.momentum], -1)
    direction = np.stack([h, zero], -1) + rule.momentum * to_buffer if rule.nesterov else to_buffer
    return np.stack([np.stack([zero + 1, zero], -1) - rate * direction, to_buffer], -2)


def _by_modes(rule: Rule, rates: Array, curved: list[Array], order: Array, local: Array) -> tuple[Array, Array]:
    """Exact modes of the one matrix; with momentum each mode is a two by two block with two factors of its own."""
    curvatures, modes = np.linalg.eigh(curved[0])
    into = np.einsum("pm,kopc->komc", np.abs(modes), local)
    if rule.momentum == 0:
        factors = np.abs(1 - rates[:, None] * curvatures)
        kept = np.zeros(into.shape[:-1])
        carried = np.zeros(into.shape[1:-1])
        for step in range(len(rates)):
            carried = factors[step] * carried + into[step, ..., 0]
            kept[step] = carried
        weights = kept @ np.abs(modes).T
        return np.zeros_like(weights), weights
    values, vectors = np.linalg.eig(_blocks(rule, float(rates[0]), curvatures))
    try:
        inverse = np.linalg.inv(vectors)
    except np.linalg.LinAlgError:  # a critically damped mode has one vector only: nothing can be said this way
        return np.full(local.shape[:-1], np.inf), np.full(local.shape[:-1], np.inf)
    into = np.einsum("mcd,komd->komc", np.abs(inverse), into)
    kept = np.zeros(into.shape)
    carried = np.zeros(into.shape[1:])
    for step in range(len(rates)):
        carried = np.abs(values) * carried + into[step]
        kept[step] = carried
    both = np.einsum("pm,mcd,komd->kopc", np.abs(modes), np.abs(vectors), kept)
    return both[..., 1], both[..., 0]


def _by_norms(rule: Rule, rates: Array, curved: list[Array], order: Array, local: Array) -> tuple[Array, Array]:
    """One number for the whole error, multiplied by the norm of each step's matrix: sound for any order of batches."""
    spectra = [np.linalg.eigvalsh(matrix) for matrix in curved]
    sizes = np.sqrt((local**2).sum((2, 3)))
    kept = np.zeros(sizes.shape)
    carried = np.zeros(sizes.shape[1:])
    for step, batch in enumerate(order):
        norm = np.linalg.norm(_blocks(rule, float(rates[step]), spectra[batch]), 2, axis=(1, 2)).max()
        carried = norm * carried + sizes[step]
        kept[step] = carried
    everywhere = np.broadcast_to(kept[..., None], local.shape[:-1])
    return everywhere, everywhere
