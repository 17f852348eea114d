"""Running the benchmark: prepare each way, hold its result to the same trajectory, time it in turns with the others."""

from __future__ import annotations

import dataclasses
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from parity._errors import BenchError
from parity.bench import caches, correctness, disturbance, memory, timing, workloads
from parity.bench.peers import OTHERS, OURS, Peer, Train
from parity.bench.roofline import Limits, Work, measure
from parity.bench.workloads import Array, Data, Workload
from parity.report.render import numbers

_LOG = logging.getLogger(__name__)

Say = Callable[[str], None]
# Weights are also held to float64 after so few epochs: what has converged no longer shows which way it came.
_EARLY_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class PeerResult:
    """One way to train one workload.

    Attributes:
        peer: its name.
        why_not: why it was not timed; empty where it was.
        share: how far its weights are from float64's, as a share of what rounding can do: at most 1 where it is the
            same training; ``None`` where it was not run. The largest one of the first call's weights, every timed
            call's, and those after two epochs.
        prepare_seconds: to bring the data to the device and to make ready.
        first_seconds: the first training, with all compiling.
        seconds: of each call in each turn, warm.
        ratio: how many times as long it takes as jaxreg; ``None`` where either is not the same training.
        cold: seconds of one call in each turn, after the caches were filled with other data; empty where a call takes
            too long to tell.
        cold_ratio: how many times as long as jaxreg's cold call.
        memory: the most bytes that a warm call added to what the process has resident; ``None`` where nobody tells.
    """

    peer: str
    why_not: str = ""
    share: float | None = None
    prepare_seconds: float | None = None
    first_seconds: float | None = None
    seconds: tuple[tuple[float, ...], ...] = ()
    ratio: timing.Ratio | None = None
    cold: tuple[tuple[float, ...], ...] = ()
    cold_ratio: timing.Ratio | None = None
    memory: int | None = None

    @property
    def is_same(self) -> bool:
        """Whether it is the same training."""
        return self.share is not None and self.share <= 1


@dataclasses.dataclass(frozen=True)
class TimedWorkload:
    """One workload, timed.

    Attributes:
        workload: what was trained.
        rows: one for each way.
        work: what no way can do without.
        attempts: what each run showed of the machine; ``None`` where nothing was timed.
    """

    workload: Workload
    rows: tuple[PeerResult, ...]
    work: Work
    attempts: disturbance.Attempts | None


@dataclasses.dataclass(frozen=True)
class _Bench:
    """What all workloads of a benchmark are timed with."""

    device: jax.Device
    repeats: int
    seconds: float
    reference: Callable[[], None]
    fill_caches: caches.Filler


def device(platform: str | None) -> jax.Device:
    """Return the device to run on.

    Raises:
        BenchError: there is none of that platform.
    """
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        found = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise BenchError(f"there is no device {platform!r} here; JAX finds {found}") from None


def peers(ways: Sequence[str] = ()) -> list[Peer]:
    """Return jaxreg and the ways whose names hold one of these words; all ways where there is no word.

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


class Measured(NamedTuple):
    """What a benchmark measured.

    Attributes:
        timed: each workload.
        limits: what the machine can do at most.
        cache: bytes of the last-level caches; ``None`` where the system does not say.
        touched: bytes that were touched before each cold call.
    """

    timed: tuple[TimedWorkload, ...]
    limits: Limits
    cache: int | None
    touched: int


def bench(
    chosen: Sequence[Workload],
    peers: Sequence[Peer],
    *,
    size: float,
    on: jax.Device,
    repeats: int,
    seconds: float,
    say: Say,
) -> Measured:
    """Time workloads on a device.

    Args:
        chosen: the workloads, whole.
        peers: the ways to train; jaxreg's own is among them.
        size: the share of each workload that is trained.
        on: a device of JAX's; PyTorch uses the same one.
        repeats: of each way at most.
        seconds: for the calls of one way, which has one turn at least.
        say: told what is being done.

    Raises:
        BenchError: a workload does not fit into memory.
    """
    for workload in chosen:
        workloads.check_room(workload, size)
    say("measuring the machine's limits")
    limits = measure(on, _torch_limits())
    timed = []
    with jax.default_device(on):
        fill = caches.Filler(on)
        made = _Bench(on, repeats, seconds, disturbance.reference(on), fill)
        for workload in (whole.scaled(size) for whole in chosen):
            rows, attempts = _rows(workload, peers, made, _prefixed(say, workload.name))
            timed.append(TimedWorkload(workload, rows, _work(workload), attempts))
            gc.collect()
    return Measured(tuple(timed), limits, fill.cache, fill.touched)


def _prefixed(say: Say, name: str) -> Say:
    return lambda line: say(f"{name}: {line}")


def _torch_peers() -> list[Peer]:
    try:
        from parity.bench.torch_peers import PEERS
    except ImportError as error:
        _LOG.debug("no ways of PyTorch's: %s", error)
        return []
    return list(PEERS)


def _torch_limits() -> Callable[[jax.Device], tuple[float, float, float]] | None:
    try:
        from parity.bench.torch_roofline import limits
    except ImportError as error:
        _LOG.debug("no limits by PyTorch: %s", error)
        return None
    return limits


def _rows(
    workload: Workload, peers: Sequence[Peer], bench: _Bench, say: Say
) -> tuple[tuple[PeerResult, ...], disturbance.Attempts | None]:
    say("making the data, and training in float64")
    data = workloads.data(workload)
    judge = _Judge(workload, data)
    rows: dict[str, PeerResult] = {}
    ways: dict[str, Train] = {}
    for peer in peers:
        reason = peer.unfit(workload, bench.device)
        if reason:
            rows[peer.name] = PeerResult(peer.name, why_not=reason)
            continue
        try:
            rows[peer.name], ways[peer.name] = _first(peer, workload, data, bench.device, judge)
            say(f"{peer.name}: first run {_first_run_line(rows[peer.name])}")
        except Exception as error:
            rows[peer.name] = _fails(peer, "it failed here", error)
            say(f"{peer.name}: {rows[peer.name].why_not}")
    watch = _Watched(bench, workload, {peer.name: peer for peer in peers}, judge)

    def once() -> timing.Run:
        left = {name: way for name, way in ways.items() if name not in watch.failures}
        return timing.interleaved(left, repeats=bench.repeats, seconds=bench.seconds, watch=watch, say=say)

    if not ways:
        return tuple(rows.values()), None
    timed, attempts = disturbance.settled(once, say, disturbance.cores())
    return tuple(_with_times(rows, timed, watch)), attempts


def _first_run_line(row: PeerResult) -> str:
    return (
        f"{numbers.duration(row.first_seconds or 0.0)}, error {numbers.percent(row.share or 0.0)} of the rounding bound"
    )


def _fails(peer: Peer, when: str, error: Exception) -> PeerResult:
    """Say why another library's way fails, such as for want of a C++ compiler; ours must not fail."""
    if peer in OURS:
        raise error
    _LOG.debug("%s is left out", peer.name, exc_info=error)
    first = str(error).strip().partition("\n")[0]
    return PeerResult(peer.name, why_not=f"{when}: {type(error).__name__}: {first}")


