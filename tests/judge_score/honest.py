"""Honest trainings that Hypothesis draws: few shapes and settings, so that compilations are shared; any data."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.judge_score.trainings import Training

_OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 1e-8, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 1e-3, "momentum": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 1e-3, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
)
_SQUARED, _CLASSES = {"loss": "mse"}, {"loss": "cross_entropy"}
_ROBUST: dict[str, Any] = {"loss": "huber", "batch": 5, "falls": 1}
# Each model with its losses and its way through the data.
_WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "linear": (_SQUARED, {"loss": "l1", "reduction": "sum"}, _CLASSES | {"batch": 5}),
    "square": (_SQUARED | {"reduction": "sum"}, _ROBUST),
    "mlp_relu": (_SQUARED, _CLASSES | {"batch": 4, "falls": 1}),
    "mlp_gelu": (_ROBUST, _CLASSES | {"reduction": "sum"}),
    "mlp_tanh": (_SQUARED | {"batch": 5, "falls": 1}, {"loss": "l1"}),
    "conv_batch": (_SQUARED, _CLASSES | {"batch": 4}),
    "conv_group": (_CLASSES, _ROBUST),
    "attention": (_CLASSES, _CLASSES | {"batch": 5, "falls": 1, "decay_matrices_only": True}),
    "tagger": (_CLASSES | {"reduction": "sum"}, _CLASSES | {"batch": 4}),
}


# Every way with two optimizers, one with SGD and one with Adam's rule; each further program takes long to compile.
_PROGRAMS = [
    (model, way, _OPTIMIZERS[(place + turn) % len(_OPTIMIZERS)])
    for place, (model, way) in enumerate((model, way) for model, ways in sorted(_WAYS.items()) for way in ways)
    for turn in (0, 4)
]


@st.composite
def honest(draw: st.DrawFn) -> Training:
    """A training of any model, way, optimizer and dtype, on data of scales from 1e-4 to 1e4, some nearly dependent."""
    model, way, (optimizer, options) = draw(st.sampled_from(_PROGRAMS))
    return Training(
        model,
        optimizer,
        tuple(options.items()),
        **way,
        input_scale=10.0 ** draw(st.floats(-4, 4)),
        target_scale=10.0 ** draw(st.floats(-4, 4)),
        dependent=draw(st.booleans()),
        double=draw(st.sampled_from([False, False, False, True])),
        seed=draw(st.integers(0, 2**31 - 1)),
    )
