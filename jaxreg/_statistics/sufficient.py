"""All that training a linear model on squared errors needs of its data, small, and added up from any of its parts."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxreg import _forked, _traced
from jaxreg._arrays import as_array, as_weights
from jaxreg._errors import ArgumentError
from jaxreg._statistics.gram_root import gram_root, merge_roots
from jaxreg._types import DType, Rows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SufficientStatistics:
    r"""A summary of inputs and targets from which full-batch training with :func:`jaxreg.mse_loss` is exact.

    Summaries of parts of the data, from files, devices or machines, add up to that of the whole: ``a + b``.
    :func:`jaxreg.fit` takes one in place of data.

    Attributes:
        root: float64, a matrix :math:`R` with :math:`R^T R = Z^T Z` for :math:`Z = \sqrt{w} [X\ 1\ Y]`; at most as
            many rows as columns, or as the data has.
        rows: of the data.
        weight: sum of the rows' weights; ``None`` where none were given.
        out_features: columns of the targets, the last ones.
        dtype: of the data.

    Example:
        >>> import numpy as np, jaxreg
        >>> from flax import nnx
        >>> x = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(-1, 1)
        >>> parts = [SufficientStatistics.of(part, 2 * part + 1) for part in np.split(x, 4)]
        >>> total = sum(parts[1:], parts[0])
        >>> total
        SufficientStatistics(1,000 rows, 1 input, 1 target, float32)
        >>> result = jaxreg.fit(
        ...     jaxreg.Linear(1, 1, rngs=nnx.Rngs(0)), total, optimizer=jaxreg.sgd(0.1), epochs=1000)
        >>> print(f"{result.model.kernel[0, 0]:.4f} {result.model.bias[0]:.4f}")
        2.0000 1.0000
    """

    root: jax.Array
    rows: int
    weight: float | None
    out_features: int
    dtype: DType

    @property
    def in_features(self) -> int:
        """Return the number of columns of the inputs."""
        return self.root.shape[1] - 1 - self.out_features

    @classmethod
    def of(cls, inputs: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> SufficientStatistics:
        """Summarise data in one pass.

        Args:
            inputs: shape ``(rows, in_features)``, float32 or float64. NumPy arrays are read part by part.
            targets: shape ``(rows, out_features)``.
            weights: shape ``(rows,)``, of each row's squared error; at least 0.

        Raises:
            ArgumentError: shapes or dtypes that do not go together; a negative weight; it is traced.
        """
        _forked.check()
        arrays = _checked(inputs, targets, weights)
        if _traced.reaches(arrays):
            raise ArgumentError(
                "statistics are summed up outside of jax.jit, jax.vmap and jax.grad, and a training on them runs "
                "there; inside of them give jaxreg.fit the data themselves"
            )
        weight = None if arrays[2] is None else float(np.sum(np.asarray(arrays[2], np.float64)))
        shape = np.shape(arrays[1])
        dtype = np.result_type(arrays[0].dtype, arrays[1].dtype)
        return cls(gram_root(*arrays, dtype=dtype), shape[0], weight, shape[1], dtype)

    def __add__(self, other: object) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        mine, theirs = ((s.in_features, s.out_features, s.dtype, s.weight is None) for s in (self, other))
        if mine != theirs:
            raise ArgumentError(
                "summaries add up if they have the same columns and dtype, and both or neither have weights, got "
                f"{self!r} and {other!r}"
            )
        weight = None if self.weight is None or other.weight is None else self.weight + other.weight
        root = merge_roots((self.root, other.root))
        return SufficientStatistics(root, self.rows + other.rows, weight, self.out_features, self.dtype)

    def __repr__(self) -> str:
        def many(count: int, word: str) -> str:
            return f"{count:,} {word}{'' if count == 1 else 's'}"

        weighted = "" if self.weight is None else f", weight {self.weight:g}"
        return (
            f"SufficientStatistics({many(self.rows, 'row')}, {many(self.in_features, 'input')}, "
            f"{many(self.out_features, 'target')}, {self.dtype}{weighted})"
        )


def _checked(inputs: object, targets: object, weights: object) -> Rows:
    arrays = [as_array("inputs", inputs), as_array("targets", targets)]
    shapes = [tuple(a.shape) for a in arrays]
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][0] != shapes[1][0]:
        raise ArgumentError(
            "inputs must have shape (rows, in_features) and targets (rows, out_features), "
            f"got {shapes[0]} and {shapes[1]}"
        )
    if shapes[0][0] == 0:
        raise ArgumentError("inputs and targets have no rows; a mean over nothing is NaN")
    dtype = np.result_type(*(a.dtype for a in arrays))
    if dtype not in (np.float32, np.float64):
        raise ArgumentError(
            f"inputs and targets must be float32 or float64, got {arrays[0].dtype} and {arrays[1].dtype}"
        )
    held = None if weights is None else as_weights(weights)
    if held is not None and tuple(held.shape) != (shapes[0][0],):
        raise ArgumentError(f"weights must be one number of at least 0 a row, got shape {tuple(held.shape)}")
    return arrays[0], arrays[1], held
