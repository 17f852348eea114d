"""The user's own functions: what a loss may be, and one error that says what to do where JAX cannot trace it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType

import jax
import jax.numpy as jnp
from flax import nnx

from jaxreg._errors import ArgumentError
from jaxreg._nn.losses import ShapeError, mse_loss
from jaxreg._types import Loss, Rows
from jaxreg._validation import is_array

# PyTorch's losses that are here too, by the names of module and function.
_LOSS_NAMES = {
    "MSELoss": "mse_loss",
    "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss",
    "HuberLoss": "huber_loss",
}


def check_loss(loss: object, *, has_weights: bool) -> None:
    """Refuse a loss that is no function, is PyTorch's, or would not know what to do with weights."""
    if loss is mse_loss:
        return
    inner = loss.func if isinstance(loss, functools.partial) else loss
    if _is_torchs(type(inner)) or _is_torchs(inner):
        raise ArgumentError(
            f"loss must be a function that JAX can trace, got PyTorch's {_name(inner)}; {_instead(inner)}"
        )
    if not callable(loss):
        raise ArgumentError(f"loss must be a function of predictions and targets such as jaxreg.mse_loss, got {loss!r}")
    if isinstance(loss, type):
        raise ArgumentError(
            f"loss must be a function of predictions and targets such as jaxreg.mse_loss, got the class {loss.__name__}"
        )
    if not _takes_two(loss):
        raise ArgumentError(f"loss must be a function of two arguments, predictions and targets, got {loss!r}")
    if has_weights and not _takes_weights(loss):
        raise ArgumentError(f"weights are for a loss that takes weights=..., such as jaxreg.mse_loss, got {loss!r}")


def objective_value(loss: Loss, model: nnx.Module, data: Rows) -> jax.Array:
    """Return the loss of the model's predictions, to be traced.

    Raises:
        ArgumentError: it is no one real number, or PyTorch was called on the way.
    """
    inputs, targets, weights = data
    try:
        value: object = loss(model(inputs), targets, **({} if weights is None else {"weights": weights}))
    except Exception as error:
        if isinstance(error, ArgumentError) or not _came_through_torch(error):
            raise
        raise ArgumentError(
            f"PyTorch was called with JAX's arrays, which it cannot compute with: {type(error).__name__}: {error}. "
            "Write the loss and the model with jax.numpy, jaxreg and flax.nnx"
        ) from error
    if not is_array(value) and not isinstance(value, float):
        raise ArgumentError(f"loss must give one number that JAX computed, got {type(value).__name__}")
    found = jnp.asarray(value)
    if found.shape != ():
        raise ArgumentError(
            f"loss must give one number, got an array of shape {found.shape}; take its mean or sum, as "
            "lambda predictions, targets: jnp.mean(loss(predictions, targets)) does"
        )
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ArgumentError(f"loss must give a real floating number, which has a gradient, got {found.dtype}")
    return found


class UserTerms:
    """A context in which errors of JAX and the loss about the data are put in the terms of what was given.

    Whoever calls ``fit`` asks for the data to be brought to the device: ``jax.transfer_guard`` is no bar to that.

    Args:
        targets: as they were given.
    """

    def __init__(self, targets: object) -> None:
        self._targets = targets
        guard = jax.config.jax_transfer_guard_host_to_device  # type: ignore[attr-defined]
        self._open = None if guard in (None, "allow") else jax.transfer_guard("allow")

    def __enter__(self) -> None:
        if self._open is not None:
            self._open.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.__exit__(kind, error, trace)
        if isinstance(error, ShapeError) and not hasattr(self._targets, "reshape"):
            fix = "targets.to_frame()" if hasattr(self._targets, "to_frame") else "numpy.reshape(targets, {})"
            raise ShapeError(error.said, error.wanted, fix) from None
        if isinstance(error, ValueError) and "incompatible devices" in str(error):
            raise ArgumentError(
                "inputs, targets, weights and the model's parameters must be on the same devices; bring them there "
                f"with jax.device_put: {str(error).splitlines()[0]}"
            ) from error


def _takes_two(loss: Callable[..., object]) -> bool:
    try:
        inspect.signature(loss).bind(None, None)
    except ValueError:  # built in, of no signature: calling it will tell
        return True
    except TypeError:
        return False
    return True


def _takes_weights(loss: Callable[..., object]) -> bool:
    try:
        known = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # built in, of no signature: calling it will tell
        return True
    return "weights" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def _is_torchs(value: object) -> bool:
    return str(getattr(value, "__module__", None) or "").split(".")[0] == "torch" or any(
        kind.__module__.split(".")[0] == "torch" for kind in getattr(value, "__mro__", ())
    )


def _name(loss: object) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _instead(loss: object) -> str:
    name = _name(loss)
    here = _LOSS_NAMES.get(name, name if name in _LOSS_NAMES.values() else None)
    if here is None:
        return "write it with jax.numpy, or take Optax's, as a function of predictions and targets to one number"
    reduction = getattr(loss, "reduction", "mean")
    settings = {"reduction": reduction} if reduction != "mean" else {}
    settings |= {name: getattr(loss, name) for name in ("beta", "delta") if getattr(loss, name, 1.0) != 1.0}
    if not settings:
        return f"take jaxreg.{here}"
    said = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"take functools.partial(jaxreg.{here}, {said})"


def _came_through_torch(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "torch":
            return True
        trace = trace.tb_next
    # PyTorch's functions in C leave no frame, and say so; to make a tensor asks an array for what a traced one lacks.
    return any(words in str(error) for words in ("must be Tensor", "__dlpack_device__"))
