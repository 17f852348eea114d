"""``fit``: check what was asked, choose a plan, run it, say what happened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxreg import _batches
from jaxreg._errors import ArgumentError
from jaxreg._losses import mse_loss
from jaxreg._plans import minibatch, stepwise
from jaxreg._precision import full_precision
from jaxreg._result import FitResult, Trace
from jaxreg.torch_random import Generator

PLANS = ("auto", "stepwise")
RECORDABLE = ("gradients", "weights")


def fit(
    model: nnx.Module,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = mse_loss,
    batch_size: int | None = None,
    shuffle: Generator | jax.Array | None = None,
    drop_last: bool = False,
    global_generator: bool = False,
    plan: str = "auto",
    record: Collection[str] = (),
    precision: str | None = None,
) -> FitResult:
    """Train ``model`` on all rows, ``epochs`` times, as one compiled program.

    It is the loop of the PyTorch tutorials (forward, loss, ``zero_grad``, ``backward``, ``step``) with no Python in it.
    A second call with the same shapes, model structure, optimizer and loss compiles nothing. Inputs and targets are
    converted to the dtype of the model's parameters first, as a PyTorch user would write it.

    With ``batch_size``, a step takes the next batch of ``DataLoader(TensorDataset(inputs, targets), batch_size,
    shuffle=..., drop_last=...)``: the same rows in the same order, epoch after epoch, and a smaller batch at the end
    with the loss of its own rows only.

    Args:
        model: a Flax NNX module, called as ``model(inputs)``. It is not changed.
        inputs: shape ``(rows, ...)``, at least one row; shape ``(rows, in_features)`` for :class:`jaxreg.Linear`.
        targets: whatever shape ``loss`` wants beside the predictions; ``(rows, out_features)`` for a linear layer.
        optimizer: any Optax transformation, :func:`jaxreg.sgd` for PyTorch's.
        epochs: number of passes over all rows; at least 0.
        loss: ``loss(predictions, targets)`` to a scalar.
        batch_size: rows of a step, at least 1; ``None`` for all rows in every step.
        shuffle: what draws the order of the rows, anew each epoch. A :class:`jaxreg.torch_random.Generator` draws what
            PyTorch's ``DataLoader(..., shuffle=True, generator=...)`` would, and is left as PyTorch's would be. A JAX
            key gives epoch ``e``, counted from 0, the order ``jax.random.permutation(jax.random.fold_in(key, e),
            rows)``. ``None`` keeps the order that they have.
        drop_last: leave out a smaller batch at the end; where that is all there is, no step is made, as in PyTorch.
        global_generator: ``False`` if the Generator is the one handed to the loader as ``generator=``; ``True`` if it
            stands for the global one, seeded with ``torch.manual_seed``, which a loader without ``generator=`` draws
            from in another way.
        plan: ``"stepwise"``, or ``"auto"`` for the fastest one that is exact for what was asked.
        record: what to keep of every step: any of ``"gradients"``, ``"weights"``. The losses are always kept.
        precision: precision of matrix products that name none: JAX's own setting where the user made one, else full
            float32 on every backend.

    Returns:
        A :class:`FitResult`. A training that diverges is no error: its losses show inf and NaN, as PyTorch's would.

    Raises:
        ArgumentError: an argument that cannot be used; the message says what was expected and what came.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import jaxreg
        >>> x = jnp.linspace(-1, 1, 20).reshape(-1, 1)
        >>> model = jaxreg.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd(0.1), epochs=500)
        >>> print(f"{result.model.kernel[0, 0]:.3f} {result.model.bias[0]:.3f}")
        2.000 1.000
        >>> result.steps, result.plan
        (500, 'stepwise')

        In batches, in the order of PyTorch's ``DataLoader(..., batch_size=8, shuffle=True)`` after
        ``torch.manual_seed(0)``:

        >>> generator = jaxreg.torch_random.Generator(0)
        >>> result = jaxreg.fit(model, x, 2 * x + 1, optimizer=jaxreg.sgd(0.1), epochs=100, batch_size=8,
        ...                     shuffle=generator, global_generator=True)
        >>> result.steps, result.losses.shape
        (300, (300,))

    Source: `torch/utils/data/dataloader.py` and `sampler.py`, ``RandomSampler`` and ``BatchSampler``.
    """
    _check_choices(plan, record, epochs, optimizer)
    graph, params, rest = _split(model)
    inputs, targets = _as_data(params, inputs, targets)
    batches = _batches.check(inputs.shape[0], batch_size, shuffle, drop_last, global_generator)
    run = stepwise.run if batches is None else functools.partial(minibatch.run, batches=batches)
    with full_precision(precision):
        outcome = run(
            params,
            rest,
            inputs,
            targets,
            graph=graph,
            optimizer=optimizer,
            loss=loss,
            epochs=int(epochs),
            record=frozenset(record),
        )
    trace = Trace(*(None if kept is None else nnx.to_pure_dict(kept) for kept in (outcome.gradients, outcome.weights)))
    trained = nnx.merge(graph, outcome.params, outcome.rest)
    return FitResult(trained, outcome.losses, trace, "stepwise", outcome.losses.shape[0])


def _check_choices(plan: str, record: Collection[str], epochs: int, optimizer: Any) -> None:
    if plan not in PLANS:
        raise ArgumentError(f"plan must be one of {', '.join(map(repr, PLANS))}, got {plan!r}")
    unknown = [item for item in ([record] if isinstance(record, str) else record) if item not in RECORDABLE]
    if isinstance(record, str) or unknown:
        raise ArgumentError(f'record must be a collection of any of {RECORDABLE}, such as ("weights",), got {record!r}')
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 0:
        raise ArgumentError(f"epochs must be an integer of at least 0, got {epochs!r}")
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise ArgumentError(
            f"optimizer must be an Optax transformation such as jaxreg.sgd(0.01), got {type(optimizer).__name__}"
        )


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    if not isinstance(model, nnx.Module):
        raise ArgumentError(f"model must be a flax.nnx.Module such as jaxreg.Linear, got {type(model).__name__}")
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    if not jax.tree.leaves(params):
        raise ArgumentError(f"model has no parameters to train: {type(model).__name__} holds no flax.nnx.Param")
    return graph, params, rest


def _as_data(params: Any, inputs: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, jax.Array]:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    rows = []
    for name, data in (("inputs", inputs), ("targets", targets)):
        if np.ndim(data) == 0:
            raise ArgumentError(f"{name} must have a leading axis of rows, got a scalar")
        rows.append(np.shape(data)[0])
    if rows[0] != rows[1]:
        raise ArgumentError(f"inputs and targets must have the same number of rows, got {rows[0]} and {rows[1]}")
    if rows[0] == 0:
        raise ArgumentError("inputs and targets have no rows; a mean over nothing is NaN")
    return jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)
