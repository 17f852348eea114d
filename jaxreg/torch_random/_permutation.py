"""Random permutations as ``torch.randperm`` makes them on CPU: a shuffle without a loop, and the one for huge sizes.

Both follow ``ATen/native/TensorFactories.cpp``, after R. Fisher and F. Yates (1938) and R. Durstenfeld (1964).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt64

# From this size on PyTorch draws 64 bits a number, and builds the permutation from the inside out.
INSIDE_OUT_FROM = (2**32 - 1) // 20

# Steps resolved at once: few enough that what they need stays in the cache.
_CHUNK = 1 << 14

Draw = Callable[[int], UInt64[np.ndarray, " count"]]


def shuffle(draw: Draw, n: int) -> Int64[np.ndarray, " n"]:
    """The numbers 0 to n - 1 after swapping place i with place i + word % (n - i), for each i but the last in turn.

    Args:
        draw: Gives that many random 32-bit words.
        n: Length of the permutation, below 2^31.

    Returns:
        int64, of shape (n,).
    """
    order = np.arange(n, dtype=np.int64)
    for start in range(0, n - 1, _CHUNK):
        count = min(_CHUNK, n - 1 - start)
        left = np.arange(n - start, n - start - count, -1, dtype=np.uint64)
        _swap(order[start:], (draw(count) % left).view(np.int64) + np.arange(count))
    return order


def _swap(order: Int64[np.ndarray, " n"], partner: Int64[np.ndarray, " count"]) -> None:
    """Swap place i of ``order`` with place ``partner[i] >= i``, for each i in turn, all of them at once.

    Place i is final after step i. It then has what its partner had: what the latest step before with the same partner
    put there, or else what was there at the start. What a step puts there is what its own place held, and that in turn
    is what the latest step with that place as partner put there, or else what was there at the start. So: sort the
    steps by partner to find those latest ones, and follow each chain of what a place held to its root by doubling.
    """
    place = np.arange(len(partner))
    step = _sorting(partner)
    target = partner[step]
    repeats = target[1:] == target[:-1]
    previous = np.full(len(partner), -1)
    previous[step[1:][repeats]] = step[:-1][repeats]

    final = np.append(~repeats, True)
    target, step = target[final], step[final]
    inside = target < len(partner)
    latest = np.full(len(partner), -1)
    latest[target[inside]] = step[inside]

    # A step that is its own partner ends up as its own root, which no other step asks for.
    root = np.where(latest < 0, place, latest)
    while not np.array_equal(further := root[root], root):
        root = further
    held = order[root]
    taken = np.where(previous < 0, order[partner], held[previous])
    order[target[~inside]] = held[step[~inside]]
    order[: len(partner)] = taken


def _sorting(values: Int64[np.ndarray, " count"]) -> Int64[np.ndarray, " count"]:
    """The places of ``values``, all in [0, 2^32), in order of value, equal ones in order of place.

    Sixteen bits at a time, the low ones first: NumPy's stable sort of those is a radix sort, five times as fast as a
    sort of the whole numbers.
    """
    order = np.argsort(values.astype(np.uint16), kind="stable")
    if len(values) and values.max() >> 16:
        order = order[np.argsort((values[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def inside_out(draw: Draw, n: int) -> Int64[np.ndarray, " n"]:
    """The permutation of huge size ``n``: number i takes a place z <= i, drawn at random, and place i what was there.

    A plain loop: at the 214,748,364 numbers where it starts, a minute or two.

    Args:
        draw: Gives that many random 64-bit words.
        n: Length of the permutation.

    Returns:
        int64, of shape (n,).
    """
    order = np.empty(n, np.int64)
    places = order.data
    for start in range(0, n, _CHUNK):
        stop = min(start + _CHUNK, n)
        partners = draw(stop - start) % np.arange(start + 1, stop + 1, dtype=np.uint64)
        for number, partner in enumerate(partners.tolist(), start):
            if partner != number:
                places[number] = places[partner]
            places[partner] = number
    return order
