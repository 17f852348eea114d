"""Faults in the model: weights, layout, small constants, dropout, precision, BatchNorm's state."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity import Port, Recording
from tests.judge_score import jax_side
from tests.judge_score.coarse import coarse_products
from tests.judge_score.faults._fault import Change, Fault, attention, choice, conv, linear, mlp
from tests.judge_score.trainings import Training


def _leaf(change: Any, *path: str) -> Change:
    """One leaf of the initial parameters changed."""

    def with_leaf(tree: Any, path: tuple[str, ...]) -> Any:
        if not path:
            return change(np.asarray(tree))
        return {**tree, path[0]: with_leaf(tree[path[0]], path[1:])}

    return lambda port, training, recording: jax_side.changed(port, params=with_leaf(port.params, path))


def _copied_without_transposing(name: str, *path: str) -> Change:
    """A square kernel filled with PyTorch's weight as it is, and declared to be it."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        names = {key: key.replace("weight", "kernel.T") for key in recording.initial}
        names[name] = name.replace("weight", "kernel")
        copied = _leaf(lambda kernel: kernel.T, *path)(port, training, recording)
        return jax_side.changed(copied, names=names)

    return change


def _through_the_transpose(*path: str) -> Change:
    """The weight is the right one, and the product takes its transpose."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        def apply(params: Any, *rest: Any) -> Any:
            turned = _leaf_of(params, path, lambda weight: weight.T)
            return port.apply(turned, *rest)

        return jax_side.changed(port, apply=apply)

    return change


def _leaf_of(tree: Any, path: tuple[str, ...], change: Any) -> Any:
    if not path:
        return change(tree)
    return {**tree, path[0]: _leaf_of(tree[path[0]], path[1:], change)}


def _flax_initial(port: Port, training: Training, recording: Recording) -> Port:
    """Flax's own initial weights: LeCun's normal, biases zero."""
    random = np.random.default_rng(3)

    def draw(leaf: Any) -> Any:
        scale = 1 / np.sqrt(leaf.shape[0])
        return (random.normal(size=leaf.shape) * scale if leaf.ndim > 1 else np.zeros(leaf.shape)).astype(leaf.dtype)

    return jax_side.changed(port, params=jax.tree.map(draw, port.params))


def _one_ulp(leaf: Any) -> Any:
    moved = leaf.copy()
    moved.flat[3] = np.nextafter(moved.flat[3], np.float32(2))
    return moved


def _dropout(share: float) -> Change:
    """Some inputs of the last layer's answer are dropped and the others made larger, as in training."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        def apply(params: Any, *rest: Any) -> Any:
            kept = 1 - share
            out = port.apply(params, *rest)
            answers, after = out if port.state is not None else (out, None)
            mask = jax.random.bernoulli(jax.random.key(0), kept, answers.shape)
            answers = jnp.where(mask, answers / kept, 0)
            return answers if port.state is None else (answers, after)

        return jax_side.changed(port, apply=apply)

    return change


# -- precision


def _coarse(bits: int) -> Change:
    """What an accelerator's default does: the operands of all products are rounded, in float32 alone."""

    def change(port: Port, training: Training, recording: Recording) -> Port:
        return jax_side.changed(port, apply=coarse_products(port.apply, bits))

    return change


def _cut_to_float32(port: Port, training: Training, recording: Recording) -> Port:
    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, tree)

    def apply(params: Any, inputs: Any) -> Any:
        wide = jax.tree.leaves(params)[0].dtype
        return port.apply(cut(params), cut(inputs)).astype(wide)

    return jax_side.changed(port, apply=apply)


def _nan_in_the_backward_pass(port: Port, training: Training, recording: Recording) -> Port:
    """ReLU by a root: the branch that is not taken has a gradient that is not a number, and it is not masked."""

    def apply(params: Any, inputs: Any) -> Any:
        x = inputs
        for name in ("fc1", "fc2"):
            x = x @ params[name]["kernel"] + params[name]["bias"]
            x = jnp.where(x > 0, jnp.sqrt(x) ** 2, 0.0)
        return x @ params["fc3"]["kernel"] + params["fc3"]["bias"]

    return dataclasses.replace(port, apply=apply)


def _fault(name: str, training: Training, change: Change, cause: str, stage: str = "forward") -> Fault:
    return Fault(name, training, change, stage, 0, cause)


_SQUARE = _copied_without_transposing("weight", "kernel")
_HIDDEN = _copied_without_transposing("fc2.weight", "fc2", "kernel")

