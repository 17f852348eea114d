"""SGD's state to and from PyTorch: its momentum buffers, and the settings of its parameter groups."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxreg._errors import ArgumentError
from jaxreg._optim.sgd import MomentumState, sgd
from jaxreg._optim.sgd_groups import group_of, sgd_groups
from jaxreg._tree_paths import dotted, named_leaves
from jaxreg._validation import check_count
from jaxreg.state_dict._torch_names import Array, Parameter, as_numpy, compare, parameters, raise_mismatches

_DEFAULTS = {name: item.default for name, item in inspect.signature(sgd).parameters.items()}
_THEIR_OWN = {"foreach": None, "differentiable": False, "fused": None}  # how PyTorch runs, not what it computes


def export_optimizer(
    state: Any,
    model: nnx.Module,
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.0,
    *,
    groups: Mapping[str, Mapping[str, Any] | None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The state of :func:`jaxreg.sgd` as ``torch.optim.SGD.state_dict`` has it.

    PyTorch takes it once its arrays are tensors::

        for entry in exported["state"].values():
            entry["momentum_buffer"] = torch.from_numpy(entry["momentum_buffer"])
        torch_optimizer.load_state_dict(exported)

    Args:
        state: of a training of ``model``'s parameters: what ``init`` or ``update`` gave, of :func:`jaxreg.sgd`,
            :func:`jaxreg.sgd_groups` or a chain that has them in it, or the ``opt_state`` of a ``flax.nnx.Optimizer``.
        model: gives the names and the layout; see :func:`jaxreg.state_dict.export`.
        learning_rate: as the optimizer was given it, for Optax keeps no settings in the state. Of a schedule the
            current value is written; PyTorch's scheduler has a state of its own, whose ``last_epoch`` is the count.
        momentum: likewise.
        groups: likewise, of :func:`jaxreg.sgd_groups`; frozen parameters are in no group then.
        **settings: likewise the rest.

    Returns:
        ``{"state": {0: {"momentum_buffer": array}, ...}, "param_groups": [...]}``, arrays in PyTorch's layout, the
        parameters numbered group by group and named in ``"param_names"``. Without momentum, or before the first step,
        ``"state"`` is empty, as PyTorch's is.

    Raises:
        ArgumentError: the learning rate is a schedule and the state counts no steps.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> import jaxreg
        >>> model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> params = nnx.state(model, nnx.Param)
        >>> optimizer = jaxreg.sgd(0.1, momentum=0.9)
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> exported = export_optimizer(state, model, 0.1, momentum=0.9)
        >>> exported["state"][0]["momentum_buffer"].shape, exported["param_groups"][0]["lr"]
        ((2, 3), 0.1)

    Source: `torch/optim/optimizer.py`, ``Optimizer.state_dict``.
    """
    groups = groups or {}
    members = [_members(model, tuple(groups), number) for number in range(len(groups) + 1)]
    buffers = _buffers(state)
    exported: dict[str, Any] = {"state": {}, "param_groups": []}
    number = 0
    for own, belonging in zip((*groups.values(), {}), members, strict=True):
        if own is None or not belonging:
            continue
        chosen = {**_DEFAULTS, "learning_rate": learning_rate, "momentum": momentum, **settings, **own}
        indices = list(range(number, number + len(belonging)))
        number += len(belonging)
        names = {"params": indices, "param_names": [parameter.name for parameter in belonging]}
        exported["param_groups"].append({**_their_settings(chosen, state), **_THEIR_OWN, **names})
        for index, parameter in zip(indices, belonging, strict=True):
            if parameter.path in buffers:
                exported["state"][index] = {"momentum_buffer": parameter.to_torch(buffers[parameter.path])}
    return exported


def _members(model: nnx.Module, patterns: tuple[str, ...], number: int) -> list[Parameter]:
    return [parameter for parameter in parameters(model) if group_of(parameter.path, patterns) == number]


def _moments(state: Any) -> list[MomentumState]:
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, MomentumState))
    return [node for node in leaves if isinstance(node, MomentumState)]


def _one_number(value: Any) -> Any:
    return np.asarray(jax.tree.leaves(value)[0]).reshape(()).item()  # a Flax optimizer wraps its arrays


