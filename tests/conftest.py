"""Strict settings for every test: shapes checked at run time, no silent promotion, Hypothesis by profile."""

import os
import pathlib

# Most of the time of the tests is XLA compiling, much of it the same programs again: other tests, and processes that
# tests start, take them from a folder. Each worker has its own, since JAX writes there with no lock.
_cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

pytest_plugins = ["pytester"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilations make single examples slow; the budget is the number of examples.
hypothesis.settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
hypothesis.settings.register_profile("quick", max_examples=20, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The rooms whose shapes are written out. Public functions check their arguments themselves, in words of their own.
_SHAPED = [
    "jaxreg._plans.after_overflow",
    "jaxreg._plans.batches",
    "jaxreg._plans.closed_form",
    "jaxreg._plans.compressed",
    "jaxreg._plans.compressed_minibatch",
    "jaxreg._plans.least_squares",
    "jaxreg._plans.minibatch",
    "jaxreg._plans.overflow_search",
    "jaxreg._plans.spectral",
    "jaxreg._plans.spectral_basis",
    "jaxreg._plans.spectral_small",
    "jaxreg._plans.spectral_training",
    "jaxreg._plans.stepwise",
    "jaxreg._plans.training_step",
    "jaxreg._statistics.gram_root",
    "jaxreg._statistics.host_blas",
    "jaxreg._sweeps.run",
    "jaxreg._sweeps.vectorized",
    "parity.bounds.zonotope",
]
with install_import_hook(_SHAPED, "beartype.beartype"):
    import parity.bounds.zonotope  # noqa: F401


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="also the tests that take minutes each: faults and honest trainings of deep models, every carried program",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--thorough"):
        return
    long = [item for item in items if item.get_closest_marker("thorough")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
