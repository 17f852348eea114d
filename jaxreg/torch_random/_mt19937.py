"""The Mersenne Twister as PyTorch's CPU generator runs it, on NumPy's, and the bytes that hold its state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from jaxreg._errors import ArgumentError

_WORDS = 624

# The C structures CPUGeneratorImplStateLegacy and CPUGeneratorImplState of ATen/CPUGeneratorImpl.cpp, in 64 bits.
_LEGACY = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),
        ("seeded", "<i4"),
        ("next", "<u8"),
        ("key", "<u8", _WORDS),
        ("normal_x", "<f8"),
        ("normal_y", "<f8"),
        ("normal_rho", "<f8"),
        ("normal_is_valid", "<i4"),
    ],
    align=True,
)
_STATE = np.dtype([("legacy", _LEGACY), ("float_normal", "<f4"), ("float_normal_is_valid", "u1")], align=True)

STATE_BYTES = _STATE.itemsize


class Cached(NamedTuple):
    """Normal samples that were made in pairs and wait for their call: CPU kernels only ever keep the float64 one."""

    double: float | None = None
    single: float | None = None


class Engine:
    """MT19937 (M. Matsumoto and T. Nishimura, 1998): a stream of 32-bit words, as ``at::mt19937`` makes it."""

    def __init__(self, seed: int) -> None:
        """Start from ``seed`` in [0, 2^64), of which the low 32 bits count, as in ``at::mt19937``."""
        self.seed = seed
        self._bits = np.random.MT19937(0)
        self._untouched = True
        # NumPy's legacy seeding with one integer is the authors' init_genrand, which is PyTorch's too.
        self._set(np.random.RandomState(seed & 0xFFFFFFFF).get_state(legacy=False)["state"]["key"], _WORDS)

    def _set(self, key: np.ndarray, position: int) -> None:
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next ``count`` 32-bit words, as uint64 of shape (count,)."""
        self._untouched = self._untouched and count == 0
        return self._bits.random_raw(count)

    def words64(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next ``count`` 64-bit words, each out of two 32-bit ones with the high half first."""
        halves = self.words(2 * count)
        return halves[0::2] << np.uint64(32) | halves[1::2]

    def to_bytes(self, cached: Cached) -> bytes:
        """The state as PyTorch writes it."""
        state = np.zeros((), _STATE)
        legacy = state["legacy"]
        inner = self._bits.state["state"]
        legacy["seed"], legacy["seeded"], legacy["key"] = self.seed, 1, inner["key"]
        # A seeded engine that has drawn nothing has the whole block behind it, but points at its start.
        legacy["next"] = 0 if self._untouched else inner["pos"]
        legacy["left"] = _WORDS + 1 - int(inner["pos"])
        if cached.double is not None:
            legacy["normal_y"], legacy["normal_is_valid"] = cached.double, 1
        if cached.single is not None:
            state["float_normal"], state["float_normal_is_valid"] = cached.single, 1
        return state.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Engine, Cached]:
        """The engine and the cached samples that ``data`` holds.

        Raises:
            ArgumentError: The bytes are too few or too many, or no generator of PyTorch's could have written them.
        """
        if len(data) != STATE_BYTES:
            raise ArgumentError(f"a state of PyTorch's CPU generator has {STATE_BYTES} bytes, but got {len(data)}")
        state = np.frombuffer(data, _STATE)[0]
        legacy = state["legacy"]
        left, position = int(legacy["left"]), int(legacy["next"])
        untouched = (left, position) == (1, 0)
        if legacy["seeded"] != 1:
            raise ArgumentError(f"the state is not a seeded one: its field seeded is {legacy['seeded']}, not 1")
        if not (untouched or (1 <= position <= _WORDS and left == _WORDS + 1 - position)):
            raise ArgumentError(f"the state has next={position} and left={left}, which no generator writes together")
        if (legacy["key"] >> np.uint64(32)).any():
            raise ArgumentError("the state has a word of more than 32 bits")
        engine = cls(int(legacy["seed"]))
        engine._untouched = untouched
        engine._set(legacy["key"].astype(np.uint32), _WORDS if untouched else position)
        double = float(legacy["normal_y"]) if legacy["normal_is_valid"] else None
        single = float(state["float_normal"]) if state["float_normal_is_valid"] else None
        return engine, Cached(double, single)
