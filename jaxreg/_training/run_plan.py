"""Running a request by the plan that was chosen for it, with one kind of outcome from all of them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._optim import optax_step
from jaxreg._optim.settings import as_in
from jaxreg._optim.sgd import MomentumState, PyTorchSGD, sgd
from jaxreg._plans import (
    after_overflow,
    compressed,
    compressed_minibatch,
    least_squares,
    minibatch,
    overflow_search,
    spectral,
    spectral_small,
    stepwise,
)
from jaxreg._plans.stepwise import Data, Outcome
from jaxreg._statistics import gram_root
from jaxreg._training import plan_choice, tpu_offload
from jaxreg._training.request import Request
from jaxreg._validation import is_array, is_number

Array = np.ndarray[Any, Any]


def run(plan: str, request: Request) -> Outcome:
    """Train by ``plan``, which must be one that can serve."""
    if plan == "stepwise":
        return _at(_stepwise(request), request.at)
    if request.batches is not None:
        return _in_batches(request)
    return (_spectral if plan == "spectral" else _compressed)(request)


class _Overflow(NamedTuple):
    """Where a training could overflow: the step, and parameters and optimizer state before it."""

    step: int
    params: Any
    state: Any


def _stepwise(request: Request) -> Outcome:
    assert request.data is not None
    batches = request.batches
    how = stepwise.run if batches is None else functools.partial(minibatch.run, batches=batches)
    graph, params, rest = request.split
    return how(
        params,
        rest,
        _data(request),
        graph=graph,
        optimizer=request.optimizer,
        loss=request.loss,
        epochs=request.epochs,
        record=request.record,
    )


def _data(request: Request) -> Data:
    """The data on the device, in the dtype of the parameters."""
    return jax.tree.map(lambda leaf: _as(leaf, request.dtype), request.data)


def _as(leaf: Any, dtype: Any) -> Any:
    """An array of that dtype; JAX takes a tenth of a millisecond to see that one is."""
    return leaf if is_array(leaf) and leaf.dtype == dtype else jnp.asarray(leaf, dtype)


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


def _source(request: Request) -> Any:
    """What the training is worked out from: the data where they go through in one call, else a root of them."""
    if request.statistics is not None:
        return tpu_offload.brought(request.statistics.root)
    assert request.data is not None
    elsewhere = tpu_offload.home() is not None and not isinstance(request.data.inputs, np.ndarray)
    if gram_root.in_one(request.data, request.dtype) and not elsewhere:
        return request.data
    return tpu_offload.brought(gram_root.root(*request.data, dtype=request.dtype))


@functools.partial(jax.jit, static_argnames=("dtype",))
def _problem_of(source: Any, kernel: Any, bias: Any, scale: Any, dtype: str) -> least_squares.Problem:
    root = gram_root.root_of(source, dtype) if isinstance(source, tuple) else source
    outputs = kernel.shape[1]
    return least_squares.problem(root[:, :-outputs], root[:, -outputs:], kernel, bias, scale)


def _problem(request: Request) -> least_squares.Problem:
    source, layer = _source(request), tpu_offload.brought(request.layer)
    with tpu_offload.working():
        return _problem_of(source, *layer, plan_choice.scale(request), request.dtype.name)


def _params(request: Request, coefficients: Any) -> Any:
    """The model's parameters of coefficients ``(..., coefficients, outputs)``."""
    return least_squares.params(coefficients, jax.tree.structure(request.split[1]))


def _spectral(request: Request) -> Outcome:
    settings = as_in(request.dtype, *request.optimizer.settings)
    numbers = np.array([*settings, plan_choice.scale(request), request.epochs], np.float64)
    assert request.layer is not None
    with jax.enable_x64(True), gram_root.small_work(request.data, request.dtype):
        source, layer = _source(request), tpu_offload.brought(request.layer)
        with tpu_offload.working():
            answer = _by_modes(request, source, layer, numbers)
        answer = tpu_offload.returned(answer, request.layer[0])
        # NumPy takes the flag out of its array in an eighth of the time that bool() does.
        if request.data is None or not np.asarray(answer.overflows):
            return Outcome(answer.params, None, answer.losses, answer.gradients, answer.weights)
        overflow = _spectral_overflow(request, numbers)
    params = jax.tree.unflatten(jax.tree.structure(request.split[1]), jax.tree.leaves(answer.params))
    known = Outcome(params, request.split[2], answer.losses, answer.gradients, answer.weights)
    return _continued(request, known, overflow)


def _by_modes(request: Request, source: Any, layer: Any, numbers: Array) -> spectral.Answer:
    momentum, at = bool(numbers[1] != 0), request.at
    kept = request.epochs if at is None else len(at)
    steps: dict[str, Any] = {"dtype": request.dtype, "every": request.epochs if at is None else None}
    given = (source, *layer, numbers, None if at is None else at.astype(np.float64))
    if spectral_small.serves(source, layer[0], kept, momentum=momentum, record=request.record):
        return spectral_small.run(*given, **steps)
    return spectral.run(*given, **steps, momentum=momentum, record=request.record)


