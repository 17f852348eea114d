"""The Port: a training in JAX, in the parts that parity can take hold of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from flax import nnx

# PyTorch's name of an optimizer's state, and the fields that Optax transformations keep it in.
STATE_FIELDS = {"momentum_buffer": ("momentum_buffer", "trace"), "exp_avg": ("mu",), "exp_avg_sq": ("nu",)}


@dataclasses.dataclass(frozen=True, eq=False)
class Port:
    """The JAX counterpart of a PyTorch training, from any JAX library.

    Attributes:
        params: a tree of arrays, the initial parameters.
        apply: ``apply(params, inputs)`` to predictions; pure.
        loss: ``loss(predictions, targets)`` to a scalar.
        optimizer: an Optax transformation.
        state: the model's own state where it has one, such as BatchNorm's running statistics, as a tree of arrays; then
            ``apply(params, state, inputs)`` returns predictions and the next state.
        batches: the port's own data, one ``(inputs, targets)`` a step, where the data's way is to be proved too;
            ``None``: it is fed what was recorded.
        names: where the port keeps each of PyTorch's parameters, such as ``{"weight": "kernel.T", "bias": "bias"}``:
            the path to a leaf of ``params``, joined with dots, and ``.T`` where it is transposed. ``None``: found from
            names and shapes.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> port = Port(
        ...     params={"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)},
        ...     apply=lambda params, inputs: inputs @ params["kernel"] + params["bias"],
        ...     loss=lambda predictions, targets: jnp.mean((predictions - targets) ** 2),
        ...     optimizer=optax.sgd(0.1),
        ... )
    """

    params: Any
    apply: Callable[..., Any]
    loss: Callable[[Any, Any], Any]
    optimizer: optax.GradientTransformation
    names: Mapping[str, str] | None = None
    state: Any = None
    batches: Sequence[tuple[Any, Any]] | None = None

    @classmethod
    def from_nnx(
        cls,
        model: nnx.Module,
        loss: Callable[[Any, Any], Any],
        optimizer: optax.GradientTransformation,
        names: Mapping[str, str] | None = None,
    ) -> Port:
        """A port from a Flax NNX module, whose :class:`flax.nnx.Param` values are the parameters.

        Example:
            >>> from flax import nnx
            >>> import jaxreg
            >>> model = jaxreg.Linear(3, 1, rngs=nnx.Rngs(0))
            >>> port = Port.from_nnx(model, jaxreg.mse_loss, jaxreg.sgd(0.1))
            >>> sorted(port.params)
            ['bias', 'kernel']
        """
        graph, state, rest = nnx.split(model, nnx.Param, ...)

        def apply(params: Any, inputs: Any) -> Any:
            return nnx.merge(graph, nnx.State(params), rest)(inputs)

        return cls(nnx.to_pure_dict(state), apply, loss, optimizer, names)


def optimizer_state(state: Any) -> dict[str, Any]:
    """Those parts of an Optax state that PyTorch keeps too, by PyTorch's key; each a tree like the parameters.

    Where parameters are partitioned over several transformations, each keeps a part and a hole for the rest.
    """
    found = {}
    for key, fields in STATE_FIELDS.items():
        values = [value for field in fields for _, value in optax.tree.get_all_with_path(state, field)]
        if values:
            found[key] = jax.tree.map(_whole, *values, is_leaf=is_hole)
    return found


def is_hole(value: Any) -> bool:
    """Whether a leaf is kept elsewhere, or nowhere."""
    return isinstance(value, optax.MaskedNode)


def _whole(*parts: Any) -> Any:
    return next((part for part in parts if not is_hole(part)), parts[0])
