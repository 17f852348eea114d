"""How far a training stopped from the least squares, which it would reach in the end: worked out when it is shown."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._plans.stepwise import Data
from jaxreg._statistics import gram_root
from jaxreg._training import plan_choice
from jaxreg._training.request import Request
from jaxreg._validation import is_array, known

Array = np.ndarray[Any, Any]
# Data of so many bytes are kept with the result; larger ones are looked at again only if somebody else keeps them.
_KEPT = 1 << 23
# The share of the targets' variance that the least squares explain and the training does not, from which it is far.
_FAR = 0.01
# Multiplications that a result may cost to be shown.
_MOST = 1e10
# A variance that is this share of the targets' squares, or less, is none: it is what their sums were rounded by.
_ROUNDED = 2.0**-40
# How far the first loss of float32 may be from that of float64, relatively, if the data are the ones it is of.
_SAME = 2.0**-10


def watch(request: Request, outcome: Any) -> Callable[[], str] | None:
    """What says how far the training stopped from the least squares; a microsecond, since every training pays it."""
    if request.layer is None:
        return None
    data = request.data
    if data is not None and sum(leaf.nbytes for leaf in data if leaf is not None) > _KEPT:
        request.data = Data(*(leaf if leaf is None else weakref.ref(leaf) for leaf in data))
    return functools.partial(sentence, request, outcome.params, outcome.losses)


def sentence(request: Request, params: Any, losses: Any) -> str:
    """A sentence where the training stopped far from the least squares; empty where it is near, or nobody knows.

    Args:
        request: the training; its data may be weak references.
        params: of the linear layer after it, in the order of their names.
        losses: that were kept of it.
    """
    try:
        found = _root(request, losses) if _is_for_least_squares(request) else None
    except jax.errors.JaxRuntimeError:  # no memory, or data that may not be brought: a result is shown all the same
        found = None
    if found is None:
        return ""
    outputs, bias = request.model.out_features, request.model.use_bias
    design, targets = found[:, : -outputs - (not bias)], found[:, -outputs:]
    is_sgd = isinstance(request.optimizer, PyTorchSGD)
    advice = "; more epochs, another learning rate or inputs of one scale bring it there" if is_sgd else ""
    return _said(design, targets, found[:, -outputs - 1] if bias else None, _coefficients(params), advice)


def _is_for_least_squares(request: Request) -> bool:
    """Whether the least squares of its data are what the training makes for."""
    if isinstance(request.optimizer, PyTorchSGD):
        settings = request.optimizer.settings
        if settings.maximize or known(settings.weight_decay) != 0:
            return False
    return not request.is_traced and plan_choice.is_squared(request)


def _root(request: Request, losses: Any) -> Array | None:
    """A root of the data's cross-products; ``None`` where they are gone, written to, too large or not finite."""
    if request.statistics is not None:
        return _sound(request.statistics.root) if request.fits else None
    data = _there(request.data)
    if data is None:
        return None
    request = dataclasses.replace(request, data=data)
    if not request.fits or not _is_cheap(request):
        return None
    found = _sound(gram_root.root(*data, dtype=request.dtype))
    if found is None or all(leaf is None or is_array(leaf) for leaf in data):
        return found
    is_first = request.batches is None and losses.shape[0] > 0 and (request.at is None or request.at[0] == 0)
    if not is_first:
        return None
    expected, seen = _first_loss(request, found), float(np.asarray(losses)[0])
    return found if abs(seen - expected) <= _SAME * expected else None


def _first_loss(request: Request, root: Array) -> float:
    """The loss before the first step, over all rows."""
    assert request.layer is not None
    outputs, (kernel, bias) = request.outputs, request.layer
    ones = root[:, -outputs - 1]
    start = np.asarray(kernel, np.float64)
    errors = root[:, : -outputs - 1] @ start - root[:, -outputs:]
    errors += 0.0 if bias is None else np.outer(ones, np.asarray(bias, np.float64))
    return float(np.sum(errors**2) / ((ones @ ones) * outputs if plan_choice.is_mean(request) else 1.0))


def _there(data: Any) -> Data | None:
    leaves = [leaf() if isinstance(leaf, weakref.ref) else leaf for leaf in data]
    gone = any(leaf is None and given is not None for leaf, given in zip(leaves, data, strict=True))
    return None if gone else Data(*leaves)


def _is_cheap(request: Request) -> bool:
    columns = request.columns + request.outputs
    return min(request.rows, columns) * columns**2 <= _MOST


def _sound(root: Any) -> Array | None:
    array = np.asarray(root)
    return array if np.isfinite(array).all() else None


def _coefficients(params: Any) -> Array:
    """Kernel over bias, of parameters in the order of their names."""
    *bias, kernel = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params))
    return np.concatenate([kernel, bias[0][None]]) if bias else kernel


def _said(design: Array, targets: Array, ones: Array | None, end: Array, advice: str) -> str:
    size = np.sqrt(np.sum(design**2, 0))
    size = np.where(size > 0, size, 1.0)
    best = np.linalg.lstsq(design / size, targets, rcond=None)[0] / size[:, None]
    squares = total = np.sum(targets**2, 0)
    if ones is not None:
        total = np.sum((targets - np.outer(ones, ones @ targets) / (ones @ ones)) ** 2, 0)
    left, least = (np.sum((design @ found - targets) ** 2, 0) for found in (end, best))
    varies = total > _ROUNDED * squares
    short = np.where(varies, (left - least) / np.where(varies, total, 1.0), 0.0)
    if not np.isfinite(left).all() or not short.max(initial=0.0) > _FAR:
        return ""
    worst = int(short.argmax())
    of = f" of output {worst}" if len(total) > 1 else ""
    mine, theirs = (f"{1 - errors[worst] / total[worst]:.4g}" for errors in (left, least))
    return f"far from the least squares: R²{of} is {mine}, theirs {theirs}{advice}"
