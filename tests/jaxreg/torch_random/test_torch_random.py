"""PyTorch's random numbers without PyTorch: every draw, and the state after it, against PyTorch itself, bit for bit."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from jaxreg import ArgumentError
from jaxreg.torch_random import Generator

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="PyTorch draws other last bits without AVX2"
)

RECENT = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) >= (2, 13)
DTYPES: dict[str, tuple[torch.dtype, Any]] = {
    "float32": (torch.float32, np.float32),
    "float64": (torch.float64, np.float64),
}
if RECENT:
    DTYPES |= {"float16": (torch.float16, np.float16), "bfloat16": (torch.bfloat16, ml_dtypes.bfloat16)}

Call = tuple[str, tuple[Any, ...]]


def pair(seed: int) -> tuple[torch.Generator, Generator]:
    theirs = torch.Generator()
    theirs.manual_seed(seed)
    return theirs, Generator(seed)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())


def assert_same_state(theirs: torch.Generator, ours: Generator) -> None:
    assert raw(theirs.get_state()) == ours.state()


def theirs_draws(generator: torch.Generator, call: Call) -> torch.Tensor:
    name, arguments = call
    if name in ("rand", "randn"):
        size, dtype = arguments
        draw = torch.rand if name == "rand" else torch.randn
        return draw(size, generator=generator, dtype=DTYPES[dtype][0])
    if name in ("uniform", "normal"):
        first, second, size, dtype = arguments
        empty = torch.empty(size, dtype=DTYPES[dtype][0])
        fill = empty.uniform_ if name == "uniform" else empty.normal_
        return fill(first, second, generator=generator)
    if name == "randint":
        low, high, size = arguments
        return torch.randint(low, high, (size,), generator=generator)
    if name == "random":
        return torch.empty(arguments, dtype=torch.int64).random_(generator=generator)
    return torch.randperm(arguments[0], generator=generator)


def ours_draws(generator: Generator, call: Call) -> np.ndarray:
    name, arguments = call
    if name in ("rand", "randn", "uniform", "normal"):
        *rest, dtype = arguments
        drawn: np.ndarray = getattr(generator, name)(*rest, dtype=DTYPES[dtype][1])
        return drawn
    draw: Callable[..., np.ndarray] = getattr(generator, name)
    return draw(*arguments)


def assert_same_draws(theirs: torch.Generator, ours: Generator, call: Call) -> None:
    want, got = theirs_draws(theirs, call), ours_draws(ours, call)
    assert got.shape == tuple(want.shape)
    assert str(want.dtype) == f"torch.{got.dtype.name}"
    assert got.tobytes() == raw(want), call


sizes = st.one_of(st.integers(0, 40), st.integers(0, 2000))
dtypes = st.sampled_from(sorted(DTYPES))
# With zero between the bounds no number is rounded up to the upper one, which PyTorch before 2.13 leaves there.
uniforms = st.tuples(st.floats(-60000, 0, width=16), st.floats(0, 5000, width=16), sizes, dtypes)
normals = st.tuples(st.floats(-1e30, 1e30), st.floats(0, 1e30), sizes, dtypes)
ranges = st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)).filter(
    lambda pair: pair[0] < pair[1]
)
short = st.tuples(st.integers(-100, 0), st.integers(1, 2**29))
calls = st.one_of(
    st.tuples(st.sampled_from(["rand", "randn"]), st.tuples(sizes, dtypes)),
    st.tuples(st.just("uniform"), uniforms),
    st.tuples(st.just("normal"), normals),
    st.tuples(st.just("randint"), st.tuples(st.one_of(ranges, short), sizes).map(lambda both: (*both[0], both[1]))),
    st.tuples(st.sampled_from(["random", "randperm"]), st.tuples(sizes)),
)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(-(2**63), 2**64 - 1), sequence=st.lists(calls, min_size=1, max_size=8))
def test_a_sequence_of_calls_draws_the_same_and_leaves_the_same_state(seed: int, sequence: list[Call]) -> None:
    theirs, ours = pair(seed)
    for call in sequence:
        assert_same_draws(theirs, ours, call)
    assert_same_state(theirs, ours)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["rand", "randn"])
def test_a_grid_of_seeds_and_sizes(name: str, dtype: str) -> None:
    chosen = random.Random(name + dtype)
    for seed in range(0, 1000, 8):
        theirs, ours = pair(seed)
        for size in (
            chosen.randint(1, 15),
            chosen.randint(1, 10_000),
            chosen.randint(1, 15),
            16 * chosen.randint(1, 99),
        ):
            assert_same_draws(theirs, ours, (name, (size, dtype)))
        assert_same_state(theirs, ours)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_grid_of_bounds_and_moments(dtype: str) -> None:
    chosen = random.Random(dtype)
    for seed in range(100):
        theirs, ours = pair(seed)
        for size in (7, chosen.randint(16, 3000)):
            spread = 10 ** chosen.uniform(-6, 3)
            assert_same_draws(theirs, ours, ("uniform", (-spread, spread * chosen.random(), size, dtype)))
            assert_same_draws(theirs, ours, ("normal", (chosen.uniform(-9, 9), spread, size, dtype)))
        assert_same_state(theirs, ours)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_made_in_double_precision_reaches_16_bits_by_way_of_32(dtype: str) -> None:
    state = bytearray(Generator(0).state())
    # A cached sample a little above the middle of two numbers: once in float32 it lies on the middle.
    struct.pack_into("<d8xi", state, 5024, 1 + 2.0 ** -(8 if dtype == "bfloat16" else 11) + 2.0**-40, 1)
    theirs, ours = torch.Generator(), Generator.from_state(bytes(state))
    theirs.set_state(torch.frombuffer(state, dtype=torch.uint8))
    assert_same_draws(theirs, ours, ("randn", (2, dtype)))


@pytest.mark.skipif(not RECENT, reason="PyTorch before 2.13 returns the upper bound")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_uniform_number_rounded_up_to_the_upper_bound_becomes_the_lower_one(dtype: str) -> None:
    theirs, ours = pair(0)
    spacing = {"float16": 2.0**-9, "bfloat16": 2.0**-6, "float32": 2.0**-22, "float64": 2.0**-51}[dtype]
    call = ("uniform", (3.0, 3.0 + 2 * spacing, 1000, dtype))
    assert_same_draws(theirs, ours, call)
    drawn = ours_draws(Generator(0), call).astype(np.float64)
    # A quarter each would round down to 3 and up to the bound, half to the number between: the bound's goes to 3.
    assert sorted(set(drawn.tolist())) == [3.0, 3.0 + spacing]


@pytest.mark.parametrize("span", [1, 2, 10, 2**28 - 1, 2**28, 2**28 + 1, 2**32, 2**32 + 1, 2**63 - 1])
@pytest.mark.parametrize("low", [0, -1, -(2**62)])
def test_integers_take_32_or_64_bits_by_their_range(span: int, low: int) -> None:
    theirs, ours = pair(span % 1009)
    assert_same_draws(theirs, ours, ("randint", (low, min(low + span, 2**63 - 1), 1000)))
    assert_same_state(theirs, ours)


def test_low_can_be_left_out() -> None:
    theirs, ours = pair(5)
    assert ours.randint(10, size=(3, 4)).tobytes() == raw(torch.randint(10, (3, 4), generator=theirs))
    assert ours.randint(7).shape == ()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000, 2**14 - 1, 2**14, 2**14 + 1, 2**14 + 2, 2**15 + 1, 300_000])
def test_permutations_across_the_blocks_that_are_shuffled_at_once(n: int) -> None:
    for seed in range(3):
        theirs, ours = pair(seed)
        assert_same_draws(theirs, ours, ("randperm", (n,)))
        assert_same_state(theirs, ours)


def test_shapes_are_given_as_in_pytorch() -> None:
    ours = Generator(0)
    assert ours.rand(2, 3).shape == ours.rand((2, 3)).shape == ours.randn([2, 3]).shape == (2, 3)
    assert ours.rand().shape == ours.randn(()).shape == ours.random().shape == ()
    assert ours.uniform(0, 1, 5).shape == ours.normal(0, 1, (5,)).shape == (5,)
    assert ours.rand(0, 3).shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("features", [(1, 1), (3, 1), (1, 20), (13, 7), (100, 10), (784, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_starts_with_the_same_weight_and_bias(dtype: str, features: tuple[int, int], bias: bool) -> None:
    for seed in range(10):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = torch.nn.Linear(*features, bias=bias, dtype=DTYPES[dtype][0])
            after = raw(torch.get_rng_state())
        ours = Generator(seed)
        weight, offset = ours.linear(*features, bias=bias, dtype=DTYPES[dtype][1])
        assert weight.shape == tuple(layer.weight.shape)
        assert weight.tobytes() == raw(layer.weight)
        assert (offset is None) == (layer.bias is None)
        assert offset is None or offset.tobytes() == raw(layer.bias)
        assert ours.state() == after


def test_a_linear_layer_without_inputs_has_a_bias_of_zeros() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match="zero-element"):
            layer = torch.nn.Linear(0, 3)
        after = raw(torch.get_rng_state())
    ours = Generator(0)
    weight, bias = ours.linear(0, 3)
    assert weight.shape == (3, 0)
    assert bias is not None
    assert bias.tobytes() == raw(layer.bias)
    assert ours.state() == after


@pytest.mark.parametrize(
    ("batch", "drop_last"), [(None, False), *((batch, drop) for batch in (1, 7, 10, 64) for drop in (False, True))]
)
@pytest.mark.parametrize("global_generator", [False, True])
def test_the_order_of_a_data_loader(batch: int | None, drop_last: bool, global_generator: bool) -> None:
    n, epochs, seed = 50, 10, 11
    theirs = torch.default_generator if global_generator else torch.Generator()
    with torch.random.fork_rng(devices=[]):
        theirs.manual_seed(seed)
        loader = DataLoader(
            TensorDataset(torch.arange(n)),
            batch_size=batch,
            shuffle=True,
            drop_last=drop_last,
            generator=None if global_generator else theirs,
        )
        seen = [[rows.reshape(-1).numpy() for (rows,) in loader] for _ in range(epochs)]
        after = raw(theirs.get_state())
    ours = Generator(seed)
    orders = ours.dataloader_order(n, epochs, global_generator=global_generator)
    assert orders.shape == (epochs, n)
    kept = n - n % batch if batch and drop_last else n
    assert [np.concatenate([*rows, np.empty(0, np.int64)]).tolist() for rows in seen] == orders[:, :kept].tolist()
    assert ours.state() == after


def test_the_order_continues_where_the_last_call_stopped() -> None:
    once, twice = Generator(3), Generator(3)
    halves = np.concatenate([twice.dataloader_order(9, 2), twice.dataloader_order(9, 3)])
    assert np.array_equal(once.dataloader_order(9, 5), halves)


@pytest.mark.parametrize("seed", [0, 1, -1, -(2**63), 2**63, 2**64 - 1, 2**32, 2**32 + 5, 67280421310721])
def test_seeds_are_taken_as_pytorch_takes_them(seed: int) -> None:
    theirs, ours = pair(seed)
    assert ours.initial_seed == theirs.initial_seed()
    assert_same_state(theirs, ours)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g: type(g)(2**64), "seed must lie in"),
        (lambda g: type(g)(-(2**63) - 1), "seed must lie in"),
        (lambda g: type(g)(1.5), "seed must be an integer, but got 1.5"),
        (lambda g: g.rand(-1), r"must not be negative, but got \(-1,\)"),
        (lambda g: g.rand(2.0), "a length in size must be an integer, but got 2.0"),
        (lambda g: g.rand(2, dtype=np.int64), "dtype must be one of float16, bfloat16, float32, float64"),
        (lambda g: g.rand(2, dtype=None), "but got None"),
        (lambda g: g.rand(2, dtype="what"), "but got 'what'"),
        (lambda g: g.uniform(1, 0, 3), "uniform needs low <= high, but got low=1 and high=0"),
        (lambda g: g.uniform(-3e38, 3e38, 3), "high - low within float32"),
        (lambda g: g.uniform(0, 1e39, 3), "float32 can hold, but got high=1e"),
        (lambda g: g.uniform(float("nan"), 1, 3), "got low=nan"),
        (lambda g: g.uniform(0, 70000, 3, np.float16), "float16 can hold"),
        (lambda g: g.normal(0, -1, 3), "std >= 0 that float32 can hold, but got -1"),
        (lambda g: g.normal(0, float("nan"), 3), "got nan"),
        (lambda g: g.normal(float("inf"), 1, 3, np.float64), "finite mean that float64 can hold, but got inf"),
        (lambda g: g.randint(5, 5), "low < high, both 64-bit integers, but got low=5 and high=5"),
        (lambda g: g.randint(0), "got low=0 and high=0"),
        (lambda g: g.randint(0, 2**63), "64-bit"),
        (lambda g: g.randint(0.5, 2), "low must be an integer"),
        (lambda g: g.randperm(-1), "randperm needs n >= 0, but got -1"),
        (lambda g: g.linear(-1, 2), "must not be negative"),
        (lambda g: g.dataloader_order(0), "needs n >= 1 and epochs >= 0, but got n=0"),
        (lambda g: g.dataloader_order(3, -1), "epochs=-1"),
    ],
)
def test_wrong_arguments_are_told_and_draw_nothing(wrong: Callable[[Any], object], message: str) -> None:
    generator = Generator(0)
    with pytest.raises(ArgumentError, match=message):
        wrong(generator)
    assert generator.state() == Generator(0).state()


def test_it_draws_where_pytorch_cannot_be_imported() -> None:
    program = """
import sys
sys.modules["torch"] = None
from jaxreg.torch_random import Generator
generator = Generator(9)
print(generator.rand(2).tobytes().hex(), generator.randn(20).tobytes().hex(), generator.randperm(5).tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    theirs = torch.Generator()
    theirs.manual_seed(9)
    uniform, normal = torch.rand(2, generator=theirs), torch.randn(20, generator=theirs)
    permutation = torch.randperm(5, generator=theirs).tolist()
    assert done.stdout.strip() == f"{raw(uniform).hex()} {raw(normal).hex()} {permutation}"
