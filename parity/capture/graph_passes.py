"""The backward passes that a step uses: their roots, and what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from parity._errors import UnsupportedError
from parity.capture import graph_encoding
from parity.capture.graph_tape import GraphTape
from parity.capture.graph_values import Call, Leaf, Lost, Made, Outside
from parity.capture.operation_tape import version_of
from parity.capture.torch_tensors import to_array
from parity.recording.recording import Array


class Passes:
    """The roots since gradients were last cleared.

    Attributes:
        listed: of each root the tape's value, what it is multiplied with, and the product.
    """

    def __init__(self, tape: GraphTape) -> None:
        self._tape = tape
        self.listed: list[tuple[Any, float, Array]] = []

    def clear(self) -> None:
        """The step is over."""
        self.listed = []

    @property
    def worth(self) -> Any:
        """The loss: the sum of all roots, in their dtype."""
        return self.listed[0][2].dtype.type(sum(worth for _, _, worth in self.listed))

    def calls(self) -> list[Call]:
        """The operations that lead to the roots, in their order."""
        reached = graph_encoding.reached([value for value, _, _ in self.listed])
        return sorted(reached, key=lambda call: call.number)

    def leaves(self) -> list[torch.Tensor]:
        """The leaves that the roots come from, in the order of their use."""
        found: dict[int, torch.Tensor] = {}
        for call in self.calls():
            for value in graph_encoding.values((call.args, call.kwargs)):
                if isinstance(value, Leaf):
                    found.setdefault(id(value.tensor), value.tensor)
        return list(found.values())

    def begin(self, roots: Sequence[tuple[torch.Tensor, Any, Any]], *, alone: bool = False) -> None:
        """Take up the roots of a ``backward`` that is about to run.

        Args:
            roots: each with the tape's value and the gradient that it is given.
            alone: whether gradients are handed to the program, and not added to those that are there.

        Raises:
            UnsupportedError: gradients of a step before are still there, or a tensor is of unknown origin.
        """
        earlier = bool(self.listed)
        self.listed += [self._root(*root) for root in roots]
        self._check()
        left = any(leaf.grad is not None and bool(leaf.grad.any()) for leaf in self.leaves())
        if alone and earlier:
            raise UnsupportedError("gradients are taken twice in one step. Take them of one loss, the sum of all")
        if not left or alone:
            self.listed = self.listed[-len(roots) :]
        elif not earlier:
            raise UnsupportedError(
                "gradients of earlier steps are added up. Call optimizer.zero_grad() once between two steps"
            )

    def _check(self) -> None:
        known = [value for value, _, _ in self.listed]
        known += [value for call in self.calls() for value in graph_encoding.values((call.args, call.kwargs))]
        reason = next((value.reason for value in known if isinstance(value, Lost)), None)
        if reason is not None:
            raise UnsupportedError(f"the loss cannot be followed: {reason}")

    def _root(self, root: torch.Tensor, value: Any, seed: Any) -> tuple[Any, float, Array]:
        worth = to_array(root)
        if seed is None:
            return value, 1.0, worth.reshape(())
        if seed.numel() == 1 and root.numel() == 1:
            return value, float(seed), (worth.reshape(()) * float(seed)).astype(worth.dtype)
        # A vector's product with what it was given is the number that the gradient is of.
        given = Outside(seed, version_of(seed))
        product = self._tape.call(torch.mul, "mul", (value, given), {}, in_place=False)
        total = self._tape.call(torch.sum, "sum", (Made(product, ()),), {}, in_place=False)
        return Made(total, ()), 1.0, (worth * to_array(seed)).sum(dtype=worth.dtype)
