"""PyTorch's parameter groups: another setting of SGD for some parameters, and parameters that stay as they are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from jaxreg._errors import ArgumentError
from jaxreg._optim.sgd import sgd
from jaxreg._tree_paths import dotted, named_leaves
from jaxreg._types import OptState, Params, PyTree

_SETTINGS = tuple(inspect.signature(sgd).parameters)


def sgd_groups(
    groups: Mapping[str, Mapping[str, ArrayLike | optax.Schedule] | None],
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.0,
    **settings: ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """:func:`jaxreg.sgd` with other settings for some parameters, as PyTorch's parameter groups give.

    It is ``optax.partition`` over :func:`jaxreg.sgd`, with the parameters told apart by name. A parameter's name is its
    path in the tree that is trained, joined by dots: ``"bias"`` for a single :class:`jaxreg.Linear`,
    ``"layers.0.kernel"`` for the first layer of a ``flax.nnx.Sequential``.

    Args:
        groups: for each pattern of names (``*`` stands for anything, ``?`` for one character, case counts) what is
            other than below, by the names of :func:`jaxreg.sgd`'s arguments; or ``None`` for frozen parameters, which
            stay as they are. A parameter belongs to the first pattern that fits.
        learning_rate: of the parameters that no pattern fits, and of groups that name none.
        momentum: likewise.
        **settings: likewise the rest of :func:`jaxreg.sgd`'s arguments.

    Returns:
        An Optax transformation. Its ``init`` raises where a pattern fits no parameter that an earlier one left over.

    Raises:
        ArgumentError: a setting that :func:`jaxreg.sgd` does not have or refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}
        >>> optimizer = sgd_groups({"*bias": {"weight_decay": 0.0}}, 0.5, weight_decay=0.1)
        >>> no_gradient = {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}
        >>> updates, state = optimizer.update(no_gradient, optimizer.init(params), params)
        >>> print(updates["kernel"].ravel(), updates["bias"])
        [-0.05 -0.05] [-0.]

    Source: `torch/optim/optimizer.py`, ``Optimizer.add_param_group``.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(pattern, str) for pattern in groups):
        raise ArgumentError(f"groups must be a mapping from patterns of names to settings, got {groups!r}")
    defaults: dict[str, Any] = {"learning_rate": learning_rate, "momentum": momentum, **settings}
    _check_settings("sgd_groups", defaults)
    parts = {len(groups): sgd(**defaults)}
    for number, (pattern, other) in enumerate(groups.items()):
        if other is None:
            parts[number] = optax.set_to_zero()
            continue
        if not isinstance(other, Mapping):
            raise ArgumentError(
                f'group {pattern!r} must be settings such as {{"weight_decay": 0.0}}, or None to freeze, got {other!r}'
            )
        _check_settings(f"group {pattern!r}", other)
        parts[number] = sgd(**{**defaults, **other})
    patterns = tuple(groups)

    def labels(params: Params) -> PyTree:
        return jax.tree_util.tree_map_with_path(lambda path, _: group_of(dotted(path), patterns), params)

    inner = optax.partition(parts, labels)

    def init(params: Params) -> OptState:
        _check_patterns(patterns, tuple(named_leaves(params)))
        state: OptState = inner.init(params)
        return state

    return optax.GradientTransformationExtraArgs(init, inner.update)


def group_of(name: str, patterns: tuple[str, ...]) -> int:
    """Return the number of the first pattern that fits the name; their count where none does."""
    return next((number for number, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), len(patterns))


def _check_settings(where: str, settings: Mapping[str, object]) -> None:
    unknown = [name for name in settings if name not in _SETTINGS]
    if unknown:
        raise ArgumentError(f"{where}: {', '.join(map(repr, unknown))} is no setting of sgd; it has {_SETTINGS}")


def _check_patterns(patterns: tuple[str, ...], names: tuple[str, ...]) -> None:
    used = {group_of(name, patterns) for name in names}
    idle = [pattern for number, pattern in enumerate(patterns) if number not in used]
    if idle:
        raise ArgumentError(
            f"no parameter is left for the pattern {', '.join(map(repr, idle))}; the parameters are {', '.join(names)} "
            "and each belongs to the first pattern that fits"
        )
