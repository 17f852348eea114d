"""Random functions composed from what the bounds cover, each written for JAX and, where there is one, for PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from hypothesis import strategies as st
from jax import lax

Array = Any
Both = tuple[Callable[..., Any], Callable[..., Any] | None]

# Every operation takes square matrices of one size and returns one.
UNARY: dict[str, Both] = {
    "abs": (jnp.abs, lambda x: _torch_abs(x)),
    "add literal": (lambda x: x + 0.7, lambda x: x + 0.7),
    "atan": (jnp.arctan, torch.atan),
    "average pool": (lambda x: _pool(x, 0.0, lax.add) / 2, lambda x: _torch_pool(torch.nn.functional.avg_pool1d, x)),
    "cbrt": (jnp.cbrt, None),
    "centre": (lambda x: x - x.mean(1, keepdims=True), lambda x: x - x.mean(1, keepdim=True)),
    "clip": (lambda x: jnp.clip(x, -0.3, 1.7), lambda x: x.clamp(-0.3, 1.7)),
    "convolve": (lambda x: _convolve(x), lambda x: _torch_convolve(x)),
    "cos": (jnp.cos, torch.cos),
    "cumprod": (lambda x: jnp.cumprod(x, 1), lambda x: x.cumprod(1)),
    "cumsum": (lambda x: jnp.cumsum(x, 0), lambda x: x.cumsum(0)),
    "divide literal": (lambda x: x / 3.0, lambda x: x / 3.0),
    "erf": (jax.scipy.special.erf, torch.erf),
    "exp": (jnp.exp, torch.exp),
    "exp2": (jnp.exp2, torch.exp2),
    "expm1": (jnp.expm1, torch.expm1),
    "flip": (lambda x: x[::-1], lambda x: x.flip(0)),
    "floor": (jnp.floor, torch.floor),
    "gather": (
        lambda x: x[(jnp.arange(len(x)) * 3 + 1) % len(x)],
        lambda x: x[(torch.arange(len(x)) * 3 + 1) % len(x)],
    ),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), torch.nn.functional.gelu),
    "gelu tanh": (jax.nn.gelu, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "layer norm": (lambda x: _normed(x), lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)),
    "log": (jnp.log, torch.log),
    "log1p": (jnp.log1p, torch.log1p),
    "log softmax": (jax.nn.log_softmax, lambda x: torch.log_softmax(x, -1)),
    "maximum of rows": (lambda x: x - x.max(1, keepdims=True), lambda x: x - x.amax(1, keepdim=True)),
    "max pool": (lambda x: _pool(x, -jnp.inf, lax.max), lambda x: _torch_pool(torch.nn.functional.max_pool1d, x)),
    "multiply literal": (lambda x: 0.1 * x, lambda x: 0.1 * x),
    "negative": (jnp.negative, torch.neg),
    "product of rows": (lambda x: x + x.prod(1, keepdims=True), lambda x: x + x.prod(1, keepdim=True)),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x),
    "relu": (jax.nn.relu, torch.relu),
    "rsqrt": (lax.rsqrt, torch.rsqrt),
    "running sum": (lambda x: lax.scan(lambda c, r: (jnp.tanh(c) + r, c), x[0], x)[1], None),
    "scatter": (lambda x: x.at[jnp.arange(len(x)) // 2].add(x), None),
    "sigmoid": (jax.nn.sigmoid, torch.sigmoid),
    "silu": (jax.nn.silu, torch.nn.functional.silu),
    "sin": (jnp.sin, torch.sin),
    "sinh": (jnp.sinh, torch.sinh),
    "softmax": (jax.nn.softmax, lambda x: torch.softmax(x, -1)),
    "softplus": (jax.nn.softplus, torch.nn.functional.softplus),
    "sort": (lambda x: jnp.sort(x, 1), lambda x: x.sort(1).values),
    "sqrt": (jnp.sqrt, torch.sqrt),
    "square": (jnp.square, torch.square),
    "tan": (jnp.tan, torch.tan),
    "tanh": (jnp.tanh, torch.tanh),
    "third power": (lambda x: x**3, lambda x: x**3),
    "to bfloat16": (lambda x: x.astype(jnp.bfloat16).astype(x.dtype), lambda x: x.to(torch.bfloat16).to(x.dtype)),
    "transpose": (jnp.transpose, torch.t),
    "variance": (lambda x: x / (x.var(0, keepdims=True) + 0.01), None),
}
BINARY: dict[str, Both] = {
    "add": (jnp.add, torch.add),
    "atan2": (jnp.arctan2, torch.atan2),
    "choose": (lambda x, y: jnp.where(x > y, x, 0.3 * y), lambda x, y: torch.where(x > y, x, 0.3 * y)),
    "divide": (jnp.divide, torch.div),
    "hypotenuse": (lambda x, y: jnp.sqrt(x * x + y * y), lambda x, y: torch.sqrt(x * x + y * y)),
    "matmul": (jnp.matmul, torch.matmul),
    "maximum": (jnp.maximum, torch.maximum),
    "minimum": (jnp.minimum, torch.minimum),
    "multiply": (jnp.multiply, torch.mul),
    "power": (lambda x, y: jnp.power(jnp.abs(x) + 0.1, y), lambda x, y: torch.pow(_torch_abs(x) + 0.1, y)),
    "subtract": (jnp.subtract, torch.sub),
    "where first": (
        lambda x, y: lax.cond(x[0, 0] > y[0, 0], lambda: x * y, lambda: x + y),
        lambda x, y: x * y if bool(x[0, 0] > y[0, 0]) else x + y,
    ),
}
# PyTorch's own gradients of these are other functions: at a tie, with zeros in a product, or where JAX leaves out a
# factor of zero that PyTorch multiplies by infinity.
_NO_TORCH_GRADIENT = {"floor", "maximum of rows", "cumprod", "product of rows", "sort"}


def _pool(x: Array, start: float, combine: Any) -> Array:
    return lax.reduce_window(x, start, combine, (1, 2), (1, 1), "SAME" if start else [(0, 0), (0, 1)])


def _torch_pool(function: Any, x: Any) -> Any:
    filler = 0.0 if function is torch.nn.functional.avg_pool1d else -torch.inf
    return function(torch.nn.functional.pad(x, (0, 1), value=filler), 2, 1)


def _torch_abs(x: Any) -> Any:
    """|x| whose derivative at zero is JAX's, 1; torch.abs has 0 there."""
    return torch.where(x >= 0, x, -x)