def _buffers(state: Any) -> dict[str, Any]:
    """The momentum buffers by path; none from before the first step, which PyTorch has not made yet either."""
    made = [node for node in _moments(state) if _one_number(node.step) > 0]
    return {path: leaf for node in made for path, leaf in named_leaves(node.momentum_buffer).items()}


def _their_settings(chosen: Mapping[str, Any], state: Any) -> dict[str, Any]:
    rate = chosen["learning_rate"]
    if callable(rate):
        counts = optax.tree.get_all_with_path(state, "count")
        if not counts:
            raise ArgumentError("learning_rate is a schedule, but the state counts no steps: it is another optimizer's")
        rate = rate(jnp.asarray(_one_number(counts[0][1]), jnp.int32))
    flags = {name: bool(chosen[name]) for name in ("nesterov", "maximize")}
    numbers = {name: _one_number(chosen[name]) for name in ("momentum", "dampening", "weight_decay")}
    return {"lr": _one_number(rate), **numbers, **flags}


def load_optimizer(
    optimizer: optax.GradientTransformation,
    model: nnx.Module,
    mapping: Mapping[str, Any],
    *,
    step: int | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """The state of ``optimizer`` that goes on where a ``torch.optim.SGD`` stopped.

    Args:
        optimizer: :func:`jaxreg.sgd`, :func:`jaxreg.sgd_groups` or a chain with them in it, with the settings that the
            training is to go on with (:func:`jaxreg.state_dict.make_optimizer` makes it of PyTorch's).
        model: the model with the weights of that moment; see :func:`jaxreg.state_dict.load`.
        mapping: ``torch_optimizer.state_dict()``, its tensors as they are or as arrays, or what
            :func:`jaxreg.state_dict.export_optimizer` gave. Buffers in PyTorch's layout.
        step: number of steps made, for a schedule to go on from: the ``last_epoch`` of PyTorch's scheduler. PyTorch's
            SGD itself counts none, so it must be said where the optimizer counts.
        names: PyTorch's names of the parameters in the order of their numbers. Needed where the mapping holds none and
            the optimizer was not given all of ``model.parameters()`` as one group.

    Returns:
        The state, for the tree ``nnx.state(model, nnx.Param)``.

    Raises:
        ArgumentError: names, shapes or dtypes do not fit (all of them listed), or ``step`` or ``names`` is needed.

    Source: `torch/optim/optimizer.py`, ``Optimizer.load_state_dict``.
    """
    known = {parameter.name: parameter for parameter in parameters(model)}
    buffers, wrong = _their_buffers(known, mapping, names)
    state = optimizer.init(nnx.state(model, nnx.Param))
    held = [set(named_leaves(node.momentum_buffer)) for node in _moments(state)]
    by_path = {parameter.path: parameter for parameter in known.values()}
    for path in buffers:
        if not any(path in paths for paths in held):
            wrong.append(f"{by_path[path].name!r} has a momentum buffer, but the optimizer keeps none for it")
    for paths in held:
        without = sorted(by_path[path].name for path in paths - set(buffers))
        if without and len(without) < len(paths):
            wrong.append(
                f"{', '.join(map(repr, without))}: no momentum buffer, while others of the same group have one"
            )
    raise_mismatches("the optimizer's state", wrong)

    def placed(path: Any, _: Any) -> jax.Array:
        return by_path[dotted(path)].from_torch(buffers[dotted(path)])

    def filled(node: Any) -> Any:
        if not isinstance(node, MomentumState) or not set(named_leaves(node.momentum_buffer)) & set(buffers):
            return node
        buffer = jax.tree_util.tree_map_with_path(placed, node.momentum_buffer)
        return MomentumState(jnp.asarray(step or 1, jnp.int32), buffer)

    state = jax.tree.map(filled, state, is_leaf=lambda node: isinstance(node, MomentumState))
    return _counted(state, step)


def _counted(state: Any, step: int | None) -> Any:
    """The state with every count of steps set."""
    if step is not None:
        check_count("step", step, 0)
        if step >= 2**31:
            raise ArgumentError(f"step must be below 2**31, in which Optax counts, got {step!r}")
    if not optax.tree.get_all_with_path(state, "count"):
        return state
    if step is None:
        raise ArgumentError(
            "the optimizer counts steps, for a schedule, and PyTorch's SGD counts none: say how many were made with "
            "step=, the last_epoch of PyTorch's scheduler"
        )
    return optax.tree.set(state, count=jnp.asarray(step, jnp.int32))


def _their_buffers(
    known: Mapping[str, Parameter], mapping: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[dict[str, Array], list[str]]:
    """PyTorch's buffers by path, in its layout, and what is wrong with them."""
    buffers, wrong = {}, []
    for index, name in _numbered(known, mapping, names).items():
        buffer = mapping["state"].get(index, {}).get("momentum_buffer")
        if name not in known:
            wrong.append(f"{name!r} is no parameter of the model, which has {', '.join(map(repr, known))}")
        elif buffer is not None:
            array = as_numpy(buffer, f"the momentum buffer of {name!r}")
            wrong += compare(known[name], array, f"the momentum buffer of {name!r}")
            buffers[known[name].path] = array
    return buffers, wrong


def _numbered(
    known: Mapping[str, Parameter], mapping: Mapping[str, Any], names: Sequence[str] | None
) -> dict[int, str]:
    """PyTorch's numbers of the parameters, and their names."""
    groups = _groups_of(mapping)
    indices = [index for group in groups for index in group["params"]]
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    if names is None and len(groups) == 1 and len(indices) == len(known):
        names = list(known)
    if names is None or len(names) != len(indices):
        raise ArgumentError(
            f"the optimizer's state numbers {len(indices)} parameters in {len(groups)} groups and does not name them: "
            f"give names=, PyTorch's names in that order, of {', '.join(map(repr, known))}"
        )
    return dict(zip(indices, names, strict=True))


def _groups_of(mapping: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if not isinstance(mapping, Mapping) or not {"state", "param_groups"} <= set(mapping):
        raise ArgumentError('mapping must be {"state": ..., "param_groups": ...} as torch.optim.SGD.state_dict() gives')
    groups = list(mapping["param_groups"])
    missing = {name for group in groups for name in ("lr", "momentum", "nesterov", "params") if name not in group}
    if missing:
        raise ArgumentError(f"mapping must be the state of a torch.optim.SGD, its groups lack {sorted(missing)}")
    return groups


def make_optimizer(
    mapping: Mapping[str, Any], model: nnx.Module, *, names: Sequence[str] | None = None
) -> optax.GradientTransformation:
    """:func:`jaxreg.sgd` or :func:`jaxreg.sgd_groups` with the settings in the state of a ``torch.optim.SGD``.

    Args:
        mapping: as for :func:`jaxreg.state_dict.load_optimizer`.
        model: whose parameters it is for; those in no group are frozen.
        names: as for :func:`jaxreg.state_dict.load_optimizer`.

    Returns:
        The optimizer, with the learning rate of that moment; PyTorch keeps a schedule elsewhere.

    Raises:
        ArgumentError: it is another optimizer's state, or it names parameters that the model lacks.

    Example:
        >>> from flax import nnx
        >>> import jaxreg
        >>> model = jaxreg.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> state = jaxreg.sgd(0.1).init(nnx.state(model, nnx.Param))
        >>> make_optimizer(export_optimizer(state, model, 0.1), model) is jaxreg.sgd(0.1)
        True
    """
    known = {parameter.name: parameter for parameter in parameters(model)}
    numbered = _numbered(known, mapping, names)
    unknown = [f"{name!r} is no parameter of the model" for name in numbered.values() if name not in known]
    raise_mismatches("the optimizer's settings", unknown)
    groups = _groups_of(mapping)
    settings = [_our_settings(group) for group in groups]
    if len(groups) == 1 and len(numbered) == len(known):
        return sgd(**settings[0])
    chosen: dict[str, Mapping[str, Any] | None] = dict.fromkeys(known)
    for group, own in zip(groups, settings, strict=True):
        chosen.update({numbered[index]: own for index in group["params"]})
    return sgd_groups({glob.escape(known[name].path): own for name, own in chosen.items()}, **settings[0])


def _our_settings(group: Mapping[str, Any]) -> dict[str, Any]:
    given = {"learning_rate": group["lr"], **{name: group[name] for name in _DEFAULTS if name in group}}
    return {name: value if isinstance(value, bool) else float(value) for name, value in given.items()}
