"""Running the benchmark: prepare each way, hold its result to the same trajectory, time it in turns with the others."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from parity._errors import BenchError
from parity.bench import clock, same, workloads
from parity.bench.limits import Limits, Work, measure
from parity.bench.peers import OTHERS, OURS, Peer
from parity.bench.workloads import Data, Workload

Say = Callable[[str], None]
# Weights are also held to float64 after so few epochs: what has converged no longer shows which way it came.
_EARLY = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train one workload.

    Attributes:
        peer: its name.
        why_not: why it was not timed; empty where it was.
        share: how far its weights are from float64's, as a share of what rounding can do: at most 1 where it is the
            same training; ``None`` where it was not run. The largest one of the first call's weights, the last timed
            call's, and those after two epochs.
        prepare_seconds: to bring the data to the device and to make ready.
        first_seconds: the first training, with all compiling.
        seconds: of each call in each turn, warm.
        ratio: how many times as long it takes as jaxreg; ``None`` where either is not the same training.
    """

    peer: str
    why_not: str = ""
    share: float | None = None
    prepare_seconds: float | None = None
    first_seconds: float | None = None
    seconds: tuple[tuple[float, ...], ...] = ()
    ratio: clock.Ratio | None = None

    @property
    def is_same(self) -> bool:
        """Whether it is the same training."""
        return self.share is not None and self.share <= 1


@dataclasses.dataclass(frozen=True)
class Timed:
    """One workload, timed.

    Attributes:
        workload: what was trained.
        rows: one for each way.
        work: what no way can do without.
    """

    workload: Workload
    rows: tuple[Row, ...]
    work: Work


def device(platform: str | None) -> Any:
    """The device to run on.

    Raises:
        BenchError: there is none of that platform.
    """
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        found = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise BenchError(f"there is no device {platform!r} here; JAX finds {found}") from None


def peers(ways: Sequence[str] = ()) -> list[Peer]:
    """The ways to train whose names have one of these words in them, and jaxreg; all of them where there is no word.

    Raises:
        BenchError: a word is in no name.
    """
    known = [*OURS, *OTHERS, *_torch_peers()]
    for word in ways:
        if not any(_has(peer, word) for peer in known):
            names = ", ".join(repr(peer.name) for peer in known)
            raise BenchError(f"there is no way to train with {word!r} in its name; there are {names}")
    return [peer for peer in known if not ways or peer is OURS[0] or any(_has(peer, word) for word in ways)]


def _has(peer: Peer, word: str) -> bool:
    return word.lower() in peer.name.lower()


def bench(
    chosen: Sequence[Workload], peers: Sequence[Peer], *, on: Any, repeats: int, seconds: float, say: Say
) -> tuple[list[Timed], Limits]:
    """Time workloads on a device.

    Args:
        chosen: the workloads, scaled already.
        peers: the ways to train; jaxreg's own is among them.
        on: a device of JAX's; PyTorch uses the same one.
        repeats: of each way at most.
        seconds: for the repeats of one way, which is timed once at least.
        say: told what is being done.

    Raises:
        BenchError: a workload does not fit into memory.
    """
    for workload in chosen:
        workloads.check_room(workload)
    say("measuring what the machine can do")
    limits = measure(on, _torch_limits())
    timed = []
    with jax.default_device(on):
        for workload in chosen:
            rows = _rows(workload, peers, on, repeats, seconds, _prefixed(say, workload.name))
            timed.append(Timed(workload, tuple(rows), _work(workload)))
            gc.collect()
    return timed, limits


def _prefixed(say: Say, name: str) -> Say:
    return lambda line: say(f"{name}: {line}")


def _torch_peers() -> list[Peer]:
    try:
        from parity.bench.torch_peers import PEERS
    except ImportError:
        return []
    return list(PEERS)


def _torch_limits() -> Callable[[Any], tuple[float, float, float]] | None:
    try:
        from parity.bench.torch_limits import limits
    except ImportError:
        return None
    return limits


def _rows(workload: Workload, peers: Sequence[Peer], on: Any, repeats: int, seconds: float, say: Say) -> Iterator[Row]:
    say("making the data, and the training in float64")
    data = workloads.data(workload)
    judge = _Judge(workload, data)
    rows: dict[str, Row] = {}
    ways: dict[str, Callable[[], Any]] = {}
    for peer in peers:
        reason = peer.unfit(workload, on)
        if reason:
            rows[peer.name] = Row(peer.name, why_not=reason)
            continue
        try:
            row, ways[peer.name] = _first(peer, workload, data, on, judge)
            say(f"{peer.name}: first run {row.first_seconds:.3g} s, uses {row.share:.2g} of its rounding bound")
        except Exception as error:
            # Another library's way may need what is not here, such as a C++ compiler; the others are still timed.
            if peer in OURS:
                raise
            first = str(error).strip().partition("\n")[0]
            row = Row(peer.name, why_not=f"it fails here: {type(error).__name__}: {first}")
            say(f"{peer.name}: {row.why_not}")
        rows[peer.name] = row
    timed = {name: _Kept(way) for name, way in ways.items()}
    taken = clock.interleaved({**timed}, repeats=repeats, seconds=seconds, say=say)
    for peer in peers:
        if peer.name in timed:
            share = judge.share(peer.trains(workload), np.asarray(timed[peer.name].result))
            rows[peer.name] = dataclasses.replace(rows[peer.name], share=max(share, rows[peer.name].share or 0.0))
    ours = OURS[0].name
    for name, row in rows.items():
        turns = taken.get(name, [])
        fair = bool(turns) and row.is_same and rows[ours].is_same
        ratio = clock.ratio(turns, taken[ours]) if fair else None
        yield dataclasses.replace(row, seconds=tuple(map(tuple, turns)), ratio=ratio)


class _Kept:
    """A way whose last result is kept: what was timed is what is judged."""

    def __init__(self, way: Callable[[], Any]) -> None:
        self._way = way
        self.result: Any = None

    def __call__(self) -> None:
        self.result = self._way()


def _first(peer: Peer, workload: Workload, data: Data, on: Any, judge: _Judge) -> tuple[Row, Callable[[], Any]]:
    """The first run, which compiles, and how near its weights are to float64's; and what to call again."""
    begin = time.perf_counter()
    way = peer.prepare(workload, data, on)
    ready = time.perf_counter()
    found = way()
    first = time.perf_counter()
    share = judge.share(peer.trains(workload), np.asarray(found))
    if workload.epochs > _EARLY:
        early = dataclasses.replace(workload, epochs=_EARLY)
        share = max(share, judge.share(peer.trains(early), np.asarray(peer.prepare(early, data, on)())))
    return Row(peer.name, "", share, ready - begin, first - ready), way


class _Judge:
    """Each training of a workload in float64, worked out once."""

    def __init__(self, workload: Workload, data: Data) -> None:
        self._data = data
        self._sums = None if workload.batch else same.sums(data)
        self._known: dict[Workload, same.Trajectories] = {}

    def share(self, workload: Workload, found: Any) -> float:
        if workload not in self._known:
            self._known[workload] = same.expected(workload, self._data, self._sums)
        return same.apart(found, self._known[workload])


def _work(workload: Workload) -> Work:
    """The data read once; their cross-products, of which half is enough, or in batches all steps where that is less."""
    rows = float(workload.rows * max(workload.groups, 1))
    products = rows * (workload.columns + 2) ** 2
    steps = workload.epochs * rows * 4 * (workload.columns + 1) if workload.batch else products
    return Work(workload.bytes, min(products, steps))
