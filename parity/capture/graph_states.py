"""The buffers that operations of a step change, such as BatchNorm's running statistics."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from parity._errors import UnsupportedError
from parity.capture import leaf_names, unsupported
from parity.capture.graph_encoding import Encoded
from parity.capture.graph_steps import Begun
from parity.capture.torch_tensors import to_array
from parity.recording.recording import Array


class States:
    """Their names, and whether steps alone change them.

    Args:
        models: the modules that were called, which give the names.
    """

    def __init__(self, models: Iterable[torch.nn.Module]) -> None:
        self._models = models
        self._names: dict[int, str] = {}
        self._tensors: dict[str, torch.Tensor] = {}

    def name(self, tensor: torch.Tensor) -> str:
        """The name of a buffer."""
        if id(tensor) not in self._names:
            self._names |= leaf_names.of([tensor], self._models)
        return self._names[id(tensor)]

    def check(self, begun: Begun, encoded: Encoded) -> None:
        """Take up what a step starts with.

        Raises:
            UnsupportedError: something else than the steps before has changed it.
        """
        done = begun.keeper.done
        for name, state in encoded.states.items():
            first = to_array(state.first)
            if not done:
                begun.initial_states[name] = first
            elif name not in begun.initial_states:
                raise UnsupportedError(f"{name} is changed by this step, and was not by the first one")
            else:
                unsupported.check_buffers({name: begun.keeper.last.buffers[name]}, {name: first})
        if not done:
            begun.keeper.last.buffers.update(begun.initial_states)
        self._tensors = {name: state.tensor for name, state in encoded.states.items()}

    def after(self, begun: Begun) -> dict[str, Array]:
        """What a step leaves."""
        last = begun.keeper.last.buffers
        return {name: to_array(self._tensors[name]) if name in self._tensors else last[name] for name in last}
