"""The trained model is what nnx.merge makes of the model's parts, however it was made."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)


class Extended(nnx.Linear):
    """A layer that a user derived: it is trained, and taken apart by Flax."""


class Tagged(nnx.Param[Any]):
    """A parameter of a user's own kind."""


def merged(model: nnx.Module, result: jaxreg.FitResult) -> nnx.Module:
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    new = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(nnx.state(result.model, nnx.Param)))
    return nnx.merge(graph, new, rest)


def trained(model: nnx.Module, outputs: int) -> jaxreg.FitResult:
    return jaxreg.fit(model, X, np.ones((6, outputs), np.float32), optimizer=jaxreg.sgd(0.1), epochs=2)


@given(
    kind=st.sampled_from([jaxreg.Linear, nnx.Linear, Extended]),
    outputs=st.integers(1, 3),
    use_bias=st.booleans(),
    change=st.sampled_from(["none", "metadata", "kind", "state", "note"]),
)
@settings(max_examples=25, deadline=None)
def test_it_is_what_flax_would_make(kind: Any, outputs: int, use_bias: bool, change: str) -> None:
    model = kind(2, outputs, use_bias=use_bias, rngs=nnx.Rngs(0))
    if change == "metadata":
        model.kernel.set_metadata(note="mine")
    if change == "kind":
        model.kernel = Tagged(model.kernel.get_value())
    if change == "state":
        model.count = nnx.BatchStat(jnp.zeros(()))
    if change == "note":
        model.note = "mine"
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    result = trained(model, outputs)
    expected = merged(model, result)
    assert nnx.graphdef(result.model) == nnx.graphdef(expected)
    assert type(result.model) is kind
    assert np.array_equal(result.model(X), expected(X))
    assert vars(result.model).keys() == vars(model).keys()
    # The model that was given is as it was, and has nothing in common with the new one that can change.
    after = nnx.to_pure_dict(nnx.state(model))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    changed: Any = result.model
    changed.kernel[...] = jnp.zeros_like(changed.kernel[...])
    changed.kernel.set_metadata(note="another")
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)
    assert model.kernel.get_metadata().get("note") == ("mine" if change == "metadata" else None)


def test_a_model_that_is_changed_after_fit_does_not_change_the_trained_one() -> None:
    model = jaxreg.Linear(2, 1, rngs=nnx.Rngs(0))
    result = trained(model, 1)
    model.use_bias = False
    model.kernel[...] = jnp.full((2, 1), 7.0)
    made: Any = result.model
    assert made.use_bias
    assert not (made.kernel[...] == 7.0).any()
    assert result.trained() is not made


@pytest.mark.parametrize("inside", [True, False])
def test_it_can_be_trained_on(inside: bool) -> None:
    result = trained(jaxreg.Linear(2, 1, rngs=nnx.Rngs(0)), 1)
    again = trained(result.model, 1)

    def loss(model: nnx.Module) -> Any:
        return jnp.mean(model(X) ** 2)

    value = nnx.jit(loss)(again.model) if inside else loss(again.model)
    assert np.isfinite(value)
