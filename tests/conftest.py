"""Strict settings for every test: shapes checked at run time, no silent promotion, Hypothesis by profile."""

import collections
import os
import pathlib

# Most of the time of the tests is XLA compiling, much of it the same programs again: other tests, and processes that
# tests start, take them from a folder. Each worker has its own, since JAX writes there with no lock.
_cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Few of these programs run for as long as they take to compile, so XLA is told to spend little on each: that halves the
# time of all tests. `XLA_FLAGS= pytest` compiles as people do; the report and the benchmark in .ci/run do so too.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

pytest_plugins = ["pytester"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilations make single examples slow; the budget is the number of examples. `--thorough` takes "ci".
hypothesis.settings.register_profile("quick", max_examples=20, deadline=None, derandomize=True)
hypothesis.settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)

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
        help="also the tests that take long, every case of a test, and more random examples",
    )
    parser.addoption("--rest", action="store_true", help="of --thorough, only what does not run without it")


def _is_thorough(config: pytest.Config) -> bool:
    return bool(config.getoption("--thorough") or config.getoption("--rest"))


def pytest_configure(config: pytest.Config) -> None:
    usual = "ci" if _is_thorough(config) else "quick"
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", usual))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for: tests marked so, and cases beyond the first few of a test."""
    if config.getoption("--thorough"):
        return
    seen: collections.Counter[str] = collections.Counter()
    quick: list[pytest.Item] = []
    long: list[pytest.Item] = []
    for item in items:
        name, cases = item.nodeid.partition("[")[0], item.get_closest_marker("cases")
        seen[name] += 1
        is_long = item.get_closest_marker("thorough") or (cases and seen[name] > cases.args[0])
        (long if is_long else quick).append(item)
    items[:], left_out = (long, quick) if config.getoption("--rest") else (quick, long)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
