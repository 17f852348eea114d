"""The processor's caches: how large the last level is, and filling it with other data."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import jax
import numpy as np

_LOG = logging.getLogger(__name__)

_SYSTEM = Path("/sys/devices/system/cpu")
# Where the system does not say how large its caches are: larger than most last levels.
ASSUMED_CACHE_BYTES = 1 << 27
_SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level(system: Path = _SYSTEM) -> int | None:
    """Return the bytes of all last-level caches; ``None`` where the system does not say, as only Linux does.

    Each cache counts once, however many cores share it.
    """
    found: dict[tuple[int, str], int] = {}
    for place in system.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            kind, level, size, shared = (
                (place / name).read_text().strip() for name in ("type", "level", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                found[int(level), shared] = int(size[:-1]) * _SIZE_UNITS[size[-1]]
        except (OSError, ValueError, LookupError) as error:
            _LOG.debug("%s describes no cache: %r", place, error)
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last) or None


def amount(cache: int | None, platform: str) -> int:
    """Return how many bytes to read and write so that nothing else is left in the caches.

    Twice what the host's last-level caches hold, and for a device of its own, which does not say, what its is smaller
    than.

    >>> amount(2**25, "cpu") // 2**20, amount(2**25, "gpu") // 2**20, amount(None, "cpu") // 2**20
    (64, 256, 256)
    """
    return 2 * max(cache or ASSUMED_CACHE_BYTES, 0 if platform == "cpu" else ASSUMED_CACHE_BYTES)


class Filler:
    """Fills the caches of a device, and of the host, with other data.

    Attributes:
        cache: bytes of the host's last-level caches; ``None`` where the system does not say.
        touched: bytes that are read and written to fill them.
    """

    def __init__(self, device: jax.Device) -> None:
        self.cache = last_level()
        self.touched = amount(self.cache, device.platform)
        self._more = jax.jit(lambda array: array + 1, donate_argnums=0)
        places = {device}
        with contextlib.suppress(RuntimeError):  # JAX may have been told to use the device only
            places.add(jax.local_devices(backend="cpu")[0])
        self._arrays = [jax.device_put(np.zeros(self.touched // 4, np.float32), place) for place in places]

    def __call__(self) -> None:
        """Read and write every number of the arrays, in place."""
        self._arrays = [self._more(array) for array in self._arrays]
        jax.block_until_ready(self._arrays)  # type: ignore[no-untyped-call]
