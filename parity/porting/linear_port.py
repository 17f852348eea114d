"""``port``: recorded torch parts into a Port, through jaxreg."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxreg
from parity._errors import RecordingError, UnsupportedError
from parity.porting import graph_port
from parity.porting.port import Port
from parity.recording import clipping
from parity.recording.recording import HOOKED, LINEAR, MSE, OWN, SGD, Part, Recording

_BRING_YOUR_OWN = (
    "Write the JAX side yourself, a parity.Port or a function from the Recording to one, and name it with "
    "--port FILE.py:NAME"
)


def port(recording: Recording) -> Port:
    """Make the JAX counterpart of a recorded training.

    Args:
        recording: of a training with ``torch.nn.Linear``, ``torch.nn.MSELoss`` and ``torch.optim.SGD``, every option.

    Returns:
        A :class:`Port` that starts from the recorded initial weights.

    Raises:
        UnsupportedError: a part is of another kind, named in the message, or the loss would broadcast its arguments.
    """
    if not isinstance(recording, Recording):
        raise RecordingError(f"expected a Recording, as parity.record gives it, got {type(recording).__name__}")
    whole = recording.whole or recording
    if whole.graphs:
        return graph_port.port(whole)
    if recording.environment.get("not_whole"):
        raise UnsupportedError(
            f"{recording.environment['not_whole']}. Or write the port yourself, and name it with --port FILE.py:NAME"
        )
    # A module is told to be one linear layer by a squared error of its output: with another loss, that is the obstacle.
    _require("loss", recording, MSE)
    _require("model", recording, LINEAR)
    _require("optimizer", recording, SGD)
    if recording.clipping:
        raise UnsupportedError(
            f"the gradients are clipped {clipping.told(recording.clipping)}, which parity cannot port by itself. "
            f"{_BRING_YOUR_OWN}"
        )
    _refuse_broadcasting(recording)
    settings = recording.model.settings
    model = nnx.eval_shape(
        lambda: jaxreg.Linear(
            settings["in_features"], settings["out_features"], use_bias=settings["bias"], rngs=nnx.Rngs(0)
        )
    )
    abstract = Port.from_nnx(model, _loss(recording), _sgd(recording), names=_layout(settings["bias"]))
    params = {"kernel": recording.initial["weight"].T}
    if settings["bias"]:
        params["bias"] = recording.initial["bias"]
    return dataclasses.replace(abstract, params=params, apply=_frozen_apply(recording, abstract.apply))


def _frozen_apply(recording: Recording, apply: Any) -> Any:
    """``apply`` with no gradient to the parameters that the program froze."""
    layout = _layout(recording.model.settings["bias"])
    frozen = {layout[name].removesuffix(".T") for name in recording.frozen}
    if not frozen:
        return apply

    def stopped(params: Any, inputs: Any) -> Any:
        held = {name: jax.lax.stop_gradient(leaf) if name in frozen else leaf for name, leaf in params.items()}
        return apply(held, inputs)

    return stopped


def _layout(use_bias: bool) -> dict[str, str]:
    return {"weight": "kernel.T", "bias": "bias"} if use_bias else {"weight": "kernel.T"}


def _require(role: str, recording: Recording, kind: str) -> None:
    part: Part = getattr(recording, role)
    if part.type != kind:
        where = recording.environment.get(f"{role}_line", "")
        made_of = " then ".join(str(line) for line in part.settings.get("operations", ()))
        called = f"{part.type} ({made_of})" if part.type == OWN else f"a {part.type}"
        hooked = f" {HOOKED}" if role == "loss" and HOOKED in recording.notes else ""
        raise UnsupportedError(
            f"the {role} is {called}, which parity cannot port by itself; it ports "
            f"{LINEAR.replace('modules.linear.', '')} with {MSE.replace('modules.loss.', '')} and "
            f"{SGD.replace('sgd.', '')}. {_BRING_YOUR_OWN}{where}{'.' if hooked else ''}{hooked}"
        )


def _refuse_broadcasting(recording: Recording) -> None:
    for step, place in enumerate(recording.batch_of_step):
        made, wanted = recording.observed.predictions[step].shape, recording.batches[place].targets.shape
        if made != wanted:
            raise UnsupportedError(
                f"at step {step}, MSELoss broadcasts predictions {made} against targets {wanted} to "
                f"{np.broadcast_shapes(made, wanted)}: every prediction is compared with every target, and the wrong "
                f"thing is trained. Write targets.reshape({made}) in the program"
            )


def _loss(recording: Recording) -> Any:
    """Return the squared error, reshaped and scaled as the program does between its model and ``backward``."""
    settings = recording.loss.settings
    plain = functools.partial(jaxreg.mse_loss, reduction=settings["reduction"])
    scale, reshaped = settings.get("scale", 1.0), is_reshaped(recording)
    if scale == 1.0 and not reshaped:
        return plain

    def loss(predictions: Any, targets: Any) -> Any:
        return scale * plain(predictions.reshape(targets.shape) if reshaped else predictions, targets)

    return loss


def is_reshaped(recording: Recording) -> bool:
    """Whether the program changed the shape of what the linear layer gave, such as from (n, 1) to (n,)."""
    inputs = recording.batches[recording.batch_of_step[0]].inputs
    given = (*inputs.shape[:-1], recording.model.settings["out_features"])
    return recording.observed.predictions[0].shape != given


def _sgd(recording: Recording) -> Any:
    """Return one optimizer for all parameters, or one for each where they are trained differently or not at all."""
    settings = {name: _settings(recording, name) for name in recording.rules}
    first = next(iter(settings.values()))
    if not recording.frozen and all(other == first for other in settings.values()):
        return jaxreg.sgd(**first)
    layout = _layout(recording.model.settings["bias"])
    return jaxreg.sgd_groups({place.removesuffix(".T"): settings.get(name) for name, place in layout.items()}, **first)


def _settings(recording: Recording, name: str) -> dict[str, Any]:
    rule, rates = recording.rules[name], recording.learning_rates[name]
    options = {key: rule[key] for key in ("momentum", "dampening", "weight_decay", "nesterov", "maximize")}
    constant = (rates == rates[0]).all()
    return {"learning_rate": float(rates[0]) if constant else _schedule(tuple(rates.tolist())), **options}


@functools.lru_cache(maxsize=64)
def _schedule(rates: tuple[float, ...]) -> Any:
    """Return the recorded learning rates as a schedule; the same rates give the same schedule."""
    return lambda step: jnp.asarray(rates)[step]
