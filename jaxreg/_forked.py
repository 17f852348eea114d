"""Whether this process can compute at all: one that was forked after JAX had started would wait for good."""

from __future__ import annotations

import os

from jax._src import xla_bridge

from jaxreg._errors import JaxregError

_without_threads = False


def _begin_in_child() -> None:
    global _without_threads
    # There is no public way to ask; `jax.devices()` would start what it asks about.
    _without_threads = _without_threads or xla_bridge.backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def check() -> None:
    """Refuse to compute where nobody would.

    Raises:
        JaxregError: this process was forked from one where JAX had started.
    """
    if _without_threads:
        raise JaxregError(
            "this process was forked after JAX had started, and has none of the threads that JAX computes with: it "
            "would wait for good. Start processes otherwise, such as by multiprocessing.get_context('spawn') or "
            "joblib's default, or fork before JAX makes its first array"
        )
