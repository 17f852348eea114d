"""The batches of an epoch: how large, how many, and which rows, as PyTorch's ``DataLoader`` makes them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int32

from jaxreg._errors import ArgumentError
from jaxreg._traced import is_staged
from jaxreg._types import Array, HostArray
from jaxreg.torch_random import Generator

# Row numbers of PyTorch's orders that are drawn and held at once: 64 MiB of them. A longer training draws a part, hands
# it to the compiled program, and draws the next while that one runs.
ORDERS_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True)
class Batches:
    """How ``rows`` rows are cut into batches.

    Attributes:
        rows: in the data.
        size: rows of a whole batch.
        drop_last: whether a smaller batch at the end is left out.
        shuffle: a PyTorch generator, a typed JAX key of shape ``()``, or ``None`` for the rows' own order.
        global_generator: whether ``shuffle`` stands for PyTorch's global generator.
        is_full: whether nobody asked for batches: every step takes all rows.
    """

    rows: int
    size: int
    drop_last: bool
    shuffle: Generator | jax.Array | None
    global_generator: bool
    is_full: bool = False

    @staticmethod
    @functools.lru_cache(maxsize=256)  # to make one takes longer than a small training has
    def full(rows: int) -> Batches:
        """Return the one batch of all rows."""
        return Batches(rows, rows, False, None, False, is_full=True)

    @property
    def whole(self) -> int:
        """Return the number of batches of full size in an epoch."""
        return self.rows // self.size

    @property
    def last(self) -> int:
        """Return the rows of the smaller batch that ends an epoch; 0 where there is none."""
        return 0 if self.drop_last else self.rows % self.size

    @property
    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return 1 if self.is_full else self.whole + (self.last > 0)

    def epochs_at_once(self, epochs: int) -> int:
        """Return the epochs that one run of the compiled program makes: all, unless their orders would fill the memory.

        Then they come in parts of one length, of which the last may have fewer to make.
        """
        if not isinstance(self.shuffle, Generator):
            return epochs
        parts = math.ceil(epochs / max(1, ORDERS_AT_ONCE // self.rows))
        return math.ceil(epochs / parts) if parts else 0

    def draw(self, epochs: int, length: int) -> Int32[np.ndarray, "length rows"]:
        """Draw the next ``epochs`` orders of PyTorch's, into the first of ``length`` rows."""
        if not isinstance(self.shuffle, Generator):
            raise TypeError("a JAX key draws its orders in the compiled program")
        orders = np.empty((length, self.rows), np.int32)
        for number in range(epochs):
            orders[number] = self.shuffle.dataloader_order(self.rows, global_generator=self.global_generator)[0]
        return orders

    def parts(self, epochs: int) -> Iterator[tuple[int, Array | HostArray | None]]:
        """Yield how many epochs to make next, and what gives their orders: an array of orders, a key or ``None``."""
        length = self.epochs_at_once(epochs)
        if not isinstance(self.shuffle, Generator):
            yield epochs, self.shuffle
            return
        for first in range(0, epochs, length) if epochs else [0]:
            count = min(length, epochs - first)
            yield count, self.draw(count, length)


def check(rows: int, batch_size: object, shuffle: object, drop_last: object, global_generator: object) -> Batches:
    """Return the batches that the arguments of ``fit`` ask for."""
    for name, value in (("drop_last", drop_last), ("global_generator", global_generator)):
        if not isinstance(value, bool):
            raise ArgumentError(f"{name} must be True or False, got {value!r}")
    if global_generator and not isinstance(shuffle, Generator):
        raise ArgumentError(
            f"global_generator says what a jaxreg.torch_random.Generator given as shuffle stands for, got {shuffle!r}"
        )
    if batch_size is None:
        if shuffle is not None or drop_last:
            given = "shuffle" if shuffle is not None else "drop_last"
            raise ArgumentError(f"{given} needs a batch_size; without one every step takes all rows")
        return Batches.full(rows)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ArgumentError(f"batch_size must be an integer of at least 1, or None, got {batch_size!r}")
    if isinstance(shuffle, Generator) and is_staged():
        raise ArgumentError(
            "shuffle is a Generator, which draws on the host: under jax.jit it would draw once, as the program is "
            "traced, and every call would take those orders again; give a JAX key, or train outside of jax.jit"
        )
    order = shuffle if isinstance(shuffle, Generator | None) else _key(shuffle)
    # Any batch of more rows than there are is the same, and 32 bits count no further.
    return Batches(rows, min(int(batch_size), max(rows + 1, 2**31 - 1)), bool(drop_last), order, bool(global_generator))


def _key(shuffle: object) -> jax.Array:
    if isinstance(shuffle, jax.Array):
        if jnp.issubdtype(shuffle.dtype, jax.dtypes.prng_key) and shuffle.ndim == 0:
            return shuffle
        if shuffle.dtype == jnp.uint32 and shuffle.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(shuffle)
        shuffle = f"an array of shape {shuffle.shape} and dtype {shuffle.dtype}"
    raise ArgumentError(
        "shuffle must be a jaxreg.torch_random.Generator, one JAX key such as jax.random.key(0), or None, "
        f"got {shuffle if isinstance(shuffle, str) else repr(shuffle)}"
    )


def permutation(key: jax.Array, rows: int) -> Int32[jax.Array, " rows"]:
    """Return the numbers of ``jax.random.permutation(key, rows)``, four times as fast on CPU.

    There, XLA sorts a single array many times faster than keys with values. So each round sorts 64-bit integers: 32
    random bits above the place that they were drawn for, which keeps equal bits in order.
    """
    order = jnp.arange(rows, dtype=jnp.int32)
    # As many rounds as make a clash of all the bits drawn for two rows unlikely enough: JAX's own count.
    for _ in range(math.ceil(3 * math.log(rows) / math.log(2**32 - 1))):
        key, drawn = jax.random.split(key)
        bits = jax.random.bits(drawn, (rows,), jnp.uint32)
        with jax.enable_x64(True):
            packed = lax.sort(bits.astype(jnp.uint64) << jnp.uint64(32) | lax.iota(jnp.uint64, rows))
            places = packed.astype(jnp.uint32).astype(jnp.int32)
        order = order.at[places].get(mode="promise_in_bounds")
    return order
