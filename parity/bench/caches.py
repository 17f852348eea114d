"""The processor's caches: how large the last level is, and filling it with other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_SYSTEM = Path("/sys/devices/system/cpu")
# Where the system does not say how large its caches are: larger than most last levels.
UNKNOWN = 1 << 27
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level(system: Path = _SYSTEM) -> int | None:
    """Bytes of all last-level caches together; ``None`` where the system does not say, as only Linux does.

    Each cache counts once, however many cores share it.
    """
    found: dict[tuple[int, str], int] = {}
    for place in system.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            kind, level, size, shared = (
                (place / name).read_text().strip() for name in ("type", "level", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                found[int(level), shared] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, LookupError):
            continue
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last) or None


class Filler:
    """Fills the caches of a device, and of the host, with other data.

    Attributes:
        cache: bytes of the host's last-level caches; ``None`` where the system does not say.
        touched: bytes that are read and written to fill them: twice as many.
    """

    def __init__(self, device: Any) -> None:
        self.cache = last_level()
        self.touched = 2 * (self.cache or UNKNOWN)
        self._more = jax.jit(lambda array: array + 1, donate_argnums=0)
        places = {device, *jax.local_devices(backend="cpu")[:1]}
        self._arrays = [jax.device_put(jnp.zeros(self.touched // 4, jnp.float32), place) for place in places]

    def __call__(self) -> None:
        """Read and write every number of the arrays, in place."""
        self._arrays = [self._more(array) for array in self._arrays]
        jax.block_until_ready(self._arrays)  # type: ignore[no-untyped-call]
