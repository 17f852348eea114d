"""Factors that PyTorch's own loss tells of: targets left out, weights of classes, beta, a factor written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from parity._types import ArrayLike, PyTree
from parity.recording.recording import Recording

Factor = Callable[[PyTree, PyTree], float | jax.Array]


def first(tree: PyTree) -> ArrayLike:
    """Return a tree's first array; a zero where it has none."""
    leaves = jax.tree.leaves(tree)
    return leaves[0] if leaves else np.zeros(())


def constant(ratio: float) -> Factor:
    """Return a factor that no batch changes."""
    return lambda predictions, targets: ratio


def told_by_the_loss(recording: Recording) -> Iterator[tuple[str, Factor, str, str]]:
    """Yield name, factor, what it says and the fix of each that this recording's loss could have."""
    kind, settings = recording.loss.type.rpartition(".")[2], recording.loss.settings
    mean = settings.get("reduction") == "mean"
    ignored = settings.get("ignore_index")
    if mean and ignored is not None:

        def kept(predictions: PyTree, targets: PyTree) -> float | jax.Array:
            labels = first(targets)
            return np.size(labels) / jnp.maximum((jnp.asarray(labels) != ignored).sum(), 1)

        what = f"PyTorch's mean leaves out the targets that are ignore_index={ignored}, and the one here counts them"
        yield "ignore_index", kept, what, f"divide by the number of targets that are not {ignored}"
    if mean and kind in ("CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"):

        def weighted(predictions: PyTree, targets: PyTree) -> float | jax.Array:
            leaves = jax.tree.leaves(targets)
            if len(leaves) != 2:
                return 1.0
            return np.size(leaves[0]) / jnp.asarray(leaves[1])[jnp.asarray(leaves[0])].sum()

        what = "PyTorch's mean divides by the weights of the labels that are there, the one here by their number"
        yield "class weights", weighted, what, "divide by weights[labels].sum()"
    beta = settings.get("beta")
    if kind in ("SmoothL1Loss", "smooth_l1_loss") and beta:
        what = f"the Huber loss is beta = {beta:g} times PyTorch's smooth L1 loss"
        yield "huber for smooth L1", constant(1 / beta), what, f"divide optax.huber_loss(..., delta={beta:g}) by it"
    if scale := settings.get("scale"):
        what = f"PyTorch's program multiplies its loss by {scale:.12g}, and the port does not"
        yield "scaled loss", constant(scale), what, f"multiply the loss by {scale:.12g}"
