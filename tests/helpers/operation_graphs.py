"""One call of a PyTorch function, followed as a graph and computed again in JAX."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as torch_trees

from parity.capture import graph_encoding
from parity.capture.graph_encoding import Interned
from parity.capture.graph_steps import Kind
from parity.capture.graph_tape import GraphTape
from parity.capture.torch_tensors import tensors_of
from parity.porting import graph_port
from parity.recording.graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """A call: what PyTorch gives, and its graph.

    Attributes:
        graph: with a root for each result that has a gradient.
        inputs: the tensors that are no leaves.
        leaves: by name.
        results: of the roots.
    """

    graph: Graph
    inputs: tuple[Any, ...]
    leaves: dict[str, torch.Tensor]
    results: list[torch.Tensor]


def followed(function: Any, given: Any, args: Any, kwargs: Any) -> Followed | None:
    """Follow a call; ``None`` where nothing in it has a gradient."""
    flat, form = torch_trees.tree_flatten((given, args, kwargs))
    flat = [t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, torch.Tensor) else t for t in flat]
    leaves = {f"x{k}": t for k, t in enumerate(flat) if isinstance(t, torch.Tensor) and t.requires_grad}
    names = {id(leaf): name for name, leaf in leaves.items()}
    first, rest, named = torch_trees.tree_unflatten(flat, form)
    tape = GraphTape(lambda _: contextlib.nullcontext())
    with tape:
        made = function(first, *rest, **named)
    results = [t for _, t in tensors_of(made) if t.is_floating_point() and t.requires_grad]
    if not results or not leaves:
        return None
    encoded = graph_encoding.encode(
        [(tape.value(result), 1.0) for result in results],
        [],
        Interned(),
        lambda tensor: names.get(id(tensor)),
        lambda _: "state",
    )
    graph = Kind("call", encoded.graph, encoded.functions, encoded.numbers).settled()
    return Followed(graph, encoded.inputs, leaves, results)


def differences(call: Followed) -> list[tuple[str, Any, Any]]:
    """PyTorch's results and gradients beside JAX's, in the call's own dtype."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(tuple(result.shape)) for result in call.results]
    total: Any = sum((r * torch.tensor(w, dtype=r.dtype)).sum() for r, w in zip(call.results, weights, strict=True))
    gradients = torch.autograd.grad(total, list(call.leaves.values()), allow_unused=True)
    graph = dataclasses.replace(call.graph, outputs=tuple(root for root, _ in call.graph.roots), roots=())

    def compute(leaves: Any) -> Any:
        return graph_port.run(graph, leaves, call.inputs, None, {})[0]["outputs"]

    own = {name: jnp.asarray(leaf.detach().numpy()) for name, leaf in call.leaves.items()}
    made, pull = jax.vjp(compute, own)
    (pulled,) = pull(tuple(jnp.asarray(w, m.dtype) for w, m in zip(weights, made, strict=True)))
    found = [("result", r.detach().numpy(), np.asarray(m)) for r, m in zip(call.results, made, strict=True)]
    for (name, leaf), gradient in zip(call.leaves.items(), gradients, strict=True):
        theirs = torch.zeros_like(leaf) if gradient is None else gradient
        found.append((f"gradient of {name}", theirs.numpy(), np.asarray(pulled[name])))
    return found
