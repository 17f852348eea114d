"""Finding which leaf of a port holds which tensor of PyTorch's, where names and shapes leave one answer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from parity.porting.tensor_layout import Shape, turned

# What other libraries call PyTorch's tensors. A Flax kernel is stored (in, out), PyTorch's weight (out, in).
_ROLES = {
    "weight": ("weight", "kernel", "w", "scale", "embedding", "gamma"),
    "bias": ("bias", "b", "beta", "offset"),
    "running_mean": ("running_mean", "mean"),
    "running_var": ("running_var", "var"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
# Layouts that the leaf's own name tells where the shape does not.
_TRANSPOSED_ROLES = ("kernel", "w")
_KEPT_ROLES = ("weight", "embedding", "scale", "gamma")
_MOST_PAIRINGS = 5000


class UnmatchedError(Exception):
    """Names and shapes leave no answer, or more than one; the message says for which tensor."""


@dataclasses.dataclass(eq=False)
class _Search:
    """What is still possible: for each tensor, the leaves that may hold it."""

    shapes: Mapping[str, Shape]
    leaves: Mapping[str, Shape]
    open: dict[str, list[str]]
    found: dict[str, str]

    def take(self, name: str, path: str) -> None:
        """Settle that ``path`` holds ``name``."""
        self.found[name] = path
        self.open.pop(name)
        for options in self.open.values():
            if path in options:
                options.remove(path)


def find(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> dict[str, str]:
    """Find, by PyTorch's name, the path of the leaf that holds it.

    What shapes force is settled first: a tensor that fits one leaf, a layer whose tensors together fit one layer. What
    is left is settled by names alone where those of both sides are the same, but for what a parameter is called and
    for a common beginning. The order in which layers come decides nothing.

    Raises:
        UnmatchedError: they do not pair up one to one, or in more than one way.
    """
    options = {name: candidates(name, shape, leaves) for name, shape in shapes.items()}
    search = _Search(shapes, leaves, options, {})
    for name, paths in options.items():
        if not paths:
            raise UnmatchedError(_no_place(name, shapes[name], leaves))
    while search.open:
        progress = _forced(search) or _by_layers(search) or _by_names(search)
        stuck = next(((name, paths) for name, paths in search.open.items() if not paths), None)
        if stuck:
            raise UnmatchedError(f"{stuck[0]!r} fits no parameter of the port that another does not need")
        if not progress:
            name, paths = next(iter(search.open.items()))
            raise UnmatchedError(f"{name!r} could be {' or '.join(map(repr, natural(paths)))}")
    extra = [path for path in leaves if path not in search.found.values()]
    if extra:
        listed = ", ".join(f"{path!r} {leaves[path]}" for path in extra)
        raise UnmatchedError(
            f"the port's parameters and PyTorch's do not pair up one to one: the port has {listed} besides. Take "
            "out what PyTorch's model has not"
        )
    return search.found


def candidates(name: str, shape: Shape, leaves: Mapping[str, Shape]) -> list[str]:
    """Return the leaves of a fitting shape, as it is or transposed, that are not called something else."""
    role = _ROLE_OF.get(_last(name))

    def called_otherwise(path: str) -> bool:
        other = _ROLE_OF.get(_last(path))
        return role is not None and other is not None and role != other

    return [path for path, has in leaves.items() if has in (shape, turned(shape)) and not called_otherwise(path)]


def is_transposed(shape: Shape, path: str, has: Shape, name: str) -> bool | None:
    """Whether a leaf that holds the tensor ``name`` is its transpose; ``None`` where it could be both."""
    if has != turned(shape) or len(shape) < 2:
        return False
    if has != shape:
        return True
    if same_name(name, path):  # a port that takes PyTorch's names takes its layout too
        return False
    if _last(path) in _TRANSPOSED_ROLES:
        return True
    return False if _last(path) in _KEPT_ROLES else None


def same_name(name: str, path: str) -> bool:
    """Whether the port calls the tensor what PyTorch calls it."""
    return _last(name) == _last(path)


def natural(names: Sequence[str]) -> list[str]:
    """Sort names as people count: ``layer2`` before ``layer10``."""
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _no_place(name: str, shape: Shape, leaves: Mapping[str, Shape]) -> str:
    same = [path for path in leaves if _plain(path) == _plain(name)]
    if same:
        return f"{name!r} {shape} does not fit {same[0]!r} {leaves[same[0]]}, in either layout"
    return f"{name!r} fits no parameter of the port"


def _forced(search: _Search) -> bool:
    """Settle a tensor that fits one leaf only, or a leaf that one tensor only fits where every leaf is needed."""
    for name, paths in search.open.items():
        if len(paths) == 1:
            search.take(name, paths[0])
            return True
    if len(search.leaves) != len(search.shapes):
        return False
    wanted: dict[str, list[str]] = {}
    for name, paths in search.open.items():
        for path in paths:
            wanted.setdefault(path, []).append(name)
    for path, names in wanted.items():
        if len(names) == 1:
            search.take(names[0], path)
            return True
    return False


def _by_layers(search: _Search) -> bool:
    """Narrow to layers whose tensors fit all together, where both sides have the same number of layers."""
    ours, theirs = _layers(search.shapes), _layers(search.leaves)
    if len(ours) != len(theirs):
        return False
    possible = {
        layer: {other: fit for other, paths in theirs.items() if (fit := _together(search, names, paths))}
        for layer, names in ours.items()
    }
    if not all(possible.values()):
        return False
    _settle_pairs(possible)
    changed = False
    for layer, names in ours.items():
        for name in set(names) & search.open.keys():
            reachable: set[str] = set().union(*(fit[name] for fit in possible[layer].values()))
            narrowed = [path for path in search.open[name] if path in reachable]
            changed |= len(narrowed) < len(search.open[name])
            search.open[name] = narrowed
    return changed


def _layers(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_owner(name), []).append(name)
    return found


def _settle_pairs(possible: dict[str, dict[str, dict[str, set[str]]]]) -> None:
    """A layer with one partner takes it from all others, and a partner with one layer is that layer's only one."""
    for layer, others in possible.items():
        if len(others) == 1:
            taken = next(iter(others))
            for rest in possible:
                if rest != layer:
                    possible[rest].pop(taken, None)
    users: dict[str, list[str]] = {}
    for layer, others in possible.items():
        for other in others:
            users.setdefault(other, []).append(layer)
    for other, layers in users.items():
        if len(layers) == 1:
            possible[layers[0]] = {other: possible[layers[0]][other]}


