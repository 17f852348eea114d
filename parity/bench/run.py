"""Running the benchmark: prepare each way, hold its result to the same trajectory, time it in turns with the others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from parity._errors import BenchError
from parity.bench import clock, same, workloads
from parity.bench.limits import Limits, Work, measure
from parity.bench.peers import OTHERS, OURS, Peer
from parity.bench.workloads import Data, Workload

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train one workload.

    Attributes:
        peer: its name.
        why_not: why it was not timed; empty where it was.
        share: how far its weights are from float64's, as a share of what rounding can do: at most 1 where it is the
            same training; ``None`` where it was not run.
        prepare_seconds: to bring the data to the device and to make ready.
        first_seconds: the first training, with all compiling.
        seconds: of each repeat, warm.
        ratio: how many times as long it takes as jaxreg; ``None`` where either is not the same training.
    """

    peer: str
    why_not: str = ""
    share: float | None = None
    prepare_seconds: float = float("nan")
    first_seconds: float = float("nan")
    seconds: tuple[float, ...] = ()
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


def devices(platform: str | None) -> Any:
    """The device to run on.

    Raises:
        BenchError: there is none of that platform.
    """
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        found = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise BenchError(f"there is no device {platform!r} here; JAX finds {found}") from None


def bench(
    chosen: Sequence[Workload], *, device: Any, repeats: int, seconds: float, say: Say
) -> tuple[list[Timed], Limits]:
    """Time workloads on a device.

    Args:
        chosen: the workloads, scaled already.
        device: of JAX's; PyTorch uses the same one.
        repeats: of each way at most.
        seconds: for the repeats of one workload; each way is timed at least once.
        say: told what is being done.
    """
    for workload in chosen:
        workloads.check_room(workload)
    peers = [*OURS, *OTHERS, *_torch_peers()]
    say("measuring what the machine can do")
    limits = measure(device, _torch_limits())
    timed = []
    with jax.default_device(device):
        for workload in chosen:
            timed.append(_timed(workload, peers, device, repeats, seconds, say))
    return timed, limits


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


def _timed(
    workload: Workload, peers: Sequence[Peer], device: Any, repeats: int, seconds: float, say: Say
) -> Timed:
    say(f"{workload.name}: making the data")
    data = workloads.data(workload)
    expected = _expected(workload, data)
    rows: dict[str, Row] = {}
    ways: dict[str, Callable[[], Any]] = {}
    for peer in peers:
        reason = peer.unfit(workload, device)
        if reason:
            rows[peer.name] = Row(peer.name, why_not=reason)
            continue
        begin = time.perf_counter()
        way = peer.prepare(workload, data, device)
        ready = time.perf_counter()
        found = way()
        first = time.perf_counter()
        share = _share(np.asarray(found), expected)
        rows[peer.name] = Row(peer.name, "", share, ready - begin, first - ready)
        ways[peer.name] = way
        say(f"{workload.name}: {peer.name}, first run {first - ready:.3g} s, {share:.2g} of its rounding bound")
    taken = clock.interleaved(ways, repeats=repeats, seconds=seconds, say=lambda line: say(f"{workload.name}: {line}"))
    ours = OURS[0].name
    for name, each in taken.items():
        fair = rows[name].is_same and rows[ours].is_same
        ratio = clock.ratio(each, taken[ours]) if fair else None
        rows[name] = dataclasses.replace(rows[name], seconds=tuple(each), ratio=ratio)
    return Timed(workload, tuple(rows.values()), _work(workload))


def _expected(workload: Workload, data: Data) -> list[same.Trajectory]:
    """Each training in float64, with the bound of its float32 trajectory."""
    start = np.append(data.weight, data.bias)
    if workload.batch:
        return [same.follow_batches(data, start, workload.learning_rate, workload.epochs, workload.batch)]
    if workload.groups:
        parts = [dataclasses.replace(data, x=x, y=y) for x, y in zip(data.x, data.y, strict=True)]
        return [same.follow(same.sums(part), start, workload.learning_rate, workload.epochs) for part in parts]
    given = same.sums(data)
    return [same.follow(given, start, float(rate), workload.epochs) for rate in workload.rates]


def _share(found: Any, expected: list[same.Trajectory]) -> float:
    each = np.asarray(found).reshape(len(expected), -1)
    return max(same.apart(one, trajectory) for one, trajectory in zip(each, expected, strict=True))


def _work(workload: Workload) -> Work:
    """The data read once, and their cross-products, of which half is enough."""
    if workload.batch:
        passes = float(workload.epochs)
        return Work(passes * workload.bytes, passes * 4 * workload.rows * (workload.columns + 1))
    rows = workload.rows * max(workload.groups, 1)
    return Work(workload.bytes, float(rows) * (workload.columns + 2) ** 2)
