"""Hypotheses about a port's own batches: another order, the last one of an epoch left out."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter

import jax
import numpy as np

from parity._types import PyTree
from parity.causes.evidence import Evidence
from parity.judging.cause import Cause

_logger = logging.getLogger(__name__)


def explain_batch_order(evidence: Evidence) -> list[Cause]:
    """Compare what the port fed itself with what was recorded, batch by batch and row by row."""
    first = next((f for f in evidence.findings if f.stage == "data" and not f.holds), None)
    if first is None or evidence.port.batches is None:
        return []
    recording = evidence.recording
    pool = [(batch.inputs, batch.targets) for batch in recording.batches]
    known = {_digest(batch, batch): number for number, batch in enumerate(pool)}
    recorded = [int(place) for place in recording.batch_of_step]
    given = list(evidence.port.batches)
    try:
        port = [known.get(_digest(batch, pool[0]), -1) for batch in given]
    except ValueError:  # another structure than the recorded one
        _logger.debug("The port's batches have another structure than the recorded ones.", exc_info=True)
        return []
    largest = max(_rows(batch) for batch in pool)
    whole = [place for place in recorded if _rows(pool[place]) == largest]
    count = min(len(whole), len(port))
    step = first.step or 0

    def cause(name: str, sentence: str, fix: str) -> list[Cause]:
        return [Cause(name, sentence, fix, "data", first.tensor, step, 0.0)]

    if len(whole) < len(recorded) and port[:count] == whole[:count] and len(port) >= count > 0:
        sentence = "the port's batches are the recorded ones without the smaller one at the end of each epoch"
        return cause("last batch dropped", sentence, "keep the last batch: drop_last=False, drop_remainder=False")
    if -1 not in port:
        sentence = f"every batch of the port was recorded, but at another step: at step {step} it is that of step "
        sentence += str(recorded.index(port[step]) if port[step] in recorded else "?")
        return cause("batch order", sentence, _ORDER_FIX)
    some = min(len(recorded), len(port))
    rows = [sum((_row_counts(batch) for batch in side), Counter()) for side in _sides(pool, recorded, given, some)]
    if rows[0] == rows[1]:
        return cause(
            "batch order", "the port's rows are the recorded ones, in other batches or another order", _ORDER_FIX
        )
    return []


_ORDER_FIX = (
    "feed the recorded order: recording.batches and .batch_of_step, or jaxreg.torch_random.Generator(seed).randperm"
)


def _sides(
    pool: list[PyTree], recorded: list[int], given: list[PyTree], some: int
) -> tuple[list[PyTree], list[PyTree]]:
    like = [pool[place] for place in recorded[:some]]
    return like, [_alike(batch, pool[0]) for batch in given[:some]]


def _alike(batch: PyTree, like: PyTree) -> PyTree:
    """Return the batch's arrays in the recorded dtypes."""
    return jax.tree.map(lambda leaf, other: np.asarray(leaf).astype(np.asarray(other).dtype), batch, tuple(like))


def _digest(batch: PyTree, like: PyTree) -> bytes:
    digest = hashlib.blake2b()
    for leaf in jax.tree.leaves(_alike(tuple(batch), like)):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.digest()


def _rows(batch: PyTree) -> int:
    return int(np.shape(jax.tree.leaves(batch)[0])[0]) if np.ndim(jax.tree.leaves(batch)[0]) else 1


def _row_counts(batch: PyTree) -> Counter[bytes]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    if len({len(leaf) if leaf.ndim else -1 for leaf in leaves}) != 1 or not leaves[0].ndim:
        return Counter()
    return Counter(
        b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves) for row in range(len(leaves[0]))
    )