def _together(search: _Search, names: Sequence[str], paths: Sequence[str]) -> dict[str, set[str]]:
    """Return, for each tensor of a layer, the leaves that it can be while all others find theirs; or nothing."""
    within = set(paths)
    options = [search.open.get(name) or [search.found.get(name, "")] for name in names]
    allowed = [[path for path in some if path in within] for some in options]
    if len(names) != len(paths) or not all(allowed):
        return {}
    pairings: list[tuple[str, ...]] = [()]
    for some in allowed:
        pairings = [(*used, path) for used in pairings for path in some if path not in used]
        if len(pairings) > _MOST_PAIRINGS:
            return {name: set(paths) for name, paths in zip(names, allowed, strict=True)}
    return {name: {used[place] for used in pairings} for place, name in enumerate(names)} if pairings else {}


def _by_names(search: _Search) -> bool:
    """Settle what is left where both sides have the same names for it, but for roles and a common beginning."""
    for names, paths in _tangles(search):
        for beginning in (False, True):
            ours, theirs = _simplified(names, beginning), _simplified(paths, beginning)
            if ours.keys() != theirs.keys() or (len(ours), len(theirs)) != (len(names), len(paths)):
                continue
            if all(theirs[key] in search.open[name] for key, name in ours.items()):
                for key, name in ours.items():
                    search.take(name, theirs[key])
                return True
    return False


def _tangles(search: _Search) -> list[tuple[list[str], list[str]]]:
    """Return the tensors that are left, in the smallest sets that share no leaf, with the leaves of each set."""
    sets: list[tuple[list[str], set[str]]] = []
    for name, paths in search.open.items():
        touching = [one for one in sets if one[1] & set(paths)]
        sets = [one for one in sets if one not in touching]
        sets.append(([*(n for one in touching for n in one[0]), name], set(paths).union(*(one[1] for one in touching))))
    return [(names, sorted(paths)) for names, paths in sets]


def _simplified(names: Sequence[str], without_beginning: bool) -> dict[str, str]:
    """Key each name by what matters of it: ``layers_0.kernel`` is ``layers.0.weight``, a common beginning left out."""
    plain = {name: _plain(name).split(".") for name in names}
    common = 0
    if without_beginning:
        shortest = min(len(parts) - 1 for parts in plain.values())
        while common < shortest and len({parts[common] for parts in plain.values()}) == 1:
            common += 1
    return {".".join(parts[common:]): name for name, parts in plain.items()}


def _plain(name: str) -> str:
    """Use the role's name in PyTorch, and numbers as parts of the path: Linen writes ``layers_0`` for a list's."""
    last = _last(name)
    return re.sub(r"_(?=\d+\.)", ".", _owner(name) + ".") + _ROLE_OF.get(last, last)


def suggestion(shapes: Mapping[str, Shape], leaves: Mapping[str, Shape]) -> dict[str, str | list[str]]:
    """Suggest what to write as names: leaves in the order people count, for tensors in theirs; ``"..."`` for none left.

    It is no answer, since the order of layers tells nothing for sure; but it is often what is meant.
    """
    order = natural(list(leaves))
    left = list(order)
    found: dict[str, str | list[str]] = {}
    for name, shape in shapes.items():
        fit = [path for path in candidates(name, shape, leaves) if path in left]
        same = [path for path in fit if _plain(path) == _plain(name)]
        path = next(iter(same or fit), None)
        if path is None:
            found[name] = "..."
            continue
        left.remove(path)
        turned_over = is_transposed(shape, path, leaves[path], name)
        found[name] = f"{path}.T" if turned_over else path
    return found
