"""The linear layer: Flax's, initialised as PyTorch initialises it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import PrecisionLike
from jax.typing import DTypeLike

from jaxreg._arrays import as_array
from jaxreg._errors import ArgumentError
from jaxreg._memory import short_of
from jaxreg._precision import full_precision
from jaxreg._types import DType
from jaxreg._validation import check_count, check_dtype, check_flag
from jaxreg.torch_random import Generator


def _uniform(bound: float) -> nnx.initializers.Initializer:
    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32, out_sharding: object = None
    ) -> jax.Array:
        # A 16-bit format has a few hundred values between 0 and 1 to draw from: draw in float32, then round.
        drawn_in = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype
        return jax.random.uniform(key, shape, drawn_in, minval=-bound, maxval=bound).astype(dtype)

    return init


class _Drawn:
    """PyTorch's initial values where Flax asks for keys and initialisers: nothing is left to draw, nor to compile."""

    def __init__(self, generator: Generator, in_features: int, out_features: int, use_bias: bool, dtype: DType) -> None:
        self._weight, self._bias = generator.linear(in_features, out_features, use_bias, dtype)

    def params(self) -> None:
        return None

    def kernel(self, *_: object) -> jax.Array:
        return jnp.asarray(self._weight.T)

    def bias(self, *_: object) -> jax.Array:
        return jnp.asarray(self._bias)


class Linear(nnx.Linear):
    r"""``y = x W + b``, a :class:`flax.nnx.Linear` with the default initialisation of ``torch.nn.Linear``.

    Weights and bias are drawn uniformly from :math:`[-1/\sqrt{d}, 1/\sqrt{d})` with :math:`d` = ``in_features``:
    PyTorch's ``kaiming_uniform_(a=sqrt(5))`` comes to just that. Flax alone would draw LeCun-normal weights and a zero
    bias. The kernel is stored as Flax does, ``(in_features, out_features)``: PyTorch's weight transposed.

    Any number of leading axes will do, none and zero-length ones too, as in PyTorch. Inputs of another floating dtype
    than the parameters are promoted, as JAX and Flax do, where PyTorch raises; integers are refused as PyTorch does.
    Parameters and inputs of 16 bits give outputs of 16 bits.

    Products run at full float32 precision on every backend, unless ``precision`` or JAX's own
    ``jax_default_matmul_precision`` says otherwise.

    Args:
        in_features: length of the inputs' last axis.
        out_features: length of the outputs' last axis.
        use_bias: whether a bias is added.
        param_dtype: floating dtype of kernel and bias.
        precision: precision of the product, as :class:`jax.lax.Precision` names it; ``None`` means as said above.
        rngs: source of the initial values: Flax's, or a :class:`jaxreg.torch_random.Generator`, which draws bit for bit
            what ``torch.nn.Linear`` would, and compiles nothing.

    Raises:
        ArgumentError: a size is not an integer of at least 0, JAX would cut ``param_dtype`` to a smaller type, a
            Generator cannot draw it, or ``rngs`` draws nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import jaxreg
        >>> layer = Linear(3, 2, rngs=nnx.Rngs(0))
        >>> layer.kernel.shape, layer.bias.shape
        ((3, 2), (2,))
        >>> layer(jnp.ones((5, 3))).shape
        (5, 2)

        As after ``torch.manual_seed(42)``:

        >>> Linear(1, 1, rngs=jaxreg.torch_random.Generator(42)).bias[...]
        Array([0.8300079], dtype=float32)

    Source: `torch/nn/modules/linear.py`, ``Linear.reset_parameters``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        rngs: nnx.Rngs | Generator,
    ) -> None:
        check_count("in_features", in_features, 0)
        check_count("out_features", out_features, 0)
        in_features, out_features = int(in_features), int(out_features)
        check_flag("use_bias", use_bias)
        check_dtype(param_dtype, "param_dtype")
        needed = (in_features + 1) * out_features * jnp.dtype(param_dtype).itemsize
        # XLA would end the process, unless it is traced: then it may be spread over devices, or never made.
        if short_of(needed) is not None and not isinstance(jnp.zeros(()), jax.core.Tracer):
            raise ArgumentError(
                f"a layer of {in_features:,} inputs and {out_features:,} outputs takes {needed / 2**30:,.1f} GiB, "
                "which are not free"
            )
        if not isinstance(rngs, nnx.Rngs | nnx.RngStream | Generator):
            raise ArgumentError(
                "rngs must be flax.nnx.Rngs, such as nnx.Rngs(0), or a jaxreg.torch_random.Generator, "
                f"got {type(rngs).__name__}"
            )
        source: Any = rngs
        kernel_init = bias_init = _uniform(1 / math.sqrt(in_features) if in_features else 0.0)
        if isinstance(rngs, Generator):
            source = _Drawn(rngs, in_features, out_features, use_bias, jnp.dtype(param_dtype))
            kernel_init, bias_init = source.kernel, source.bias
        super().__init__(
            in_features,
            out_features,
            use_bias=use_bias,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=kernel_init,
            bias_init=bias_init,
            rngs=source,
        )

    def __call__(self, inputs: jax.Array, out_sharding: jax.sharding.Sharding | None = None) -> jax.Array:
        """Apply the layer to the last axis.

        Args:
            inputs: shape ``(..., in_features)``, any number of leading axes; whatever holds numbers, as
                :func:`jaxreg.fit` takes it.
            out_sharding: as in :class:`flax.nnx.Linear`.

        Returns:
            Shape ``(..., out_features)``.

        Raises:
            ArgumentError: the last axis does not have ``in_features`` elements, or the inputs are not floating.
        """
        inputs = jnp.asarray(as_array("inputs", inputs))
        shape = inputs.shape
        if not shape or shape[-1] != self.in_features:
            hint = "; for one feature, write inputs.reshape(-1, 1)" if self.in_features == 1 else ""
            raise ArgumentError(
                f"inputs must have shape (..., in_features) = (..., {self.in_features}), got {tuple(shape)}{hint}"
            )
        dtype = jnp.result_type(inputs)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ArgumentError(
                f"inputs must be floating, got {dtype}; write inputs.astype(jnp.{jnp.dtype(self.param_dtype)})"
            )
        with full_precision():
            return super().__call__(inputs, out_sharding)
