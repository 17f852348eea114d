"""Which plans can serve a training, why the others cannot, and which one is likely to be the fastest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxreg._errors import ArgumentError
from jaxreg._memory import short_of
from jaxreg._nn.linear import Linear
from jaxreg._nn.losses import mse_loss
from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._plans.batches import Batches
from jaxreg._statistics.gram_root import rows_over
from jaxreg._training.request import Request
from jaxreg._validation import is_number

PLANS = ("auto", "stepwise", "compressed", "spectral")
# What a step of a compiled loop costs whatever it does, in numbers that could be multiplied meanwhile; the singular
# value decomposition of a small matrix, in cubes of its columns; a number of float64 against one of float32.
_STEP, _DECOMPOSED, _WIDE = 2000.0, 20.0, 2.0
# What it costs to bring a number into a batch that is summed up, to multiply it with another there, and to begin.
_BROUGHT, _SUMMED, _BEGUN = 2.0, 0.1, 2e6


def choose(plan: str, request: Request, trainings: int = 1) -> str:
    """The plan to run, for so many trainings at once.

    Raises:
        ArgumentError: ``plan`` is none, or cannot serve; the message says why.
    """
    if not isinstance(plan, str) or plan not in PLANS:
        raise ArgumentError(f"plan must be one of {', '.join(map(repr, PLANS))}, got {plan!r}")
    request.check_weights()
    why = {"compressed": _not_reduced(request), "stepwise": _not_stepwise(request)}
    why["spectral"] = why["compressed"] or _not_spectral(request)
    if plan != "auto" and why[plan]:
        raise ArgumentError(f"plan={plan!r} cannot serve this training: {why[plan]}")
    if all(why.values()):
        if request.statistics is not None:
            raise ArgumentError(f"statistics in place of data cannot serve this training: {why['compressed']}")
        others = why["compressed"]
        raise ArgumentError(f"no plan can serve this training. stepwise: {why['stepwise']}. The others: {others}")
    if plan != "auto":
        return plan
    costs = _costs(request, trainings)
    return min((name for name in costs if not why[name]), key=costs.__getitem__)


def _costs(request: Request, trainings: int) -> dict[str, float]:
    rows, columns, outputs = request.rows, request.columns, request.outputs
    steps = float(request.epochs)
    if request.batches is not None:
        width, steps = columns + outputs, steps * request.batches.steps
        reduction = _BEGUN + rows * width * (_BROUGHT + _SUMMED * width)
        return {
            "compressed": reduction + steps * (_STEP + _WIDE * columns**2 * outputs),
            "stepwise": steps * (_STEP + 2 * min(request.batches.size, rows) * columns * outputs),
        }
    kept = steps if request.at is None else float(len(request.at))
    reduction = _WIDE * rows * (columns + outputs) ** 2
    return {
        "spectral": reduction + _DECOMPOSED * columns**3 + 30 * trainings * kept * columns * outputs,
        "compressed": reduction + steps * (_STEP + trainings * _WIDE * 2 * columns**2 * outputs),
        "stepwise": steps * (_STEP + trainings * 2 * rows * columns * outputs),
    }


def scale(request: Request) -> float:
    """What the sum of squared errors is multiplied with."""
    if not is_mean(request):
        return 1.0
    weight = request.rows if request.weight is None else request.weight
    return 1.0 / (weight * request.outputs)


def is_mean(request: Request) -> bool:
    """Whether the loss is the mean of squared errors, and not their sum."""
    return _reduction_of(request.loss) == "mean"


def is_squared(request: Request) -> bool:
    """Whether the loss is the mean or the sum of squared errors."""
    return _reduction_of(request.loss) is not None


def _reduction_of(loss: Callable[..., Any]) -> str | None:
    """The reduction of :func:`mse_loss` that a loss is, ``None`` where it is another."""
    if loss is mse_loss:
        return "mean"
    if (
        isinstance(loss, functools.partial)
        and loss.func is mse_loss
        and not loss.args
        and set(loss.keywords) <= {"reduction"}
    ):
        reduction = loss.keywords.get("reduction", "mean")
        return reduction if reduction in ("mean", "sum") else None
    return None


def _not_reduced(request: Request) -> str:
    """Why the data cannot be summed up before the training; empty where it can."""
    model = request.model
    if request.is_traced:
        return (
            "it is traced, by jax.jit, jax.vmap or jax.grad, and how this plan goes on depends on numbers that are not "
            "known then; plan='stepwise', which 'auto' takes, can be traced"
        )
    if type(model) not in (Linear, nnx.Linear):
        return f"the model must be one linear layer, got {type(model).__name__}"
    if model.dtype not in (None, model.param_dtype) or model.dot_general is not jax.lax.dot_general:
        return "the layer computes in another dtype or with another product than a plain one"
    if request.dtype not in (np.float32, np.float64):
        return f"parameters must be float32 or float64, got {request.dtype}, whose own rounding decides what is learned"
    if _reduction_of(request.loss) is None:
        return "the loss must be jaxreg.mse_loss, with reduction 'mean' or 'sum'"
    if request.lowered or model.precision not in (None, "highest", jax.lax.Precision.HIGHEST, "float32"):
        return "products were asked for at another precision than full float32"
    if not isinstance(request.optimizer, PyTorchSGD) and request.draws:
        return "the optimizer draws random numbers, and would draw others in float64"
    if request.data is not None and not request.weighs_rows:
        return f"weights must be one for each row, shape ({request.rows},), got {request.data.weights.shape}"
    if not request.fits:
        return (
            f"inputs must have shape (rows, {model.in_features}) and targets (rows, {model.out_features}), "
            f"got {request.shapes[0]} and {request.shapes[1]}"
        )
    return "" if request.batches is None else _not_in_batches(request, request.batches)


def _not_in_batches(request: Request, batches: Batches) -> str:
    """Why batches cannot be summed up before the training."""
    if request.data is None:
        return "statistics are of all rows at once, got batch_size"
    if batches.shuffle is not None:
        return "batches must be the same in every epoch, got shuffle"
    if request.dtype != np.float32:
        return (
            f"batches of {request.dtype} would lose accuracy in their cross-products; only those of float32 have room"
        )
    if not batches.steps:
        return "drop_last leaves no batch"
    least = request.columns + request.outputs
    if batches.size < least:
        return (
            f"a batch smaller than its cross-products is sooner seen itself: at least {least} rows, got {batches.size}"
        )
    if rows_over(request.data.inputs) is not None:
        return "rows lie on several devices, and batches across them"
    size = 8 * batches.steps * least**2
    free = short_of(size)
    if free is not None:
        return f"cross-products of all batches would take {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
    return ""


def _not_stepwise(request: Request) -> str:
    if request.statistics is not None:
        return "statistics stand for the data, which it must see in every step"
    steps = request.epochs * (1 if request.batches is None else request.batches.steps)
    return "" if steps < 2**31 else f"it counts steps in 32 bits, got {steps:,}"


def _not_spectral(request: Request) -> str:
    if request.batches is not None:
        return "every step must see the whole batch, got batch_size"
    if not isinstance(request.optimizer, PyTorchSGD):
        return "the optimizer must be jaxreg.sgd; 'compressed' takes any"
    if not all(is_number(value) for value in request.optimizer.settings[:4]):
        return "the optimizer's settings must be numbers, not schedules or arrays; 'compressed' takes any"
    return ""
