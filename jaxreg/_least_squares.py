"""How far a training stopped from the least squares, which it would reach in the end: worked out when it is shown."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxreg import _choice, _reduction
from jaxreg._checks import is_array
from jaxreg._plans.stepwise import Data
from jaxreg._request import Request
from jaxreg._sgd import PyTorchSGD

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


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """What is needed to say how far from the least squares a training of one linear layer stopped.

    Attributes:
        data: gives the data, or ``None`` where they are gone.
        root: of statistics that stand for the data, else ``None``.
        is_mean: whether the loss is the mean of squared errors, else their sum.
        start: kernel and bias before the training; the bias may be ``None``.
        end: its parameters after it, in the order of their names.
        dtype: of the parameters.
        losses: of all rows, the one before the first step first, where that was kept; else ``None``.
        advice: what brings it nearer.
    """

    data: Callable[[], Data | None]
    root: Any
    is_mean: bool
    start: tuple[Any, Any]
    end: Any
    dtype: Any
    losses: Any
    advice: str

    def __call__(self) -> str:
        """A sentence where it is far; empty where it is near, or nobody knows."""
        root = self._root()
        kernel, bias = self.start
        if root is None or not np.isfinite(root).all():
            return ""
        outputs = kernel.shape[1]
        ones = root[:, -outputs - 1]
        design, targets = root[:, : -outputs - (bias is None)], root[:, -outputs:]
        if min(design.shape) ** 2 * max(design.shape) > _MOST:
            return ""
        start = np.asarray(kernel if bias is None else np.concatenate([kernel, np.asarray(bias)[None]]), np.float64)
        scale = 1 / ((ones @ ones) * outputs) if self.is_mean else 1.0
        if self.root is None and not self._is_first(scale * np.sum((design @ start - targets) ** 2)):
            return ""
        return _said(design, targets, ones if bias is not None else None, _coefficients(self.end), self.advice)

    def _root(self) -> Array | None:
        if self.root is not None:
            return np.asarray(self.root)
        data = self.data()
        return None if data is None else np.asarray(_reduction.root(*data, dtype=self.dtype))

    def _is_first(self, loss: float) -> bool:
        """Whether the data still are what it was trained on: NumPy's arrays can be written to."""
        data = self.data()
        if data is not None and all(leaf is None or is_array(leaf) for leaf in data):
            return True
        return self.losses is not None and bool(abs(float(np.asarray(self.losses)[0]) - loss) <= _SAME * loss)


def watch(request: Request, outcome: Any) -> Callable[[], str] | None:
    """What says how far the training stopped from the least squares; ``None`` where it does not make for them.

    For small data this is worked out later too: it takes a tenth of a small training.
    """
    if request.layer is None:
        return None
    if request.data is not None and _size(request.data) <= _KEPT:
        return lambda: watched() if (watched := _watch(request, outcome)) else ""
    return _watch(request, outcome)


def _size(data: Data) -> int:
    return data.inputs.nbytes + data.targets.nbytes + (0 if data.weights is None else data.weights.nbytes)


def _watch(request: Request, outcome: Any) -> Watch | None:
    optimizer = request.optimizer
    is_sgd = isinstance(optimizer, PyTorchSGD)
    if is_sgd and not (type(optimizer.settings.weight_decay) is float and optimizer.settings.weight_decay == 0.0):
        return None
    if request.layer is None or request.is_traced or not _choice.is_squared(request) or not request.fits:
        return None
    if is_sgd and optimizer.settings.maximize:
        return None
    at, losses = request.at, outcome.losses
    is_kept = request.batches is None and len(losses) > 0 and (at is None or at[0] == 0)
    return Watch(
        data=_held(request.data),
        root=None if request.statistics is None else request.statistics.root,
        is_mean=_choice.is_mean(request),
        start=request.layer,
        end=outcome.params,
        dtype=request.dtype,
        losses=losses if is_kept else None,  # to look into an array of JAX's takes as long as a small training
        advice="; more epochs, another learning rate or inputs of one scale bring it there" if is_sgd else "",
    )


def _held(data: Data | None) -> Callable[[], Data | None]:
    if data is None or _size(data) <= _KEPT:
        return lambda: data
    references = [leaf if leaf is None else weakref.ref(leaf) for leaf in data]

    def found() -> Data | None:
        leaves = [reference if reference is None else reference() for reference in references]
        gone = any(leaf is None and reference is not None for leaf, reference in zip(leaves, references, strict=True))
        return None if gone else Data(*leaves)

    return found


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
    known = total > _ROUNDED * squares
    short = np.where(known, (left - least) / np.where(known, total, 1.0), 0.0)
    if not np.isfinite(left).all() or not short.max(initial=0.0) > _FAR:
        return ""
    worst = int(short.argmax())
    of = f" of output {worst}" if len(total) > 1 else ""
    mine, theirs = (f"{1 - errors[worst] / total[worst]:.4g}" for errors in (left, least))
    return f"far from the least squares: R²{of} is {mine}, theirs {theirs}{advice}"
