"""The JAX side's models by hand, in Flax NNX and in plain JAX, from a recording's initial weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import jaxreg
from tests.judge_score import jax_parts as parts
from tests.judge_score.torch_side import HEADS
from tests.judge_score.trainings import CHANNELS, CLASSES, FEATURES, GIVEN, SIDE

gelu = functools.partial(jax.nn.gelu, approximate=False)
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "mlp_relu": jax.nn.relu,
    "mlp_gelu": gelu,
    "mlp_tanh": jnp.tanh,
    "mlp_one": jnp.tanh,
}


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a model leaves open; the defaults are PyTorch's, and another value is a fault."""

    layer_norm_epsilon: float = 1e-5
    group_norm_epsilon: float = 1e-5
    batch_norm_epsilon: float = 1e-5
    batch_norm_momentum: float = 0.1
    batch_norm_unbiased: bool = True
    gelu_approximate: bool = False


# -- Flax NNX


class Perceptron(nnx.Module):
    """Three layers, kernels (in, out)."""

    def __init__(self, model: str, choices: Choices) -> None:
        rngs = nnx.Rngs(0)
        self.fc1 = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.fc2 = nnx.Linear(8, 8, rngs=rngs)
        self.fc3 = nnx.Linear(8, GIVEN[model][1], rngs=rngs)
        self.activation = jax.nn.gelu if choices.gelu_approximate else ACTIVATIONS[model]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(x)))))


class Convolutional(nnx.Module):
    """Images with the channels last inside, as Flax has them; flattened as PyTorch flattens."""

    def __init__(self, choices: Choices) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(CHANNELS, 4, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, epsilon=choices.group_norm_epsilon, rngs=rngs)
        self.fc = nnx.Linear(4 * (SIDE // 2) ** 2, CLASSES, rngs=rngs)
        self.approximate = choices.gelu_approximate

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.conv(x.transpose(0, 2, 3, 1)))
        x = nnx.avg_pool(nnx.gelu(x, approximate=self.approximate), (2, 2), (2, 2))
        return self.fc(x.transpose(0, 3, 1, 2).reshape(len(x), -1))


@functools.cache
def nnx_model(model: str, choices: Choices) -> tuple[Callable[..., Any], Any]:
    """``apply(params, inputs)`` of a Flax module and the shapes of its parameters; made once for each module."""
    module: nnx.Module
    if model in ("linear", "square", "one"):
        module = jaxreg.Linear(FEATURES, GIVEN[model][1], rngs=nnx.Rngs(0))
    else:
        module = Convolutional(choices) if model == "conv_group" else Perceptron(model, choices)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def apply(params: Any, inputs: Any) -> Any:
        return nnx.merge(graph, nnx.State(params), rest)(inputs)

    return apply, nnx.to_pure_dict(params)


# -- plain JAX


def attention(choices: Choices, params: Any, words: jax.Array) -> jax.Array:
    """The pre-norm block."""
    x = params["embedding"]["weight"][words]
    queries = parts.dense(params["qkv"], parts.layer_norm(params["norm1"], x, choices.layer_norm_epsilon))
    q, k, v = jnp.split(queries, 3, -1)
    x = x + parts.dense(params["out"], parts.attend(q, k, v, heads=HEADS))
    up = parts.dense(params["up"], parts.layer_norm(params["norm2"], x, choices.layer_norm_epsilon))
    x = x + parts.dense(params["down"], jax.nn.gelu(up, approximate=choices.gelu_approximate))
    return parts.dense(params["head"], x).reshape(-1, params["head"]["weight"].shape[0])


def tagger(choices: Choices, params: Any, words: jax.Array) -> jax.Array:
    """PyTorch's MultiheadAttention, whose three input projections are one matrix."""
    x = params["embedding"]["weight"][words]
    own = params["attention"]
    q, k, v = jnp.split(x @ own["in_proj_weight"].T + own["in_proj_bias"], 3, -1)
    x = x + parts.dense(own["out_proj"], parts.attend(q, k, v, heads=HEADS))
    return parts.dense(params["head"], parts.layer_norm(params["norm"], x, choices.layer_norm_epsilon).mean(1))


def convolutional(choices: Choices, params: Any, state: Any, images: jax.Array) -> tuple[jax.Array, Any]:
    """With BatchNorm, whose running statistics are the model's own state."""
    x, running = parts.batch_norm(
        params["norm"],
        state["norm"],
        parts.conv(params["conv"], images),
        epsilon=choices.batch_norm_epsilon,
        momentum=choices.batch_norm_momentum,
        unbiased=choices.batch_norm_unbiased,
    )
    x = parts.max_pool(jax.nn.relu(x))
    return parts.dense(params["fc"], x.reshape(len(x), -1)), {"norm": running}


_PLAIN: dict[str, Callable[..., Any]] = {"attention": attention, "tagger": tagger, "conv_batch": convolutional}


@functools.cache
def plain_model(model: str, choices: Choices) -> Callable[..., Any]:
    """``apply`` of a model in plain JAX, made once for each."""
    return functools.partial(_PLAIN[model], choices)


# -- weights


def nested(tensors: Mapping[str, Any]) -> Any:
    """PyTorch's dotted names as a tree."""
    tree: dict[str, Any] = {}
    for name, values in tensors.items():
        *path, last = name.split(".")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = values
    return tree


def in_flax_layout(tensors: Mapping[str, Any]) -> Any:
    """PyTorch's weights as Flax keeps them: kernels (in, out) or (height, width, in, out), scales."""
    tree = {}
    for name, values in tensors.items():
        owner, _, last = name.rpartition(".")
        if last == "weight" and values.ndim == 1:
            last = "scale"
        elif last == "weight":
            last, values = "kernel", values.T if values.ndim == 2 else values.transpose(2, 3, 1, 0)
        tree[f"{owner}.{last}".lstrip(".")] = values
    return nested(tree)
