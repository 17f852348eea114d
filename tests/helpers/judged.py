"""A fault put into a port of a small training, judged, and the causes that are found."""

from __future__ import annotations

import jax

import parity
from parity import Port, Recording
from parity.bounds import derive
from parity.causes import find
from parity.judging import judge
from parity.judging.cause import Cause
from parity.replay.replay import replay
from parity.replay.session import Session


def causes(recording: Recording, port: Port) -> tuple[Cause, ...]:
    """The causes found. Faults are written as people write them, mixing dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        session = Session.of(port, recording)
        replayed = replay(session)
        bounds = derive.derive(session)
        findings = judge.judge(recording, replayed, bounds)
        return find(session, replayed, bounds, findings)


def only(recording: Recording, port: Port) -> parity.Cause:
    """The one cause found, not shared with an alternative."""
    found = causes(recording, port)
    assert len(found) == 1, [(cause.name, cause.sentence) for cause in found]
    assert not found[0].alternatives, found[0]
    assert found[0].agreement < 1e-12 or "products" in found[0].name
    return found[0]
