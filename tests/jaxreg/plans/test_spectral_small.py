"""The spectral plan of small problems, which runs where it is called, against the other one and whole numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg
from jaxreg._plans import spectral_small

EPSILON = 2.0**-53


@given(rows=st.integers(1, 300), seed=st.integers(0, 999), weighted=st.booleans(), shift=st.sampled_from([0, 10**4]))
@settings(deadline=None, max_examples=40)
def test_triangle_has_the_cross_products_of_the_data(rows: int, seed: int, weighted: bool, shift: int) -> None:
    random = np.random.default_rng(seed)
    x, y = ((random.integers(-99, 100, (rows, 1)) + shift).astype(np.float32) for _ in range(2))
    weights = random.integers(0, 10, rows).astype(np.float32) if weighted else None
    with jax.enable_x64(True):
        found = np.asarray(spectral_small.triangle((x, y, weights), dtype=np.dtype(np.float32)))
    z = np.concatenate([x, np.ones((rows, 1)), y], 1).astype(np.int64)
    exact = z.T @ (z if weights is None else weights.astype(np.int64)[:, None] * z)
    assert (found == np.triu(found)).all()
    # Gram and Schmidt's error is that of sums over the rows and over the columns, in sizes of the columns.
    size = np.sqrt(exact.diagonal().astype(np.float64))
    assert (abs(found.T @ found - exact) <= 4 * (rows + 3) * EPSILON * np.outer(size, size)).all()


SGD = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-4, 0.5),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "maximize": st.booleans(),
    }
)


@given(
    options=SGD,
    rows=st.integers(1, 40),
    epochs=st.integers(0, 60),
    bias=st.booleans(),
    weighted=st.booleans(),
    chosen=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_it_trains_as_the_other_does(
    options: Any, rows: int, epochs: int, bias: bool, weighted: bool, chosen: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x, y = (random.standard_normal((rows, 1)).astype(np.float32) for _ in range(2))
    weights = random.uniform(0.1, 2, rows).astype(np.float32) if weighted else None
    at = random.integers(0, max(epochs, 1), 5 if epochs else 0) if chosen else None
    model = jaxreg.Linear(1, 1, use_bias=bias, rngs=jaxreg.torch_random.Generator(seed))

    def trained() -> Any:
        result = jaxreg.fit(
            model, x, y, weights=weights, optimizer=jaxreg.sgd(**options), epochs=epochs, plan="spectral", at=at
        )
        return [np.asarray(result.losses), *(np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(result.model)))]

    with pytest.MonkeyPatch.context() as patch:
        used: list[Any] = []

        def watched(*args: Any, **kwargs: Any) -> Any:
            used.append(True)
            return run(*args, **kwargs)

        patch.setattr(spectral_small, "run", watched)
        here = trained()
        assert used
        patch.setattr(spectral_small, "serves", lambda *_, **__: False)
        there = trained()
    # Both are worked out in float64 and rounded once; what a residual loses in float64 is lost of its square's size.
    lost = ((rows + 8) * EPSILON) ** 2 * float((y**2).sum() + 1)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other, rtol=2.0**-23, atol=lost)


run = spectral_small.run


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "maximize": True}], ids=str)
@pytest.mark.parametrize("chosen", [False, True])
def test_its_programs_are_small_enough_to_run_where_they_are_called(options: Any, chosen: bool) -> None:
    x = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    model = jaxreg.Linear(1, 1, rngs=jaxreg.torch_random.Generator(0))
    at = np.arange(0, 1000, 3) if chosen else None
    with pytest.MonkeyPatch.context() as patch:
        ready: list[bool] = []

        def watched(*args: Any, **kwargs: Any) -> Any:
            answer = run(*args, **kwargs)
            ready.append(all(leaf.is_ready() for leaf in jax.tree.leaves(answer)))
            return answer

        patch.setattr(spectral_small, "run", watched)
        for _ in range(20):
            result = jaxreg.fit(model, x, 2 * x, optimizer=jaxreg.sgd(0.1, **options), epochs=1000, at=at)
            jax.block_until_ready(result.losses)  # one that diverges leaves more to do than these programs
    # The first of them compiles. A program that is handed to another thread is not done when the call returns.
    assert ready[1:] == [True] * 19


def test_what_it_is_not_for() -> None:
    def serves(rows: int, inputs: int, outputs: int, kept: int = 1000, **other: Any) -> bool:
        data = (np.zeros((rows, inputs), np.float32), np.zeros((rows, outputs), np.float32), None)
        kernel = np.zeros((inputs, outputs), np.float32)
        return spectral_small.serves(data, kernel, kept, **{"momentum": False, "record": frozenset(), **other})

    assert serves(100, 1, 1)
    assert not serves(100, 2, 1)
    assert not serves(100, 1, 2)
    assert not serves(5000, 1, 1)
    assert not serves(100, 1, 1, kept=10**6)
    assert not serves(100, 1, 1, record=frozenset({"weights"}))
    assert not serves(100, 1, 1, momentum=True)
    root, kernel = np.eye(3), np.zeros((1, 1), np.float32)
    assert not spectral_small.serves(root, kernel, 1000, momentum=False, record=frozenset())
