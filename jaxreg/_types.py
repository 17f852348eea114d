"""Names for the types that many rooms use, so that a signature says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from flax import nnx

Array = jax.Array
# An array in the host's memory.
HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
AnyArray: TypeAlias = jax.Array | HostArray
# One number, or one for each of several trainings; perhaps one that only the running program knows.
Number: TypeAlias = float | AnyArray
# Inputs, targets and weights; `training_step.Data` is one.
Rows: TypeAlias = tuple[AnyArray, AnyArray, AnyArray | None]
DType: TypeAlias = np.dtype[Any]
# A tree that only jax.tree opens. It is `object`, not `Any`: the type checker refuses to reach into it.
PyTree: TypeAlias = object
# A model's parameters, or anything of the same structure: gradients, a velocity.
Params: TypeAlias = object
# An optimizer's state.
OptState: TypeAlias = object
# What of a model's state is no parameter.
RestState: TypeAlias = object
TreeDef: TypeAlias = jax.tree_util.PyTreeDef
GraphDef: TypeAlias = nnx.GraphDef
Loss: TypeAlias = Callable[..., jax.Array]


@runtime_checkable
class Optimizer(Protocol):
    """What is asked of an Optax transformation; it may be of any class."""

    def __hash__(self) -> int: ...

    @property
    def init(self) -> Callable[[Params], OptState]:
        """Return what makes the state before the first step."""

    @property
    def update(self) -> Callable[..., tuple[Params, OptState]]:
        """Return what makes updates and the next state of gradients, the state and the parameters."""
