"""How far a training stopped from the least squares, which it would reach in the end: worked out when it is shown."""

from __future__ import annotations

import dataclasses
import functools
import logging
import weakref
from collections.abc import Callable

import jax
import numpy as np

from jaxreg._nn.linear_params import named, stack
from jaxreg._optim.sgd import PyTorchSGD
from jaxreg._plans.request import Request
from jaxreg._plans.training_step import Data, Outcome
from jaxreg._statistics.gram_root import gram_root
from jaxreg._types import AnyArray, Array, HostArray, Params, Rows
from jaxreg._validation import is_array, known

# Data of so many bytes are kept with the result; larger ones are looked at again only if somebody else keeps them.
_KEPT_BYTES = 1 << 23
# The share of the targets' variance that the least squares explain and the training does not, from which it is far.
_FAR_SHARE = 0.01
# Multiplications that a result may cost to be shown.
_MAX_MULTIPLICATIONS = 1e10
# A variance that is this share of the targets' squares, or less, is none: it is what their sums were rounded by.
_ROUNDING_SHARE = 2.0**-40
# How far the first loss of float32 may be from that of float64, relatively, if the data are the ones it is of.
_SAME_LOSS_SHARE = 2.0**-10


def watch(request: Request, outcome: Outcome) -> Callable[[], str] | None:
    """Return what says how far the training stopped from the least squares; every training pays this call."""
    if not request.is_layer:
        return None
    source = request.source
    if isinstance(source, Data) and sum(leaf.nbytes for leaf in source if leaf is not None) > _KEPT_BYTES:
        request.source = Data(*(leaf if leaf is None else weakref.ref(leaf) for leaf in source))  # type: ignore[arg-type]
    return functools.partial(sentence, request, outcome.params, outcome.losses)


def sentence(request: Request, params: Params, losses: Array) -> str:
    """Return a sentence where the training stopped far from the least squares; empty where it is near, or nobody knows.

    Args:
        request: the training; its data may be weak references.
        params: of the linear layer after it, in the order of their names.
        losses: that were kept of it.
    """
    try:
        found = _root(request, losses) if _is_for_least_squares(request) else None
    except jax.errors.JaxRuntimeError as error:  # no memory, or data that may not be brought: it is shown all the same
        logging.getLogger(__name__).debug("the least squares are not worked out: %s", error)
        found = None
    if found is None:
        return ""
    outputs, bias = request.model.out_features, request.model.use_bias
    design, targets = found[:, : -outputs - (not bias)], found[:, -outputs:]
    is_sgd = isinstance(request.optimizer, PyTorchSGD)
    advice = "; more epochs, another learning rate or inputs of one scale bring it there" if is_sgd else ""
    return _said(design, targets, found[:, -outputs - 1] if bias else None, _coefficients(params), advice)


def _is_for_least_squares(request: Request) -> bool:
    """Return whether the least squares of its data are what the training makes for."""
    if isinstance(request.optimizer, PyTorchSGD):
        settings = request.optimizer.settings
        if settings.maximize or known(settings.weight_decay) != 0:
            return False
    return not request.is_traced and request.squared_error is not None


def _root(request: Request, losses: Array) -> HostArray | None:
    """Return a root of the data's cross-products; ``None`` where they are gone, written to, too large or not finite."""
    if request.statistics is not None:
        return _sound(request.statistics.root) if request.fits else None
    data = _held(request.data)
    if data is None:
        return None
    request = dataclasses.replace(request, source=data)
    if not request.fits or not _is_cheap(request):
        return None
    found = _sound(gram_root(*data, dtype=request.dtype))
    if found is None or all(leaf is None or is_array(leaf) for leaf in data):
        return found
    is_first = request.batches.is_full and losses.shape[0] > 0 and (request.at is None or request.at[0] == 0)
    if not is_first:
        return None
    expected, seen = _first_loss(request, found), float(np.asarray(losses)[0])
    return found if abs(seen - expected) <= _SAME_LOSS_SHARE * expected else None


def _first_loss(request: Request, root: HostArray) -> float:
    """Return the loss before the first step, over all rows."""
    outputs = request.outputs
    start, ones = _coefficients(request.split[1]), root[:, -outputs - 1]
    errors = root[:, : len(start)] @ start - root[:, -outputs:]
    return float(np.sum(errors**2) / ((ones @ ones) * outputs if request.squared_error == "mean" else 1.0))


def _held(data: Rows) -> Data | None:
    """Return the data, of which weak references may be all there is; ``None`` where nobody else keeps them."""
    inputs, targets, weights = (leaf() if isinstance(leaf, weakref.ref) else leaf for leaf in data)
    if inputs is None or targets is None or (weights is None and data[2] is not None):
        return None
    return Data(inputs, targets, weights)


def _is_cheap(request: Request) -> bool:
    rows, coefficients, outputs = request.sizes
    columns = coefficients + outputs
    return min(rows, columns) * columns**2 <= _MAX_MULTIPLICATIONS


def _sound(root: AnyArray) -> HostArray | None:
    array = np.asarray(root)
    return array if np.isfinite(array).all() else None


def _coefficients(params: Params) -> HostArray:
    """Return the coefficients of a layer's parameters, in NumPy's float64 whatever JAX's setting is."""
    leaves = {name: np.asarray(leaf, np.float64) for name, leaf in named(params).items()}
    return stack(leaves["kernel"], leaves.get("bias"))


def _said(design: HostArray, targets: HostArray, ones: HostArray | None, end: HostArray, advice: str) -> str:
    size = np.sqrt(np.sum(design**2, 0))
    size = np.where(size > 0, size, 1.0)
    best = np.linalg.lstsq(design / size, targets, rcond=None)[0] / size[:, None]
    squares = total = np.sum(targets**2, 0)
    if ones is not None:
        total = np.sum((targets - np.outer(ones, ones @ targets) / (ones @ ones)) ** 2, 0)
    left, least = (np.sum((design @ found - targets) ** 2, 0) for found in (end, best))
    varies = total > _ROUNDING_SHARE * squares
    short = np.where(varies, (left - least) / np.where(varies, total, 1.0), 0.0)
    if not np.isfinite(left).all() or not short.max(initial=0.0) > _FAR_SHARE:
        return ""
    worst = int(short.argmax())
    of = f" of output {worst}" if len(total) > 1 else ""
    mine, theirs = (f"{1 - errors[worst] / total[worst]:.4g}" for errors in (left, least))
    return f"far from the least squares: R²{of} is {mine}, theirs {theirs}{advice}"