FAULTS = (
    _fault("linear: a square weight copied as it is", linear(model="square"), _SQUARE, "transposed weight"),
    _fault("mlp, Adam: a square weight copied as it is", mlp("Adam"), _HIDDEN, "transposed weight"),
    _fault(
        "attention, AdamW: the transpose of the output's weight",
        attention("AdamW"),
        _through_the_transpose("out", "weight"),
        "transposed weight",
    ),
    _fault("linear: Flax's initial weights", linear(), _flax_initial, "initial weights", "initial weights"),
    _fault("mlp, AdamW: Flax's initial weights", mlp("AdamW"), _flax_initial, "initial weights", "initial weights"),
    _fault(
        "conv, Adam: zero for the initial bias",
        conv("Adam"),
        _leaf(np.zeros_like, "fc", "bias"),
        "initial weights",
        "initial weights",
    ),
    _fault(
        "attention: an initial weight off in its last bit",
        attention(),
        _leaf(_one_ulp, "embedding", "weight"),
        "initial weights",
        "initial weights",
    ),
    _fault("attention: Flax's epsilon", attention(), choice(layer_norm_epsilon=1e-6), "LayerNorm epsilon"),
    _fault(
        "tagger, Adam: Flax's epsilon",
        attention("Adam", "tagger"),
        choice(layer_norm_epsilon=1e-6),
        "LayerNorm epsilon",
    ),
    _fault("conv: Keras's epsilon", conv(), choice(batch_norm_epsilon=1e-3), "BatchNorm epsilon"),
    _fault(
        "conv, AdamW: BatchNorm with epsilon 1e-6", conv("AdamW"), choice(batch_norm_epsilon=1e-6), "BatchNorm epsilon"
    ),
    _fault("mlp: GELU by tanh", mlp(model="mlp_gelu"), choice(gelu_approximate=True), "GELU approximation"),
    _fault("attention, AdamW: GELU by tanh", attention("AdamW"), choice(gelu_approximate=True), "GELU approximation"),
    _fault("conv, Adam: GELU by tanh", conv("Adam", "conv_group"), choice(gelu_approximate=True), "GELU approximation"),
    _fault("mlp, Adam: dropout", mlp("Adam"), _dropout(0.1), "dropout left on"),
    _fault("conv: dropout", conv(), _dropout(0.5), "dropout left on"),
    _fault("attention, AdamW: dropout", attention("AdamW"), _dropout(0.1), "dropout left on"),
    _fault(
        "conv: momentum 0.9 of the statistics",
        conv(),
        choice(batch_norm_momentum=0.9),
        "BatchNorm momentum convention",
        "model state",
    ),
    _fault(
        "conv, Adam: momentum 0.9 of the statistics",
        conv("Adam"),
        choice(batch_norm_momentum=0.9),
        "BatchNorm momentum convention",
        "model state",
    ),
    _fault(
        "conv: biased variance kept",
        conv(),
        choice(batch_norm_unbiased=False),
        "BatchNorm biased variance",
        "model state",
    ),
    _fault(
        "conv, AdamW: biased variance kept",
        conv("AdamW"),
        choice(batch_norm_unbiased=False),
        "BatchNorm biased variance",
        "model state",
    ),
    _fault("linear: TF32", linear(), _coarse(10), "TF32 products"),
    _fault("mlp, Adam: TF32", mlp("Adam"), _coarse(10), "TF32 products"),
    _fault("conv, momentum: TF32", conv(momentum=0.9), _coarse(10), "TF32 products"),
    _fault("attention, AdamW: TF32", attention("AdamW"), _coarse(10), "TF32 products"),
    _fault("linear, Adam: bfloat16", linear("Adam"), _coarse(7), "bfloat16 products"),
    _fault("mlp: bfloat16", mlp(model="mlp_tanh"), _coarse(7), "bfloat16 products"),
    _fault("attention: bfloat16", attention(), _coarse(7), "bfloat16 products"),
    _fault("linear: float32 in a float64 training", linear(double=True), _cut_to_float32, "float64 cut to float32"),
    _fault(
        "mlp, Adam: float32 in a float64 training", mlp("Adam", double=True), _cut_to_float32, "float64 cut to float32"
    ),
    _fault("attention: float32 where float64 is asked for", attention(), _cut_to_float32, "float64 cut to float32"),
    _fault("mlp: ReLU by a root", mlp(), _nan_in_the_backward_pass, "not finite", "gradient"),
)