def _with_times(rows: dict[str, PeerResult], run: timing.Run, watch: _Watched) -> Iterator[PeerResult]:
    ours = OURS[0].name
    for name, row in rows.items():
        if name in watch.failures:
            yield watch.failures[name]
        elif name in run.ways:
            times, base = run.ways[name], run.ways[ours]
            row = dataclasses.replace(row, share=max(watch.shares[name], row.share or 0.0))
            mine = max(watch.shares[ours], rows[ours].share or 0.0)
            fair = row.is_same and mine <= 1
            yield dataclasses.replace(
                row,
                seconds=tuple(map(tuple, times.turns)),
                cold=tuple(map(tuple, times.cold)),
                ratio=timing.ratio(times.turns, base.turns) if fair else None,
                cold_ratio=timing.ratio(times.cold, base.cold) if fair and times.cold and base.cold else None,
                memory=watch.memory.get(name),
            )
        else:
            yield row


class _Watched(timing.Watch):
    """Judges every timed call's weights, measures each way's memory once, and keeps ways that fail."""

    def __init__(self, bench: _Bench, workload: Workload, peers: dict[str, Peer], judge: _Judge) -> None:
        self.reference, self.fill_caches = bench.reference, bench.fill_caches
        self._device, self._workload, self._peers, self._judge = bench.device, workload, peers, judge
        self._begun: int | None = None
        self.shares: dict[str, float] = {}
        self.memory: dict[str, int | None] = {}
        self.failures: dict[str, PeerResult] = {}

    def before_turn(self, name: str) -> None:
        if name not in self.memory:
            self._begun = memory.begin(self._device)

    def after_first(self, name: str) -> None:
        if name not in self.memory:
            self.memory[name] = memory.added(self._begun)

    def after_turn(self, name: str, results: list[Any]) -> None:
        trained = self._peers[name].trains(self._workload)
        self.shares[name] = max(self.shares.get(name, 0.0), *(self._judge.share(trained, each) for each in results))

    def failed(self, name: str, error: Exception) -> None:
        self.failures[name] = _fails(self._peers[name], "it failed in a later call", error)


def _first(peer: Peer, workload: Workload, data: Data, on: jax.Device, judge: _Judge) -> tuple[PeerResult, Train]:
    """Make the first run, which compiles, and judge its weights; return what to call again, too."""
    begin = time.perf_counter()
    way = peer.prepare(workload, data, on)
    ready = time.perf_counter()
    found = way()
    first = time.perf_counter()
    share = judge.share(peer.trains(workload), found)
    if workload.epochs > _EARLY_EPOCHS:
        early = dataclasses.replace(workload, epochs=_EARLY_EPOCHS)
        share = max(share, judge.share(peer.trains(early), peer.prepare(early, data, on)()))
    return PeerResult(peer.name, "", share, ready - begin, first - ready), way


class _Judge:
    """Each training of a workload in float64, worked out once."""

    def __init__(self, workload: Workload, data: Data) -> None:
        self._data = data
        self._sums = None if workload.batch else correctness.sums(data)
        self._known: dict[Workload, correctness.Trajectories] = {}

    def share(self, workload: Workload, found: Array) -> float:
        if workload not in self._known:
            self._known[workload] = correctness.expected(workload, self._data, self._sums)
        return correctness.apart(found, self._known[workload])


def _work(workload: Workload) -> Work:
    """Return the least work: the data read once, and their cross-products or all steps in batches."""
    rows = float(workload.rows * max(workload.groups, 1))
    products = rows * (workload.columns + 2) ** 2
    steps = workload.epochs * rows * 4 * (workload.columns + 1) if workload.batch else products
    return Work(workload.bytes, min(products, steps))
