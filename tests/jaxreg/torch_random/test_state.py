"""The bytes of PyTorch's generator state, written and read both ways."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxreg import ArgumentError
from jaxreg.torch_random import Generator


def state_of(generator: torch.Generator) -> bytes:
    return bytes(generator.get_state().numpy().tobytes())


def load(state: bytes) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator


def patched(offset: int, layout: str, value: float) -> bytes:
    state = bytearray(Generator(0).state())
    struct.pack_into(layout, state, offset, value)
    return bytes(state)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), words=st.integers(0, 1300), normals=st.integers(0, 3))
def test_states_are_exchanged_both_ways(seed: int, words: int, normals: int) -> None:
    theirs = torch.Generator()
    theirs.manual_seed(seed)
    torch.rand(words, generator=theirs)
    torch.randn(normals, generator=theirs)

    ours = Generator.from_state(state_of(theirs))
    assert ours.state() == state_of(theirs)
    assert ours.initial_seed == theirs.initial_seed()
    assert ours.randn(5).tobytes() == torch.randn(5, generator=theirs).numpy().tobytes()

    back = load(ours.state())
    assert state_of(back) == ours.state()
    assert torch.randn(4, generator=back).numpy().tobytes() == ours.randn(4).tobytes()
    assert torch.rand(9, generator=back).numpy().tobytes() == ours.rand(9).tobytes()


def test_the_global_state_is_the_same_bytes() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        torch.randn(3)
        ours = Generator.from_state(torch.get_rng_state().numpy().tobytes())
        torch.set_rng_state(torch.frombuffer(bytearray(ours.state()), dtype=torch.uint8))
        assert torch.randn(3).numpy().tobytes() == ours.randn(3).tobytes()


def test_a_cached_float32_sample_is_handed_on_unused() -> None:
    state = bytearray(Generator(0).state())
    struct.pack_into("<fB", state, 5048, 1.5, 1)
    ours = Generator.from_state(bytes(state))
    ours.rand(3)
    theirs = load(bytes(state))
    torch.rand(3, generator=theirs)
    assert ours.state() == state_of(theirs)


def test_reading_a_state_copies_it() -> None:
    original = Generator(4)
    original.randn(3)
    copy = Generator.from_state(original.state())
    assert np.array_equal(copy.rand(700), original.rand(700))
    copy.rand(1)
    assert copy.state() != original.state()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", "has 5056 bytes, but got 0"),
        (bytes(5000), "has 5056 bytes, but got 5000"),
        (bytes(5056), "its field seeded is 0, not 1"),
        (patched(8, "<i", 0), "next=0 and left=0"),
        (patched(8, "<i", 625), "next=0 and left=625"),
        (patched(16, "<Q", 625), "next=625 and left=1"),
        (patched(24, "<Q", 2**32), "a word of more than 32 bits"),
    ],
)
def test_bytes_that_are_no_state_are_refused(state: bytes, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Generator.from_state(state)