def _places(count: int) -> Any:
    return (np.arange(count) * 3 + 1) % count


_KERNEL = np.array([0.3, -1.2, 0.7], np.float32)


def _convolve(x: Array) -> Array:
    kernel = jnp.asarray(_KERNEL, x.dtype)[None, None]
    return lax.conv_general_dilated(x[:, None], kernel, (1,), "SAME")[:, 0]


def _torch_convolve(x: Any) -> Any:
    kernel = torch.tensor(_KERNEL, dtype=x.dtype)[None, None]
    return torch.nn.functional.conv1d(x[:, None], kernel, padding=1)[:, 0]


def _normed(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)


class Program(NamedTuple):
    """Steps, each a name and the places of its operands among what was worked out so far, and how it ends."""

    size: int
    scale: float
    seed: int
    steps: tuple[tuple[str, int, int], ...]
    end: str

    def inputs(self) -> list[Array]:
        """Two float32 matrices; some numbers are equal, zero, or whole."""
        rng = np.random.default_rng(self.seed)
        drawn = [rng.standard_normal((self.size, self.size)) * self.scale for _ in range(2)]
        for x in drawn:
            x[rng.random(x.shape) < 0.1] = 0.0
            x[rng.random(x.shape) < 0.1] = 1.0
        return [x.astype(np.float32) for x in drawn]

    def forward(self, side: int) -> Callable[..., Any] | None:
        """The function for JAX (0) or for PyTorch (1); None where PyTorch has no counterpart."""
        table = {**UNARY, **BINARY}
        if any(table[name][side] is None for name, _, _ in self.steps):
            return None

        def function(*inputs: Any) -> Any:
            known = list(inputs)
            for name, first, second in self.steps:
                operation: Any = table[name][side]
                operands = [known[-1 - first % len(known)], known[-1 - second % len(known)]]
                known.append(operation(*operands[: 1 if name in UNARY else 2]))
            last = known[-1]
            return last.sum() if self.end == "sum" else last.mean() if self.end == "mean" else last

        return function

    def jax(self) -> Callable[..., Any]:
        """The function, or its gradient."""
        function: Any = self.forward(0)
        if self.end != "gradient":
            return function
        return jax.grad(lambda *inputs: (function(*inputs) * 0.3).sum(), argnums=(0, 1))

    def torch(self) -> Callable[..., Any] | None:
        """The same for PyTorch, where it is the same."""
        function = self.forward(1)
        if function is None or self.end != "gradient":
            return function
        if any(name in _NO_TORCH_GRADIENT for name, _, _ in self.steps):
            return None
        loss = function

        def gradient(*inputs: Any) -> Any:
            inputs = tuple(x.clone().requires_grad_() for x in inputs)
            (loss(*inputs) * 0.3).sum().backward()
            return [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]

        return gradient


_PLACES = st.integers(0, 4)
_STEPS = st.tuples(st.sampled_from(sorted({**UNARY, **BINARY})), _PLACES, _PLACES)
PROGRAMS = st.builds(
    Program,
    st.sampled_from([1, 3, 8, 17]),
    st.sampled_from([1e-3, 0.1, 1.0, 10.0, 300.0]),
    st.integers(0, 2**32 - 1),
    st.lists(_STEPS, min_size=1, max_size=6).map(tuple),
    st.sampled_from(["all", "sum", "mean", "gradient", "gradient"]),
)
