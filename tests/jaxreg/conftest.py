"""What more than one test of jaxreg watches."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The names of the functions that were compiled since."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(str(details.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
