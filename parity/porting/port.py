"""The Port: a training in JAX, in the parts that parity can take hold of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from parity._errors import PortError
from parity.porting import nnx_adapter, optax_state


@dataclasses.dataclass(frozen=True, eq=False)
class Port:
    """The JAX counterpart of a PyTorch training, from any JAX library.

    Attributes:
        params: a tree of arrays, the initial parameters. Any registered tree will do, an Equinox module too: its
            floating arrays are the parameters, other leaves (functions, settings) stay as they are.
        apply: ``apply(params, inputs)`` to predictions; pure. One positional argument of PyTorch's model comes as it
            is, a bare array; several come as a tuple; what it was given by keyword comes as a dict.
        loss: ``loss(predictions, targets)`` to a scalar. ``targets`` are all tensors that entered PyTorch's loss beside
            the predictions: one comes as a bare array, several as a tuple in the order in which they entered. So
            ``CrossEntropyLoss(weight)`` gives ``(labels, weight)``, and a loss scaled by a tensor that tensor too;
            ``recording.batches[0].targets`` shows them.
        optimizer: an Optax transformation.
        state: the model's own state where it has one, such as BatchNorm's running statistics, as a tree of arrays; then
            ``apply(params, state, inputs)`` returns predictions and the next state.
        batches: the port's own data, one ``(inputs, targets)`` a step, where the data's way is to be proved too;
            ``None``: it is fed what was recorded.
        names: where the port keeps each of PyTorch's parameters, such as ``{"weight": "kernel.T", "bias": "bias"}``:
            the path to a leaf of ``params``, joined with dots, and ``.T`` where it is transposed: a matrix (out, in)
            to (in, out), a convolution's kernel (out, in, height, width) to (height, width, in, out). The leaf may
            have an axis split in several, as attention's heads are. A parameter that the port keeps in several
            leaves, one after the other along PyTorch's first axis, has a list of them: ``{"attn.in_proj_weight":
            ["query.kernel.T", "key.kernel.T", "value.kernel.T"]}``. Buffers of the model, such as ``running_mean``,
            go to leaves of ``state`` likewise. ``None``: found from names and shapes.

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
    names: Mapping[str, str | Sequence[str]] | None = None
    state: Any = None
    batches: Sequence[tuple[Any, Any]] | None = None
    # The module that the port was made from, where there is one: it can be put into another mode and made a port anew.
    _module: Any = dataclasses.field(default=None, repr=False, kw_only=True)

    @classmethod
    def from_nnx(
        cls,
        model: nnx.Module,
        loss: Callable[[Any, Any], Any],
        optimizer: optax.GradientTransformation,
        names: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Port:
        """Make a port from a Flax NNX module, whose :class:`flax.nnx.Param` values are the parameters.

        The port starts from the weights that ``model`` has. Copy the recorded ones into it first where both trainings
        are to start alike: ``recording.initial``, kernels of linear layers transposed.

        Example:
            >>> from flax import nnx
            >>> import jaxreg
            >>> model = jaxreg.Linear(3, 1, rngs=nnx.Rngs(0))
            >>> port = Port.from_nnx(model, jaxreg.mse_loss, jaxreg.sgd(0.1))
            >>> sorted(port.params)
            ['bias', 'kernel']
        """
        if not isinstance(model, nnx.Module):
            raise PortError(f"expected a flax.nnx.Module, got {type(model).__name__}")
        params, state, apply = nnx_adapter.parts(model)
        return cls(params, apply, loss, optimizer, names, state, _module=model)


def check(port: Any) -> Port:
    """Check that a port's parts are of the kinds that they should be.

    Raises:
        PortError: with the first that is not.
    """
    if not isinstance(port, Port):
        raise PortError(f"expected a parity.Port or a function from the Recording to one, got {type(port).__name__}")
    for name in ("apply", "loss"):
        if not callable(getattr(port, name)):
            raise PortError(f"the Port's {name} must be a function, got {type(getattr(port, name)).__name__}")
    if not all(callable(getattr(port.optimizer, part, None)) for part in ("init", "update")):
        raise PortError(f"the Port's optimizer must be an Optax transformation, got {type(port.optimizer).__name__}")
    if port.names is not None and not isinstance(port.names, Mapping):
        raise PortError(
            f"the Port's names must be a mapping from PyTorch's to its own, got {type(port.names).__name__}"
        )
    for name, value in (port.names or {}).items():
        listed = isinstance(value, Sequence) and value and all(isinstance(path, str) for path in value)
        if not listed:
            raise PortError(f"the Port's names[{name!r}] must be a path such as 'kernel.T', or a list, got {value!r}")
    return port


def without_dropout(port: Port) -> Port:
    """Return the same port with its NNX module's Dropout layers off; a port that is a function drops what it will."""
    if port._module is None:
        return port
    quiet = nnx.clone(port._module)
    for _, node in nnx.iter_graph(quiet):
        if isinstance(node, nnx.Dropout):
            node.deterministic = True
    return dataclasses.replace(port, apply=nnx_adapter.parts(quiet)[2], _module=quiet)


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of ``Port.params`` is trained: a floating array, or the shape of one."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct | bool | int | float)


def parameters(params: Any) -> Any:
    """``params`` with its floating arrays alone; in the place of every other leaf is ``None``, which is no leaf."""
    return jax.tree.map(lambda leaf: leaf if is_parameter(leaf) else None, params)


def arrays(state: Any) -> Any:
    """``state`` with its arrays and numbers alone, of whatever dtype."""
    return jax.tree.map(lambda leaf: leaf if _is_array(leaf) else None, state)


def of_arrays(port: Port) -> Port:
    """Return the same port with nothing but arrays in ``params`` and ``state``, so that JAX can trace it; at most once.

    Its optimizer counts its steps exactly in float64 runs: see :class:`parity.porting.optax_state.ExactCounts`.
    """
    optimizer = optax_state.ExactCounts.of(port.optimizer)
    if isinstance(port.apply, _Rejoined):
        return port if optimizer is port.optimizer else dataclasses.replace(port, optimizer=optimizer)
    params, state = parameters(port.params), None if port.state is None else arrays(port.state)
    return dataclasses.replace(port, params=params, state=state, apply=_Rejoined(port), optimizer=optimizer)


class _Rejoined:
    """``apply`` of a port whose trees had more than arrays in them, or none to speak of: given back before the call.

    It always takes the state and gives it back, ``None`` where the model has none.
    """

    def __init__(self, port: Port) -> None:
        self._port = port

    def __call__(self, params: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        port = self._port
        whole = _joined(params, port.params)
        if port.state is None:
            return port.apply(whole, inputs), None
        made = port.apply(whole, _joined(state, port.state), inputs)
        if not isinstance(made, tuple) or len(made) != 2:
            raise PortError(
                f"apply gives a {type(made).__name__}; with a state in the Port, apply(params, state, inputs) returns "
                "two things: the predictions and the next state"
            )
        return made[0], arrays(made[1])


def _joined(some: Any, template: Any) -> Any:
    return jax.tree.map(
        lambda leaf, original: original if leaf is None else leaf, some, template, is_leaf=lambda leaf: leaf is None
    )
