"""PyTorch's CPU random numbers without PyTorch: the same generator, the same draws, bit for bit, as NumPy arrays.

A :class:`Generator` stands for ``torch.Generator()`` seeded with ``manual_seed``, or for the global generator that
``torch.manual_seed`` seeds. What is followed is PyTorch 2.13 on an x86 processor with AVX2 or better, whatever machine
this runs on. PyTorch 2.11 draws the same but for the 16-bit dtypes, and for a uniform number that rounding takes up to
the bound above, which it leaves there. The facts come from ATen: ``core/MT19937RNGEngine.h``,
``core/DistributionsHelper.h``, ``core/TransformationHelper.h`` and ``native/cpu/DistributionTemplates.h``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int64

from jaxreg._errors import ArgumentError
from jaxreg.torch_random._arguments import Size, check_bounds, check_normal, integer, to_dtype, to_shape
from jaxreg.torch_random._fma import affine32, affine64
from jaxreg.torch_random._mt19937 import Cached, Engine
from jaxreg.torch_random._normal import pair, sixteens
from jaxreg.torch_random._permutation import INSIDE_OUT_FROM, inside_out, shuffle

__all__ = ["Generator"]

# From this range on PyTorch takes 64 random bits for an integer, below it 32.
_WIDE_RANGE = 1 << 28

# Fewer normal samples than this are made in pairs, in double precision; from here on, by sixteens.
_BLOCK = 16


class Generator:
    """PyTorch's CPU generator: every method advances it exactly as the PyTorch call that it names.

    Example:
        >>> generator = Generator(0)
        >>> generator.rand(3)
        array([0.4962566 , 0.7682218 , 0.08847743], dtype=float32)
        >>> generator.randn(2)
        array([0.3643382 , 0.13439633], dtype=float32)
    """

    def __init__(self, seed: int) -> None:
        """Seed as ``torch.manual_seed`` does.

        Args:
            seed: In [-2^63, 2^64 - 1]. A negative one counts from 2^64 down. Only its low 32 bits matter to the draws.

        Raises:
            ArgumentError: The seed is not an integer, or out of range.
        """
        seed = integer(seed, "seed")
        if not -(2**63) <= seed < 2**64:
            raise ArgumentError(f"seed must lie in [-2^63, 2^64 - 1], but got {seed}")
        self._engine = Engine(seed % 2**64)
        self._cached = Cached()

    @property
    def initial_seed(self) -> int:
        """The seed that the generator started from, in [0, 2^64), as ``torch.initial_seed()`` gives it."""
        return self._engine.seed

    def state(self) -> bytes:
        """The 5056 bytes of ``torch.get_rng_state()``, or of ``torch.Generator.get_state()``.

        Example:
            >>> copy = Generator.from_state(Generator(7).state())
            >>> copy.randperm(5)
            array([0, 1, 3, 2, 4])
        """
        return self._engine.to_bytes(self._cached)

    @classmethod
    def from_state(cls, state: bytes) -> Generator:
        """A generator that goes on from ``state``, as in ``torch.get_rng_state().numpy().tobytes()``.

        Raises:
            ArgumentError: The bytes are too few or too many, or no generator of PyTorch's could have written them.
        """
        generator = cls(0)
        generator._engine, generator._cached = Engine.from_bytes(bytes(state))
        return generator

    def rand(self, *size: Size, dtype: npt.DTypeLike = np.float32) -> Float[np.ndarray, "*size"]:
        """``torch.rand(*size)``: uniform on [0, 1). Arguments, result and errors are those of :meth:`uniform`."""
        return self.uniform(0.0, 1.0, to_shape(*size), dtype)

    def uniform(
        self, low: float, high: float, size: Size, dtype: npt.DTypeLike = np.float32
    ) -> Float[np.ndarray, "*size"]:
        """``torch.empty(size).uniform_(low, high)``: uniform on [low, high).

        Args:
            low: Smallest value.
            high: Bound above; with ``low``, at most the dtype's largest value apart.
            size: Shape, or the length of one axis.
            dtype: float32 or float64; or float16 or bfloat16, drawn as PyTorch 2.13 does and earlier ones do not.

        Returns:
            Of shape ``size`` and the dtype asked for.

        Raises:
            ArgumentError: The bounds are in the wrong order, too far apart or not of the dtype, or the size or the
                dtype is not one.
        """
        shape, result = to_shape(size), to_dtype(dtype)
        check_bounds(low, high, result)
        return self._uniform(low, high, math.prod(shape), result).reshape(shape)

    def randn(self, *size: Size, dtype: npt.DTypeLike = np.float32) -> Float[np.ndarray, "*size"]:
        """``torch.randn(*size)``: standard normal. Arguments, result and errors are those of :meth:`normal`."""
        return self.normal(0.0, 1.0, to_shape(*size), dtype)

    def normal(
        self, mean: float, std: float, size: Size, dtype: npt.DTypeLike = np.float32
    ) -> Float[np.ndarray, "*size"]:
        """``torch.empty(size).normal_(mean, std)``, or ``torch.normal(mean, std, size)``: Box-Muller's normal samples.

        Fewer than sixteen values are made in pairs, and an odd one out is kept for the next such call. All float64
        arithmetic goes through this machine's C library, as PyTorch's does.

        Args:
            mean: Of the samples.
            std: Their standard deviation, zero or more.
            size: Shape, or the length of one axis.
            dtype: float32 or float64; or float16 or bfloat16, drawn as PyTorch 2.13 does and earlier ones do not.

        Returns:
            Of shape ``size`` and the dtype asked for.

        Raises:
            ArgumentError: ``std`` is negative, either number is not finite in the dtype that the samples are computed
                in, or the size or the dtype is not one.
        """
        shape, result = to_shape(size), to_dtype(dtype)
        check_normal(mean, std, "float64" if result.name == "float64" else "float32")
        count = math.prod(shape)
        if count >= _BLOCK:
            return self._normal_blocks(mean, std, count, result).reshape(shape)
        samples = affine64(np.array([self._normal() for _ in range(count)], np.float64), std, mean)
        if result.name != "float64":
            # PyTorch goes from double to the 16-bit dtypes by way of float32.
            samples = _narrow(samples, np.dtype(np.float32))
        return _narrow(samples, result).reshape(shape)

    def randint(self, low: int, high: int | None = None, size: Size = ()) -> Int64[np.ndarray, "*size"]:
        """``torch.randint(low, high, size)``: integers in [low, high), or in [0, low) when ``high`` is left out.

        Returns:
            int64, of shape ``size``.

        Raises:
            ArgumentError: The range is empty, or a bound is not a 64-bit integer.

        Example:
            >>> Generator(0).randint(10, size=(2, 3))
            array([[4, 9, 3],
                   [0, 3, 9]])
        """
        first, last = (0, low) if high is None else (low, high)
        first, last, shape = integer(first, "low"), integer(last, "high"), to_shape(size)
        if not -(2**63) <= first < last < 2**63:
            raise ArgumentError(f"randint needs low < high, both 64-bit integers, but got low={first} and high={last}")
        count = math.prod(shape)
        words = self._engine.words64(count) if last - first >= _WIDE_RANGE else self._engine.words(count)
        # Unsigned, so that it wraps like PyTorch's where a range is too wide for int64.
        values = words % np.uint64(last - first) + np.uint64(first % 2**64)
        return values.view(np.int64).reshape(shape)

    def random(self, size: Size = ()) -> Int64[np.ndarray, "*size"]:
        """``torch.empty(size, dtype=torch.int64).random_()``: integers in [0, 2^63), as PyTorch draws further seeds.

        Returns:
            int64, of shape ``size``.

        Raises:
            ArgumentError: The size is not one.
        """
        shape = to_shape(size)
        return (self._engine.words64(math.prod(shape)) & np.uint64(2**63 - 1)).view(np.int64).reshape(shape)

    def randperm(self, n: int) -> Int64[np.ndarray, " n"]:
        """``torch.randperm(n)``: the numbers 0 to n - 1 in random order.

        Returns:
            int64, of shape (n,).

        Raises:
            ArgumentError: ``n`` is negative or not an integer.
        """
        n = integer(n, "n")
        if n < 0:
            raise ArgumentError(f"randperm needs n >= 0, but got {n}")
        return shuffle(self._engine.words, n) if n < INSIDE_OUT_FROM else inside_out(self._engine.words64, n)

    def linear(
        self, in_features: int, out_features: int, bias: bool = True, dtype: npt.DTypeLike = np.float32
    ) -> tuple[Float[np.ndarray, "out in"], Float[np.ndarray, " out"] | None]:
        """The weight and bias that ``torch.nn.Linear(in_features, out_features)`` starts with.

        PyTorch draws the weight by He's uniform rule (K. He et al., 2015) with a = sqrt(5), then the bias: both uniform
        on [-1/sqrt(in), 1/sqrt(in)), the bounds differing in their last bits.

        Args:
            in_features: Columns of the weight.
            out_features: Rows of the weight, and length of the bias.
            bias: Whether the layer has one; if not, nothing is drawn for it.
            dtype: As for :meth:`uniform`.

        Returns:
            The weight, of shape (out_features, in_features), and the bias, of shape (out_features,), or None.

        Raises:
            ArgumentError: A number of features is negative or not an integer, or the dtype is not one.

        Example:
            >>> weight, bias = Generator(42).linear(1, 1)
            >>> weight, bias
            (array([[0.7645385]], dtype=float32), array([0.8300079], dtype=float32))
        """
        rows, columns = to_shape((out_features, in_features))
        gain = math.sqrt(2.0 / (1 + math.sqrt(5) ** 2))
        bound = math.sqrt(3.0) * (gain / math.sqrt(columns)) if columns else 0
        weight = self.uniform(-bound, bound, (rows, columns), dtype)
        if not bias:
            return weight, None
        bound = 1 / math.sqrt(columns) if columns else 0
        return weight, self.uniform(-bound, bound, rows, dtype)

    def dataloader_order(
        self, n: int, epochs: int = 1, *, global_generator: bool = False
    ) -> Int64[np.ndarray, "epochs n"]:
        """The order in which ``DataLoader(dataset, shuffle=True)`` visits ``n`` samples, one epoch a row.

        Batches are slices of a row. Each epoch the loader's iterator draws a seed for worker processes, used or not;
        then its sampler draws the order and, once it is through, a second one of which it takes nothing.

        Args:
            n: Samples in the data set.
            epochs: Passes over it, each to its end.
            global_generator: False if this generator is handed to the loader as ``generator=``; True if it stands for
                the global one, from which the sampler draws just the seed of a generator of its own, anew each epoch.

        Returns:
            int64, of shape (epochs, n).

        Raises:
            ArgumentError: ``n`` is less than one, ``epochs`` is negative, or either is not an integer.

        Example:
            >>> Generator(0).dataloader_order(6, epochs=2)
            array([[5, 1, 0, 3, 2, 4],
                   [4, 2, 1, 3, 0, 5]])
        """
        n, epochs = integer(n, "n"), integer(epochs, "epochs")
        if n < 1 or epochs < 0:
            raise ArgumentError(f"dataloader_order needs n >= 1 and epochs >= 0, but got n={n} and epochs={epochs}")
        orders = np.empty((epochs, n), np.int64)
        for order in orders:
            self.random()
            sampler = Generator(int(self.random())) if global_generator else self
            order[:] = sampler.randperm(n)
            if not global_generator:
                self._skip_permutation(n)
        return orders

    def _skip_permutation(self, n: int) -> None:
        if n < INSIDE_OUT_FROM:
            self._engine.words(n - 1)
        else:
            self._engine.words(2 * n)

    def _uniform(self, low: float, high: float, count: int, dtype: np.dtype[Any]) -> Float[np.ndarray, " count"]:
        if dtype.name == "float64":
            bits = self._engine.words64(count) & np.uint64(2**53 - 1)
            values = affine64(bits * 2.0**-53, high - low, low)
        else:
            bits = self._engine.words(count) & np.uint64(2**24 - 1)
            first, last = np.float32(low), np.float32(high)
            values = bits.astype(np.float32) * np.float32(2.0**-24)
            if (low, high) != (0.0, 1.0):
                values = affine32(values, last - first, first)
            values = values.astype(dtype, copy=False)
        # Rounding can reach the bound above, which the interval leaves out.
        bounds = np.array([low, high], np.float64 if dtype.name == "float64" else np.float32).astype(dtype)
        values[values == bounds[1]] = bounds[0]
        return values

    def _normal(self) -> float:
        if self._cached.double is not None:
            sample, self._cached = self._cached.double, self._cached._replace(double=None)
            return sample
        u1, u2 = self._uniform(0.0, 1.0, 2, np.dtype(np.float64)).tolist()
        sample, other = pair(u1, u2)
        self._cached = self._cached._replace(double=other)
        return sample

    def _normal_blocks(self, mean: float, std: float, count: int, dtype: np.dtype[Any]) -> Float[np.ndarray, " count"]:
        compute = np.dtype(np.float64 if dtype.name == "float64" else np.float32)
        whole, over = count // _BLOCK * _BLOCK, count % _BLOCK
        uniforms = self._uniform(0.0, 1.0, whole, compute).reshape(-1, _BLOCK)
        samples = sixteens(uniforms, mean, std).ravel()
        if over:
            # The last sixteen are made anew. In float32 and float64 PyTorch has drawn for what is over by then as well.
            if compute == dtype:
                self._uniform(0.0, 1.0, over, compute)
            last = self._uniform(0.0, 1.0, _BLOCK, compute).reshape(1, _BLOCK)
            samples = np.concatenate([samples[: count - _BLOCK], sixteens(last, mean, std).ravel()])
        return _narrow(samples, dtype)


def _narrow(samples: Float[np.ndarray, " count"], dtype: np.dtype[Any]) -> Float[np.ndarray, " count"]:
    """Rounded to ``dtype``; what is too large for it becomes infinite, without a warning, as in PyTorch."""
    with np.errstate(over="ignore"):
        return samples.astype(dtype, copy=False)
