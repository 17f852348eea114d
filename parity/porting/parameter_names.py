"""How PyTorch's parameters and buffers map onto a port's leaves: given, or found from names and shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity._errors import PortError
from parity.porting import name_matching, tensor_layout
from parity.porting import port as _port
from parity.porting.port import Port
from parity.porting.tensor_layout import Leaf, Place, Shape
from parity.recording.recording import Array, Recording

Given = Mapping[str, str | Sequence[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
    """A resolved mapping; both directions can be traced by JAX.

    Attributes:
        places: by PyTorch's name, where the port keeps it.
        paths: all leaves of the port's tree, in the tree's order.
        structure: of the tree.
        buffers: the same for the model's own state, where the port has one.
    """

    places: Mapping[str, Place]
    paths: tuple[str, ...]
    structure: Any
    buffers: Names | None = None

    def to_port(self, tensors: Mapping[str, Any], rest: Any = None) -> Any:
        """Put PyTorch's tensors, by name, in the port's structure and layout; other leaves are those of ``rest``."""
        by_path = {} if rest is None else dict(zip(self.paths, self.structure.flatten_up_to(rest), strict=True))
        for name, place in self.places.items():
            if rest is None or name in tensors:
                by_path.update(place.to_port(tensors[name]))
        return jax.tree.unflatten(self.structure, [by_path[path] for path in self.paths])

    def from_port(self, tree: Any, is_hole: Callable[[Any], bool] = lambda _: False) -> dict[str, Any]:
        """Put a tree like the port's under PyTorch's names and in its layout; holes stay as they are."""
        leaves = dict(zip(self.paths, self.structure.flatten_up_to(tree), strict=True))
        found = {}
        for name, place in self.places.items():
            held = [leaves[leaf.path] for leaf in place.leaves]
            hole = next((value for value in held if is_hole(value)), None)
            found[name] = hole if hole is not None else place.from_port(held, _joined)
        return found


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if all(isinstance(part, np.ndarray) for part in parts) else jnp.concatenate(parts)


def of(port: Port, recording: Recording) -> Names:
    """Find the mapping between a recording's parameters and buffers and a port's.

    Raises:
        PortError: they cannot be matched, or in more than one way; the message says what to write.
    """
    shapes = {name: values.shape for name, values in recording.initial.items()}
    given = None if port.names is None else {n: p for n, p in port.names.items() if n not in recording.initial_buffers}
    names = resolve(shapes, port.params, given or None, recording.initial)
    return dataclasses.replace(names, buffers=_of_buffers(port, recording))


def resolve(
    shapes: Mapping[str, Shape], params: Any, names: Given | None, initial: Mapping[str, Any] | None = None
) -> Names:
    """Match PyTorch's parameters, given by name and shape, with the floating leaves of ``params``.

    ``initial`` are PyTorch's values, which tell the layout of a square one where the port has the same.

    Raises:
        PortError: they cannot be matched, or in more than one way; the message says what to write.
    """
    kept = _port.parameters(params)
    leaves, structure = _leaves(kept)
    values = dict(zip(leaves, jax.tree.leaves(kept), strict=True))
    places = _given(shapes, leaves, names) if names is not None else _found(shapes, leaves, initial or {}, values)
    used = [leaf.path for place in places.values() for leaf in place.leaves]
    twice = next((path for path in used if used.count(path) > 1), None)
    if twice is not None:
        raise PortError(_mismatch(f"names puts two of PyTorch's parameters at {twice!r}", shapes, leaves))
    extra = [path for path in leaves if path not in used]
    if extra:
        what = f"the port's parameters and PyTorch's do not pair up one to one: nothing in names goes to {extra[0]!r}"
        raise PortError(_mismatch(what, shapes, leaves))
    return Names(places, tuple(leaves), structure)


def _leaves(tree: Any) -> tuple[dict[str, Shape], Any]:
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    keystr = jax.tree_util.keystr
    return {keystr(path, simple=True, separator="."): tuple(np.shape(leaf)) for path, leaf in flat}, structure


# -- the model's own state


def _of_buffers(port: Port, recording: Recording) -> Names | None:
    """Map the buffers: those that training changes must have a place; constants and counts of batches need none."""
    floating = {n: b for n, b in recording.initial_buffers.items() if np.issubdtype(b.dtype, np.floating)}
    changing = {name: values for name, values in floating.items() if _changes(name, values, recording)}
    if port.state is None:
        if changing:
            listed = ", ".join(changing)
            raise PortError(
                f"PyTorch's model has state of its own that training changes ({listed}), and the port has none. "
                "Give the Port state=..., and an apply(params, state, inputs) that returns predictions and the next "
                "state"
            )
        return None
    leaves, structure = _leaves(_port.arrays(port.state))
    kept = {path: shape for path, shape in leaves.items() if _is_floating(port.state, path)}
    given = {name: path for name, path in (port.names or {}).items() if name in recording.initial_buffers}
    # Constants have a place where the port keeps them too, as a BatchNorm in eval mode does.
    wanted = changing if given or len(changing) >= len(kept) else floating
    shapes = {name: values.shape for name, values in wanted.items()}
    try:
        places = _places_of_buffers(shapes, leaves, kept, given, recording)
    except PortError as error:
        raise PortError(f"the model's own state, which PyTorch keeps in buffers: {error}") from None
    unused = kept.keys() - {leaf.path for place in places.values() for leaf in place.leaves}
    if unused:
        what = f"the port's state {sorted(unused)[0]!r} is no buffer of PyTorch's model"
        raise PortError(_mismatch(what, shapes, kept))
    return Names(places, tuple(leaves), structure)


def _places_of_buffers(
    shapes: Mapping[str, Shape],
    leaves: Mapping[str, Shape],
    kept: Mapping[str, Shape],
    given: Given,
    recording: Recording,
) -> dict[str, Place]:
    if not given:
        return _found(shapes, kept)
    named = {name: recording.initial_buffers[name].shape for name in given}
    return _given({**named, **shapes}, leaves, given)


def _changes(name: str, initial: Array, recording: Recording) -> bool:
    after = recording.observed.buffers.get(name)
    return after is not None and not all(np.array_equal(initial, row, equal_nan=True) for row in after)


def _is_floating(state: Any, path: str) -> bool:
    flat, _ = jax.tree_util.tree_flatten_with_path(_port.arrays(state))
    values = {jax.tree_util.keystr(where, simple=True, separator="."): leaf for where, leaf in flat}
    return bool(jnp.issubdtype(jnp.result_type(values[path]), jnp.inexact))


# -- given, and found


def _given(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape], names: Given) -> dict[str, Place]:
    places = {}
    unknown = [name for name in names if name not in shapes]
    if unknown:
        raise PortError(_mismatch(f"names has {unknown[0]!r}, which PyTorch's model has not", shapes, leaves))
    for name, shape in shapes.items():
        if name not in names:
            raise PortError(_mismatch(f"names leaves out PyTorch's parameter {name!r}", shapes, leaves))
        value = names[name]
        texts = [value] if isinstance(value, str) else list(value)
        paths = [text if text in leaves else text.removesuffix(".T") for text in texts]
        for text, path in zip(texts, paths, strict=True):
            if path not in leaves:
                what = f"names puts {name!r} at {text!r}, which the port does not have"
                raise PortError(_mismatch(what, shapes, leaves))
        has = [leaves[path] for path in paths]
        turns = [text not in leaves for text in texts]
        sources = [shape] if len(texts) == 1 and tensor_layout.fits(shape, has[0], turns[0]) else None
        if len(texts) > 1:
            sources = tensor_layout.fused(shape, has, turns)
        if sources is None:
            held = ", ".join(f"{text!r} {size}" for text, size in zip(texts, has, strict=True))
            raise PortError(_mismatch(f"{name!r} {shape} does not fit {held}", shapes, leaves))
        places[name] = Place(tuple(map(Leaf, paths, turns, has, sources)))
    return places


def _found(
    shapes: Mapping[str, Shape],
    leaves: Mapping[str, Shape],
    initial: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> dict[str, Place]:
    try:
        paths = name_matching.find(shapes, leaves)
    except name_matching.UnmatchedError as problem:
        raise PortError(_mismatch(str(problem), shapes, leaves)) from None
    places = {}
    for name, path in paths.items():
        transposed = name_matching.is_transposed(shapes[name], path, leaves[path], name)
        if transposed is None or name_matching.same_name(name, path):
            told = _by_values((initial or {}).get(name), (values or {}).get(path))
            transposed = transposed if told is None else told
        if transposed is None:
            what = f"{name!r} is square, so {path!r} could be it or its transpose"
            raise PortError(_mismatch(what, shapes, leaves))
        places[name] = Place((Leaf(path, transposed, leaves[path], shapes[name]),))
    return places


def _by_values(torch: Any, own: Any) -> bool | None:
    """Whether a port's leaf holds PyTorch's tensor turned, to the last bit; ``None``: its values do not tell."""
    if torch is None or np.ndim(torch) < 2 or isinstance(own, jax.ShapeDtypeStruct):
        return None
    held = np.asarray(own)
    as_it_is = np.array_equal(held, torch, equal_nan=True)
    turned = np.array_equal(held, tensor_layout.turn(torch), equal_nan=True)
    return None if as_it_is == turned else bool(turned)


def _mismatch(what: str, shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> str:
    def listed(items: Mapping[str, Shape]) -> str:
        return ", ".join(f"{name} {shape}" for name, shape in items.items()) or "none"

    if more := _besides(shapes, leaves):
        return f"{what}. PyTorch has {listed(shapes)}; the port has {listed(leaves)}. {more}"
    example = name_matching.suggestion(shapes, leaves)
    advice = (
        f"Write names={example} in the Port, if that is what you mean"
        if "..." not in example.values()
        else f'Write names={example} in the Port, each "..." a path of the port'
    )
    return (
        f"{what}. PyTorch has {listed(shapes)}; the port has {listed(leaves)}. {advice}: '.T' where it is transposed, "
        "a list of paths where the port keeps a parameter in several"
    )


def _besides(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> str:
    """Give advice where the port has a leaf more than PyTorch, of another tensor's shape: a tied weight's copy."""
    fits = {name: name_matching.candidates(name, shape, leaves) for name, shape in shapes.items()}
    held = {path: [name for name in shapes if path in fits[name]] for path in leaves}
    placed = {name for names in held.values() for name in names}
    several = len(leaves) > len(shapes) and all(held.values()) and placed == shapes.keys()
    rest = {path: names for path, names in held.items() if path not in shapes}
    # Where the port has none of PyTorch's own names, which leaf is the copy is anybody's guess.
    if not several or not rest or len(rest) == len(held):
        return ""
    path, names = next(iter(rest.items()))
    return (
        f"The port has {len(leaves) - len(shapes)} more. A tensor that PyTorch's model uses in two places is one "
        f"parameter: if {path!r} is {names[0]!r} once more, take it out of the port and use {names[0]!r} there too"
    )
