"""Strict settings for every test: shapes checked at run time, no silent promotion, Hypothesis by profile."""

import os

import hypothesis
import jax
from jaxtyping import install_import_hook

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
    "jaxreg._batches",
    "jaxreg._plans.minibatch",
    "jaxreg._plans.stepwise",
    "parity._carried",
]
with install_import_hook(_SHAPED, "beartype.beartype"):
    import parity._carried  # noqa: F401
