"""An optimizer that treats every element alike, run on all parameters as one vector.

Following the rounding of an optimizer's operations for each of twenty parameters makes a program twenty times as long
as for one vector, and compiling it is most of what a judgement costs.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from parity._types import PyTree
from parity.porting.optax_state import is_hole, parts
from parity.replay import scan_loop
from parity.rounding import jaxprs

_logger = logging.getLogger(__name__)
# What makes each element of its result from the elements at that place alone.
_ELEMENTWISE_PRIMITIVES = {
    "add", "sub", "mul", "div", "neg", "abs", "sign", "sqrt", "rsqrt", "cbrt", "square", "integer_pow", "pow", "exp",
    "exp2", "expm1", "log", "log1p", "tanh", "logistic", "max", "min", "clamp", "select_n", "eq", "ne", "lt", "le",
    "gt", "ge", "and", "or", "not", "xor", "is_finite", "convert_element_type", "broadcast_in_dim", "copy", "add_any",
    "stop_gradient", "floor", "ceil", "round", "rem", "nextafter", "real", "pvary",
}  # fmt: skip
_CALL_PRIMITIVES = ("jit", "pjit", "custom_jvp_call", "closed_call", "core_call")


@dataclasses.dataclass(frozen=True, eq=False)
class VectorOptimizer:
    """The optimizer on one vector; see :func:`of`."""

    optimizer: optax.GradientTransformation

    def update(self, gradients: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        """Return the next parameters and state, as trees, by way of vectors."""
        whole, tree = parts(state, params)
        joined, apart = ravel_pytree(params)
        inner: Any = jax.tree.structure(jax.eval_shape(self.optimizer.init, joined))
        packed = inner.unflatten([ravel_pytree(part)[0] if is_tree else part for part, is_tree in whole])
        updates, packed = self.optimizer.update(ravel_pytree(gradients)[0], packed, joined)
        after = [
            apart(leaf) if is_tree else leaf for leaf, (_, is_tree) in zip(jax.tree.leaves(packed), whole, strict=True)
        ]
        return apart(optax.apply_updates(joined, updates)), tree.unflatten(after)


def of(optimizer: optax.GradientTransformation, params: PyTree) -> VectorOptimizer | None:
    """Return the optimizer on a vector, where that is the same: ``None`` where it is not, or is not known to be.

    Every operation of its update must be elementwise, so that no element can matter to another, and three steps on
    numbers drawn at random must come out the same, so that no parameter is treated unlike the others.
    """
    if len(jax.tree.leaves(params)) < 2:
        return None
    try:
        state = optimizer.init(params)
        if any(is_hole(leaf) for leaf in jax.tree.leaves(state, is_leaf=is_hole)):
            reason = "it leaves some parameters out"
        elif not _is_elementwise(jax.make_jaxpr(optimizer.update)(params, state, params).jaxpr):
            reason = "its update is not elementwise"
        elif not _same(optimizer, params):
            reason = "it gives other numbers there"
        else:
            return VectorOptimizer(optimizer)
    except Exception:  # an optimizer of somebody's own that takes no vector; it is followed as it is
        _logger.debug("The optimizer is followed as it is: on one vector it fails.", exc_info=True)
        return None
    _logger.debug("The optimizer is followed as it is, and not on one vector: %s.", reason)
    return None


def _is_elementwise(jaxpr: jaxprs.Jaxpr) -> bool:
    for eqn in jaxpr.eqns:
        inner = jaxprs.called(eqn)
        if inner is not None and eqn.primitive.name in _CALL_PRIMITIVES:
            if not _is_elementwise(jaxprs.opened(inner)[0]):
                return False
            continue
        shapes = {shape for atom in [*eqn.invars, *eqn.outvars] if (shape := jaxprs.shape_of(atom))}
        # Among scalars alone anything goes but chance.
        known = eqn.primitive.name in _ELEMENTWISE_PRIMITIVES or (not shapes and "random" not in eqn.primitive.name)
        if not known or len(shapes) > 1:
            return False
    return True


def _same(optimizer: optax.GradientTransformation, params: PyTree) -> bool:
    rng = np.random.default_rng(0)
    # As many axes as the parameters have, and few elements: where one cannot matter to another, more show nothing.
    flat = VectorOptimizer(optimizer)

    def drawn() -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal([min(3, n) for n in np.shape(leaf)])), params)

    def both(first: PyTree, drawn: list[PyTree]) -> tuple[PyTree, PyTree]:
        ours = theirs = (first, optimizer.init(first))
        for gradients in drawn:
            updates, state = optimizer.update(gradients, ours[1], ours[0])
            ours = (optax.apply_updates(ours[0], updates), state)
            theirs = flat.update(gradients, theirs[1], theirs[0])
        return ours, theirs

    # One program: to compile each operation by itself takes ten times as long.
    ours, theirs = jax.jit(both, compiler_options=scan_loop.quick_options())(drawn(), [drawn() for _ in range(3)])
    ours_leaves: list[Any]
    ours_tree: Any
    (ours_leaves, ours_tree), theirs_leaves = jax.tree.flatten(ours), jax.tree.leaves(theirs)
    if ours_tree != jax.tree.structure(theirs):
        return False
    pairs = zip(ours_leaves, theirs_leaves, strict=True)
    # Compilers fuse a vector's operations otherwise than a small array's.
    return all(np.allclose(a, b, rtol=1e-10, atol=1e-12, equal_nan=True) for a, b in pairs)
