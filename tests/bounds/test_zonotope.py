"""Errors carried along by linear maps: never more than the bound, and the bound no looser than it need be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.bounds import zonotope
from parity.bounds.zonotope import propagate_linear


def _summed(maps: np.ndarray, local: np.ndarray) -> np.ndarray:
    """What can be reached at most: the sum of |J_s ... J_r| d_r, written out."""
    kept: list[np.ndarray] = []
    products: list[np.ndarray] = []
    for step, added in enumerate(local):
        products = [maps[step] @ product for product in products] + [np.eye(len(added))]
        kept.append(sum(np.abs(product) @ local[ago] for ago, product in enumerate(products)))
    return np.array(kept)


@given(st.integers(1, 6), st.integers(1, 25), st.floats(0.1, 1.3), st.booleans(), st.integers(0, 2**31))
def test_as_sharp_as_can_be(size: int, steps: int, growth: float, constant: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    maps = growth * random.normal(size=(steps, size, size)) / np.sqrt(size)
    maps *= random.random((size, size)) < 0.6
    local = np.abs(random.normal(size=(steps, size)))
    if constant:
        maps = np.repeat(maps[:1], steps, axis=0)
    bound = propagate_linear(maps[:1] if constant else maps, local)
    assert bound == pytest.approx(_summed(maps, local), rel=1e-9, abs=1e-300)


@given(st.integers(3, 12), st.floats(0.0, 0.95), st.integers(0, 2**31))
@settings(max_examples=30)
def test_where_old_errors_are_enclosed_it_still_holds(size: int, momentum: float, seed: int) -> None:
    """With next to no room, errors drawn at random stay below, and steady trainings do not explode."""
    random, steps = np.random.default_rng(seed), 120
    design = random.normal(size=(30, size)) * 10.0 ** random.uniform(-1, 1, size)
    hessian = design.T @ design / 30
    rate = 0.9 * 2 * (1 + momentum) / np.linalg.eigvalsh(hessian)[-1]
    plain = np.eye(size) - rate * hessian
    heavy = np.block([[plain, -rate * momentum * np.eye(size)], [hessian, momentum * np.eye(size)]])
    maps = np.repeat((heavy if momentum else plain)[None], steps, axis=0)
    local = np.abs(random.normal(size=maps.shape[:2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zonotope, "_STEP_MULTIPLICATIONS", 0)
        bound = propagate_linear(maps, local)
    error = np.zeros(local.shape[1])
    for step in range(steps):
        error = maps[step] @ error + random.choice([-1, 1], error.shape) * local[step]
        assert (np.abs(error) <= bound[step] * (1 + 1e-9)).all()
    if not momentum:
        assert bound[-1].max() < 1e3 * _summed(maps, local)[-1].max()


def test_what_is_not_finite_is_unknown_from_there_on() -> None:
    maps = np.repeat(np.eye(2)[None], 4, axis=0)
    maps[2, 0, 0] = np.inf
    bound = propagate_linear(maps, np.ones((4, 2)))
    assert bound == pytest.approx(np.array([[1, 1], [2, 2], [np.inf, 3], [np.inf, 4]]))
