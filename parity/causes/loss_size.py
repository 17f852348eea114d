"""How a loss depends on the number of its rows: what tells a size from a constant that happens to be as large."""

from __future__ import annotations

import functools
import logging
from typing import Literal

import jax
import numpy as np

from parity._types import Array, ArrayLike, PyTree
from parity.causes.evidence import Evidence

_logger = logging.getLogger(__name__)

Law = Literal["sum", "mean"]


def laws(evidence: Evidence, axis: int) -> frozenset[Law] | None:
    """Say whether the port's loss adds up over the parts of a batch, or is their weighted mean, or neither.

    Args:
        evidence: what is explained; its first row's predictions and targets are cut.
        axis: of predictions and targets, along which they are cut into two parts.

    Returns:
        The laws that hold; ``None`` where there is nothing to cut, such as the classes of labels.
    """
    batch, predictions = _batch(evidence)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((predictions, batch))]
    lengths = {leaf.shape[axis] if -leaf.ndim <= axis < leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or (length := lengths.pop()) < 2:
        return None
    first = max(1, length // 3)
    values = []
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        for part in (slice(None), slice(None, first), slice(first, None)):
            cut = functools.partial(_cut, axis=axis, part=part)
            try:
                values.append(float(evidence.port.loss(*jax.tree.map(cut, (predictions, batch)))))
            except Exception:  # a loss that takes whole batches only raises whatever JAX raises of a part
                _logger.debug("The loss takes no part of a batch along axis %d.", axis, exc_info=True)
                return frozenset()
    whole, a, b = values
    size = abs(whole) + abs(a) + abs(b)
    if not np.isfinite(size) or whole == 0:
        return frozenset()
    # The same terms are added up in another order: as many roundings as there are terms (Higham, 2002, 4.2).
    near = 4 * max(leaf.size for leaf in leaves) * float(np.finfo(np.float64).eps) * size
    found: dict[Law, float] = {"sum": a + b, "mean": (first * a + (length - first) * b) / length}
    return frozenset(law for law, value in found.items() if abs(value - whole) <= near)


def _batch(evidence: Evidence) -> tuple[PyTree, PyTree]:
    """Return targets and predictions of the first row's first pass, in float64."""
    recording, row = evidence.recording, evidence.rows[0]
    batch = recording.batches[recording.batch_of_step[int(recording.kept[row])]]
    predictions, targets = recording.arbiter_locked.predictions[row], batch.passes()[0][1]
    if len(batch.passes()) > 1:
        predictions = jax.tree.map(lambda leaf: leaf[: batch.parts[0]], predictions)
    return jax.tree.map(_wide, targets), jax.tree.map(_wide, predictions)


def _wide(leaf: ArrayLike) -> Array:
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf


def _cut(leaf: Array, *, axis: int, part: slice) -> Array:
    index: list[slice] = [slice(None)] * np.ndim(leaf)
    index[axis] = part
    return leaf[tuple(index)]
