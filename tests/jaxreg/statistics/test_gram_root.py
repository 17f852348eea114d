"""One pass over the data, each of its ways, against cross-products in whole numbers, which have no rounding."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import jaxreg
from jaxreg._plans import spectral
from jaxreg._statistics import gram_root, host_blas

FLOAT32 = np.dtype(np.float32)


def drawn(rows: int, inputs: int, outputs: int, weighted: bool, seed: int) -> tuple[Any, Any, Any]:
    """Small whole numbers, and weights that are their squares: every sum of products is exact in float64."""
    random = np.random.default_rng(seed)
    x, y = (random.integers(-99, 100, (rows, columns)).astype(np.float32) for columns in (inputs, outputs))
    return x, y, random.integers(0, 10, rows).astype(np.float32) ** 2 if weighted else None


def exact(x: Any, y: Any, weights: Any) -> Any:
    z = np.concatenate([x, np.ones((len(x), 1)), y], 1).astype(np.int64)
    return z.T @ (z if weights is None else weights.astype(np.int64)[:, None] * z)


SIZES = {
    "rows": st.integers(1, 5000),
    "inputs": st.one_of(st.integers(1, 40), st.integers(41, 140)),
    "outputs": st.integers(1, 3),
    "weighted": st.booleans(),
    "seed": st.integers(0, 99),
}


@pytest.mark.parametrize("small", [True, False])
@given(**SIZES)
@example(rows=5000, inputs=64, outputs=1, weighted=False, seed=0)
@example(rows=3000, inputs=126, outputs=1, weighted=True, seed=0)
@settings(max_examples=40)
def test_the_hosts_blas_leaves_no_row_out(
    small: bool, rows: int, inputs: int, outputs: int, weighted: bool, seed: int
) -> None:
    data = drawn(rows, inputs, outputs, weighted, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_blas, "has_small_products", lambda: small)
        patch.setattr(host_blas, "_NUMBERS_A_BLOCK", 1 << 16)
        assert np.array_equal(host_blas.products(*data, FLOAT32), exact(*data))


@given(columns=st.integers(1, 200))
def test_panels_make_up_the_upper_half_once_and_their_blocks_are_small(columns: int) -> None:
    panels = host_blas._panels(columns)
    if columns == 1 or columns > 128:
        assert panels == []
        return
    assert [begin for begin, _, _ in panels] == [0, *(end for _, end, _ in panels[:-1])]
    assert panels[-1][1] == columns
    for begin, end, high in panels:
        assert begin < end <= high <= columns
        assert len(panels) == 1 or (begin, high - begin) != (0, end - begin)
        assert host_blas._size(panels) * (end - begin) * high <= 10**6
    assert host_blas._size(panels) >= 256


@pytest.mark.parametrize("numbers", [1 << 11, 1 << 19])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 1, 1), (3, 4, 1), (127, 2, 2), (4096, 4, 1), (5003, 16, 1), (700, 23, 3), (5000, 0, 2)],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_so_do_columns_multiplied_where_they_are(
    rows: int, inputs: int, outputs: int, weighted: bool, numbers: int
) -> None:
    data = drawn(rows, inputs, outputs, weighted, seed=rows)
    with jax.enable_x64(True):
        assert np.array_equal(gram_root._reduced(None, data, "float32", False, numbers), exact(*data))


def test_both_ways_give_one_root(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(40_000, 40, 1, True, 0)
    assert gram_root._by_blas(data, FLOAT32)
    here = gram_root.gram_root(*data, dtype=FLOAT32)
    there = gram_root.gram_root(*map(jnp.asarray, data), dtype=FLOAT32)
    assert np.array_equal(here, there)
    monkeypatch.setattr(gram_root, "_MIN_SMALL_BLAS_COLUMNS", 1000)
    assert not gram_root._by_blas(data, FLOAT32)
    xla = np.asarray(gram_root.gram_root(*map(jnp.asarray, data), dtype=FLOAT32))
    products = exact(*data)
    # What the eigenvectors of a matrix of that size lose of it in float64.
    size = np.sqrt(products.diagonal().astype(np.float64))
    slack = 8 * len(products) ** 1.5 * 2.0**-53 * np.outer(size, size)
    assert (abs(xla.T @ xla - products) <= slack).all()
    assert (abs(np.asarray(here).T @ np.asarray(here) - products) <= slack).all()


def test_what_is_not_finite_comes_through_without_a_warning() -> None:
    x, y, _ = drawn(30_000, 40, 1, False, 0)
    x[12_345, 6], x[29_999, 7] = np.nan, np.inf
    found = host_blas.products(x, y, None, FLOAT32)
    assert np.isnan(found[6]).all()
    assert not np.isfinite(found[7]).any()
    assert np.isfinite(np.delete(np.delete(found, [6, 7], 0), [6, 7], 1)).all()


def test_lapack_starts_no_threads_beside_the_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.extend((name, pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas")
            return work(*args, **kwargs)

        return call

    monkeypatch.setattr(gram_root, "_square_root", watched("root", gram_root._square_root))
    monkeypatch.setattr(spectral, "run", watched("modes", spectral.run))
    x, y, _ = drawn(40_000, 40, 1, False, 0)
    model = jaxreg.Linear(40, 1, rngs=jaxreg.torch_random.Generator(0))
    jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=3, plan="spectral")
    assert {name for name, _ in seen} == {"root", "modes"}
    assert {count for _, count in seen} == {1}


def test_the_library_that_xla_calls_is_held_before_it_was_ever_used() -> None:
    script = """
import jax.numpy as jnp, threadpoolctl
from jaxreg._statistics import host_blas
held = {pool["filepath"] for pool in host_blas._blas().info()}
jnp.linalg.eigh(jnp.eye(3)), jnp.linalg.svd(jnp.eye(3))
assert {pool["filepath"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == held
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_blas_has_its_threads_back_after_reductions_side_by_side() -> None:
    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    data = drawn(30_000, 30, 1, False, 1)
    threads = [threading.Thread(target=host_blas.products, args=(*data, FLOAT32)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == before
