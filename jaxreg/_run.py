"""Running a request by the plan that was chosen for it, with one kind of outcome from all of them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _choice, _reduction
from jaxreg._checks import is_number
from jaxreg._modes import Settings
from jaxreg._plans import compressed, minibatch, reduced, spectral, stepwise, tail
from jaxreg._plans.stepwise import Data, Outcome
from jaxreg._request import Request
from jaxreg._sgd import MomentumState, PyTorchSGD, sgd

Array = np.ndarray[Any, Any]


def run(plan: str, request: Request) -> Outcome:
    """Train by ``plan``, which must be one that can serve."""
    if plan == "stepwise":
        return _at(_stepwise(request), request.at)
    with jax.enable_x64(True):
        found = (_spectral if plan == "spectral" else _compressed)(request)
    outcome = Outcome(_cast(request, found.params), request.rest, *(_cast(request, leaf) for leaf in found.kept))
    if found.overflow is None or request.data is None:
        return outcome
    return _continued(request, outcome, found.overflow)


class _Overflow(NamedTuple):
    """Where a training could overflow: the step, and parameters and optimizer state before it."""

    step: int
    params: Any
    state: Any


class _Found(NamedTuple):
    """What a plan found in float64: parameters, what was kept of the steps asked for, and where it could overflow."""

    params: Any
    kept: tuple[Any, Any, Any]
    overflow: _Overflow | None


def _stepwise(request: Request) -> Outcome:
    assert request.data is not None
    batches = request.batches
    how = stepwise.run if batches is None else functools.partial(minibatch.run, batches=batches)
    return how(
        request.params,
        request.rest,
        _data(request),
        graph=request.graph,
        optimizer=request.optimizer,
        loss=request.loss,
        epochs=request.epochs,
        record=request.record,
    )


def _data(request: Request) -> Data:
    """The data on the device, in the dtype of the parameters."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, request.dtype), request.data)


def _cast(request: Request, tree: Any) -> Any:
    """Rounded to the dtype of the parameters."""
    return jax.tree.map(lambda leaf: leaf.astype(request.dtype), tree)


def _at(outcome: Outcome, at: Array | None) -> Outcome:
    """What was kept of the steps asked for."""
    if at is None:
        return outcome
    kept = jax.tree.map(lambda leaf: leaf[at], (outcome.losses, outcome.gradients, outcome.weights))
    return Outcome(outcome.params, outcome.rest, *kept)


def _asked(request: Request) -> Array:
    return np.arange(request.epochs) if request.at is None else request.at


def _problem(request: Request) -> reduced.Problem:
    if request.data is not None:
        root = _reduction.root(*request.data, dtype=request.dtype)
    else:
        assert request.statistics is not None
        root = request.statistics.root
    kernel, bias = request.model.kernel[...], request.model.bias[...] if request.model.use_bias else None
    return reduced.problem(root, kernel, bias, _choice.scale(request))


def _params(request: Request, coefficients: Any) -> Any:
    """The model's parameters of coefficients ``(..., coefficients, outputs)``."""
    return reduced.params(coefficients, jax.tree.structure(request.params))


def _settings(request: Request) -> Settings:
    """The optimizer's numbers as a loop in the model's dtype uses them, rounded to it."""
    rate, momentum, dampening, decay, nesterov, maximize = request.optimizer.settings
    rounded = request.dtype.type
    kept = float(rounded(1 - dampening))
    return Settings(float(rounded(rate)), float(rounded(momentum)), 1 - kept, float(rounded(decay)), nesterov, maximize)


def _spectral(request: Request) -> _Found:
    problem, settings, largest = _problem(request), _settings(request), float(np.finfo(request.dtype).max)
    answer = spectral.solve(
        problem,
        settings,
        np.float64(request.epochs),
        _asked(request).astype(np.float64),
        record=request.record,
        largest=largest,
    )
    kept = (answer.losses, *(None if leaf is None else _params(request, leaf) for leaf in answer.traces))
    overflow = None
    if bool(answer.overflows):
        step, now, velocity = spectral.overflow(problem, answer.modes, settings, request.epochs, largest)
        params = _params(request, now)
        buffer = MomentumState(jnp.asarray(min(step, 2**30), jnp.int32), _params(request, velocity))
        state = jax.tree.map(
            lambda part: buffer if isinstance(part, MomentumState) else part,
            request.optimizer.init(params),
            is_leaf=lambda part: isinstance(part, MomentumState),
        )
        overflow = _Overflow(step, params, state)
    return _Found(_params(request, answer.coefficients), kept, overflow)


def _compressed(request: Request) -> _Found:
    optimizer = request.optimizer
    if isinstance(optimizer, PyTorchSGD) and all(is_number(value) for value in optimizer.settings[:4]):
        rate, momentum, dampening, decay, nesterov, maximize = _settings(request)
        optimizer = sgd(rate, momentum, dampening=dampening, weight_decay=decay, nesterov=nesterov, maximize=maximize)
    params, kept, overflow = compressed.solve(
        _problem(request),
        optimizer=optimizer,
        structure=jax.tree.structure(request.params),
        epochs=request.epochs,
        record=request.record,
        largest=float(np.finfo(request.dtype).max),
    )
    if request.at is not None:
        kept = jax.tree.map(lambda leaf: leaf[request.at], kept)
    step = int(overflow[0])
    return _Found(params, kept, _Overflow(step, *overflow[1]) if step < request.epochs else None)


def _continued(request: Request, outcome: Outcome, overflow: _Overflow) -> Outcome:
    """The outcome with what a loop in the model's dtype does from where it could overflow."""
    params = _cast(request, overflow.params)
    shapes = jax.eval_shape(request.optimizer.init, params)
    later = tail.run(
        params,
        request.rest,
        jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), overflow.state, shapes),
        _data(request),
        graph=request.graph,
        optimizer=request.optimizer,
        loss=request.loss,
        steps=request.epochs - overflow.step,
        record=request.record,
    )
    known = (outcome.losses, outcome.gradients, outcome.weights)
    new = (later.losses, later.gradients, later.weights)
    return Outcome(later.params, later.rest, *tail.joined(_asked(request), known, new, overflow.step))