def _spectral_overflow(request: Request, numbers: Array) -> _Overflow:
    assert request.data is not None
    assert request.layer is not None
    root, outputs = tpu_offload.brought(gram_root.root(*request.data, dtype=request.dtype)), request.shapes[1][1]
    with tpu_offload.working():
        given = (root[:, -outputs:], *tpu_offload.brought(request.layer), numbers)
        found = overflow_search.search(root[:, :-outputs], *jax.tree.map(lambda leaf: leaf[None], given))
    steps, now, velocity = tpu_offload.returned(found, request.layer[0])
    step, params = int(steps[0]), _params(request, now[0])
    buffer = MomentumState(jnp.asarray(min(step, 2**30), jnp.int32), _params(request, velocity[0]))
    state = jax.tree.map(
        lambda part: buffer if isinstance(part, MomentumState) else part,
        request.optimizer.init(params),
        is_leaf=lambda part: isinstance(part, MomentumState),
    )
    return _Overflow(step, params, state)


def _rounded(optimizer: Any, dtype: Any) -> Any:
    """The optimizer, PyTorch's SGD with its settings as they are in the dtype of the parameters."""
    if not isinstance(optimizer, PyTorchSGD) or not all(is_number(value) for value in optimizer.settings[:4]):
        return optimizer
    rate, momentum, dampening, decay, nesterov, maximize = as_in(dtype, *optimizer.settings)
    return sgd(rate, momentum, dampening=dampening, weight_decay=decay, nesterov=nesterov, maximize=maximize)


def _in_batches(request: Request) -> Outcome:
    batches, data, layer = request.batches, request.data, request.layer
    assert batches is not None
    assert data is not None
    assert layer is not None
    rows = batches.whole * batches.size + batches.last
    # PyTorch's SGD treats all alike. To split a model takes longer than many of its steps.
    alike = isinstance(request.optimizer, PyTorchSGD)
    names = {"kernel": 0} if layer[1] is None else {"bias": 0, "kernel": 0}
    with jax.enable_x64(True):
        made = gram_root.products_of_batches(*data, dtype=request.dtype, size=batches.size, rows=rows)
        with tpu_offload.working():
            found = compressed_minibatch.solve(
                tpu_offload.brought(made),
                *tpu_offload.brought(layer),
                optimizer=_rounded(request.optimizer, request.dtype),
                structure=jax.tree.structure(names if alike else request.split[1]),
                steps=request.epochs * batches.steps,
                record=request.record,
                mean=plan_choice.is_mean(request),
                dtype=request.dtype.name,
            )
        params, kept, overflows = tpu_offload.returned(found, layer[0])
    if np.asarray(overflows):
        return _at(_stepwise(request), request.at)
    return _at(Outcome(params, None, *kept), request.at)


def _compressed(request: Request) -> Outcome:
    optimizer = _rounded(request.optimizer, request.dtype)
    _, structure_of, rest = request.split
    with jax.enable_x64(True):
        problem = _problem(request)
        with tpu_offload.working():
            found = compressed.solve(
                problem,
                optimizer=optimizer,
                structure=jax.tree.structure(structure_of),
                epochs=request.epochs,
                record=request.record,
                largest=float(np.finfo(request.dtype).max),
            )
        assert request.layer is not None
        params, kept, overflow = tpu_offload.returned(found, request.layer[0])
        if request.at is not None:
            kept = jax.tree.map(lambda leaf: leaf[request.at], kept)
        outcome = Outcome(_cast(request, params), rest, *(_cast(request, leaf) for leaf in kept))
        step = int(overflow[0])
    if step == request.epochs or request.data is None:
        return outcome
    return _continued(request, outcome, _Overflow(step, *overflow[1]))


def _continued(request: Request, outcome: Outcome, overflow: _Overflow) -> Outcome:
    """The outcome with what a loop in the model's dtype does from where it could overflow."""
    params, (graph, _, rest) = _cast(request, overflow.params), request.split
    shapes = jax.eval_shape(functools.partial(optax_step.begin, request.optimizer), params)
    asked, places = after_overflow.split(_asked(request), overflow.step)
    later = after_overflow.run(
        params,
        rest,
        jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), overflow.state, shapes),
        _data(request),
        graph=graph,
        optimizer=request.optimizer,
        loss=request.loss,
        steps=request.epochs - overflow.step,
        record=request.record,
        asked=asked,
    )
    known = (outcome.losses, outcome.gradients, outcome.weights)
    new = (later.losses, later.gradients, later.weights)
    return Outcome(later.params, later.rest, *after_overflow.joined(places, known, new))
