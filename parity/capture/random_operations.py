"""Functions that draw random numbers: which they are, and dropout's with nothing left out."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

DROPOUT = {
    "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
    "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_",
}  # fmt: skip
_INSIDE = {"scaled_dot_product_attention", "multi_head_attention_forward"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_DRAWING = {
    "rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "bernoulli_",
    "normal", "normal_", "uniform_", "multinomial", "poisson", "exponential_", "geometric_", "gumbel_softmax",
    "log_normal_", "cauchy_", "random_",
}  # fmt: skip


class Chance(NamedTuple):
    """A function that draws random numbers, and whether it does so to drop something out."""

    name: str
    dropout: bool


def draws(name: str, args: Any, kwargs: Any) -> Chance | None:
    """Whether this call draws random numbers."""
    if name in _DRAWING:
        return Chance(name, False)
    if name in DROPOUT:
        p, training = _given(args, kwargs, 1, "p", 0.5), _given(args, kwargs, 2, "training", True)
        training = kwargs.get("train", training)
        return Chance(name, True) if training and p else None
    if name in _INSIDE:
        place = 4 if name == "scaled_dot_product_attention" else 10
        active = _given(args, kwargs, place, "dropout_p", 0.0)
        if name == "multi_head_attention_forward":
            active = active and _given(args, kwargs, 13, "training", True)
        return Chance(name, True) if active else None
    if name in _RECURRENT and len(args) > 6:
        place = _recurrent_place(args)
        return Chance(name, True) if args[place] and args[place + 1] else None
    if name in ("rrelu", "rrelu_") and _given(args, kwargs, 3, "training", False):
        return Chance(name, False)
    return None


def without_dropout(func: Any, name: str, args: Any, kwargs: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The same call with nothing dropped out."""
    if name in _RECURRENT:
        place = _recurrent_place(args)
        return func, (*args[:place], 0.0, *args[place + 1 :]), kwargs
    place, key = (4, "dropout_p") if name == "scaled_dot_product_attention" else (10, "dropout_p")
    if name in DROPOUT:
        place, key = 1, "p"
        if not inspect.isbuiltin(func) and "p" not in kwargs and len(args) < 2:
            return func, args, {**kwargs, "p": 0.0}
    if len(args) > place:
        return func, (*args[:place], 0.0, *args[place + 1 :]), kwargs
    return func, tuple(args), {**kwargs, key: 0.0}


def _given(args: Any, kwargs: Any, place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _recurrent_place(args: Any) -> int:
    """Where the share to drop stands: after (input, state, weights, biases, layers), one later for packed data."""
    return 6 if isinstance(args[3], list | tuple) else 5
