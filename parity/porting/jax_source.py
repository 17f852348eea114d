"""The JAX side of a recording as a program that a person can read and run."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity._words import count
from parity.porting.linear_port import is_reshaped
from parity.recording.recording import Recording

_HEAD = '''"""The training of {name} in JAX: the same data, the same initial weights, the same steps."""

from pathlib import Path

{types}from flax import nnx

import jaxreg
import parity

# What PyTorch was seen to do: its data, its initial weights, and every step.
recording = parity.Recording.load(Path(__file__).with_name("{file}"))
'''

_FIT = """batch = recording.batches[0]

model = jaxreg.Linear({sizes}, rngs=nnx.Rngs(0))
model.kernel[...] = recording.initial["weight"].T
{bias}
# Forward, loss, gradient and update, {steps}: one compiled program.
result = jaxreg.fit(
    model,
    batch.inputs,
    batch.targets,
    loss={loss},
    optimizer={optimizer},
    epochs={epochs},
    plan="stepwise",  # digit for digit the loop; the default rounds less
)

print(result)
print("weight:", result.model.kernel.T)
{print_bias}"""

_CHECK = """
# Not the whole batch at one learning rate for all: the recorded steps are followed one by one.
verdict = parity.check(recording, parity.port(recording))
print(verdict)
"""


def write(recording: Recording, recording_file: str) -> str:
    """Write a script that trains what was recorded, for a training that :func:`parity.port` can port.

    Args:
        recording: of Linear, MSELoss and SGD.
        recording_file: name of the saved recording, in the script's own folder.
    """
    wide = recording.dtype == np.float64
    types = 'import jax\n\njax.config.update("jax_enable_x64", True)\n\n' if wide else ""
    head = _HEAD.format(name=recording.name, file=recording_file, types=types)
    if not recording.is_plain:
        return head.replace("from flax import nnx\n\nimport jaxreg\n", "") + _CHECK
    bias = recording.model.settings["bias"]
    settings = recording.model.settings
    return head + _FIT.format(
        sizes=f"{settings['in_features']}, {settings['out_features']}"
        + ("" if bias else ", use_bias=False")
        + (', param_dtype="float64"' if wide else ""),
        bias='model.bias[...] = recording.initial["bias"]\n' if bias else "",
        steps=count(recording.steps, "time"),
        loss=_loss(recording),
        optimizer=_optimizer(recording.optimizer.settings, recording.learning_rate),
        epochs=recording.steps,
        print_bias='print("bias:", result.model.bias[...])\n' if bias else "",
    )


def _loss(recording: Recording) -> str:
    settings = recording.loss.settings
    if settings == {"reduction": "mean"} and not is_reshaped(recording):
        return "jaxreg.mse_loss"
    scale = f"{settings['scale']!r} * " if "scale" in settings else ""
    predictions = "p.reshape(t.shape)" if is_reshaped(recording) else "p"
    return f"lambda p, t: {scale}jaxreg.mse_loss({predictions}, t, reduction={settings['reduction']!r})"


def _optimizer(settings: Any, rate: Any) -> str:
    options = {key: settings[key] for key in ("momentum", "dampening", "weight_decay", "nesterov", "maximize")}
    written = [repr(rate), *(f"{key}={value!r}" for key, value in options.items() if value)]
    return f"jaxreg.sgd({', '.join(written)})"
