"""A Flax NNX module in the parts of a port: its parameters, its own state, and a pure function of both."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

# What a module carries besides its parameters and is neither random streams nor values sown on the way.
_STATE = nnx.All(nnx.Not(nnx.Param), nnx.Not(nnx.RngState), nnx.Not(nnx.Intermediate))


def parts(model: nnx.Module) -> tuple[Any, Any, Callable[..., Any]]:
    """Return parameters, state and ``apply``. Where there is no state it is ``None``, and ``apply`` does without it.

    The module keeps the mode it is in, ``train()`` or ``eval()``; its random streams start anew in every call.
    """
    with _any_dtype(model):
        graph, params, state, rest = nnx.split(model, nnx.Param, _STATE, ...)
    variables = nnx.to_pure_dict(state)
    own = nnx.to_pure_dict(rest)

    def run(params: Any, variables: Any, inputs: Any) -> tuple[Any, Any]:
        merged = nnx.merge(graph, nnx.State(params), nnx.State(variables), nnx.State(own))
        return call(merged, inputs), nnx.to_pure_dict(nnx.state(merged, _STATE))

    if not jax.tree.leaves(variables):
        return nnx.to_pure_dict(params), None, lambda params, inputs: run(params, variables, inputs)[0]
    return nnx.to_pure_dict(params), variables, run


@contextlib.contextmanager
def _any_dtype(model: nnx.Module) -> Iterator[None]:
    """Let layers compute in the dtype of their parameters: an Embed keeps the one that it was made with."""
    embeds = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Embed)]
    fixed = [node for node in embeds if node.dtype == node.param_dtype]
    kept = [node.dtype for node in fixed]
    for node in fixed:
        node.dtype = None
    try:
        yield
    finally:
        for node, dtype in zip(fixed, kept, strict=True):
            node.dtype = dtype


def call(module: Callable[..., Any], inputs: Any) -> Any:
    """``module`` on what PyTorch's model was given.

    A tuple stands for several positional arguments where the module takes that many, a dict for keywords where it has
    parameters of those names; anything else is one argument.
    """
    parameters = inspect.signature(module).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if isinstance(inputs, tuple) and max(required, 2) <= len(inputs) <= len(positional):
        return module(*inputs)
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    if isinstance(inputs, dict) and inputs and named.issuperset(inputs):
        return module(**inputs)
    return module(inputs)
