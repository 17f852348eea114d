"""Recordings within a memory limit: which steps are kept, and that they are what a whole recording says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import parity
from parity._errors import UnsupportedError
from parity.capture.step_retention import After, Keeper, Schedule
from parity.recording import trees
from tests.helpers.any_programs import KINDS, classes, cross_entropy, mlp

# Bytes of one step with one float32 number of each kind: itself, its two float64 runs, and what it started from.
_STEP = (3 * 4 + 2 * 3 * 8) + 4


def _after(value: int) -> After:
    return After({"w": np.full(1, value, np.float32)}, {}, {})


@given(st.integers(1, 300), st.integers(2, 40), st.integers(0, 100))
def test_first_last_and_evenly_between_within_the_limit(steps: int, room: int, taken: int) -> None:
    keeper = Keeper(_STEP * room + taken, _after(-1))
    for step in range(steps):
        keeper.begin(np.full(1, step, np.float32), {"w": np.full(1, step, np.float32)})
        keeper.end(_after(step), taken)
        assert len(keeper.rows) <= room
        assert step in keeper.rows
        assert 0 in keeper.rows
    observed, starts = keeper.finish(np.zeros(steps), lambda key, name, like: like)
    kept = np.array(keeper.kept)
    assert (np.diff(kept) > 0).all()
    assert keeper.complete == (steps <= room) == (starts is None)
    assert (observed.weights["w"][:, 0] == kept).all()
    assert [float(one[0]) for one in observed.predictions] == kept.tolist()
    if starts is not None:
        assert (starts.weights["w"][:, 0] == kept - 1).all()
        # Between the first steps and the last they are a stride apart, a power of two.
        gaps = set(np.diff(kept[(kept >= 4) & (kept < steps - 1)]).tolist())
        assert len(gaps) <= 1
        assert all(gap & (gap - 1) == 0 for gap in gaps)
        # No more is thrown away than a doubled stride throws away.
        assert len(kept) >= min(room, steps) // 2


def test_a_limit_too_small_for_two_steps_is_named() -> None:
    keeper = Keeper(_STEP, _after(-1))
    keeper.begin(np.zeros(1, np.float32), {"w": np.zeros(1, np.float32)})
    keeper.end(_after(0), 0)
    keeper.begin(np.zeros(1, np.float32), {"w": np.zeros(1, np.float32)})
    with pytest.raises(UnsupportedError, match="the tensors of two steps take 128 bytes"):
        keeper.end(_after(1), 0)


def test_a_schedule_ends() -> None:
    schedule = Schedule()
    while schedule.sparser(10):
        assert schedule.keeps(0)
    assert [step for step in range(10) if schedule.keeps(step)] == [0]


@pytest.mark.parametrize("name", KINDS)
def test_kept_steps_are_those_of_a_whole_recording(name: str, tmp_path: Path) -> None:
    program = KINDS[name].program(13)
    whole = parity.record(program)
    room = 6 * (trees.size([whole.observed.weights, whole.observed.gradients, whole.observed.state]) // 13) * 6
    thin = parity.record(program, memory_limit=room + 2 * trees.size([(b.inputs, b.targets) for b in whole.batches]))
    kept = thin.kept
    assert kept[0] == 0
    assert kept[-1] == 12
    assert 3 <= len(kept) < 13
    assert thin.starts is not None
    assert any(note.startswith(f"Tensors were kept of {len(kept)} of 13 steps") for note in thin.notes)
    assert (thin.observed.losses == whole.observed.losses).all()
    for one, other in ((thin.observed, whole.observed), (thin.arbiter_free, whole.arbiter_free)):
        for field in ("weights", "gradients", "buffers"):
            for key, values in getattr(other, field).items():
                assert (getattr(one, field)[key] == values[kept]).all(), (field, key)
        for key, tensors in other.state.items():
            assert all((one.state[key][name] == values[kept]).all() for name, values in tensors.items())
        assert all(trees.same(one.predictions[row], other.predictions[step]) for row, step in enumerate(kept))
    pairs = [
        (thin.weights_before(), whole.weights_before()),
        (thin.buffers_before(), whole.buffers_before()),
        *((tensors, whole.state_before()[key]) for key, tensors in thin.state_before().items()),
    ]
    for before, expected in pairs:
        assert all((before[key] == expected[key][kept]).all() for key in expected)
    _check_locked(thin, whole)
    thin.save(tmp_path / "thin.npz")
    assert (parity.Recording.load(tmp_path / "thin.npz").kept == kept).all()


def _check_locked(thin: parity.Recording, whole: parity.Recording) -> None:
    """Forward, loss and gradient start from the same weights; the update from recorded state in place of its own."""
    kept, locked = thin.kept, thin.arbiter_locked
    assert (locked.losses[kept] == whole.arbiter_locked.losses[kept]).all()
    assert np.isnan(np.delete(locked.losses, kept)).all()
    for name, values in whole.arbiter_locked.gradients.items():
        assert (locked.gradients[name] == values[kept]).all()
    for name, values in whole.arbiter_locked.buffers.items():
        assert (locked.buffers[name] == values[kept]).all()
    before, eps = thin.weights_before(), np.finfo(np.float32).eps
    for name, values in whole.arbiter_locked.weights.items():
        # The recorded state is rounded, so an update is off by some units of it; a step count off by one is far more.
        update = abs(values[kept] - before[name])
        assert (abs(locked.weights[name] - values[kept]) <= 64 * eps * (update + update.max())).all(), name


def test_data_beyond_half_the_limit_ends_the_recording() -> None:
    def program() -> None:
        torch.manual_seed(0)
        model = mlp()
        adam = torch.optim.Adam(model.parameters())
        for _ in range(40):
            adam.zero_grad()
            loss = cross_entropy(model, classes(2000))
            loss.backward()
            adam.step()
            print(loss.item())

    recording = parity.record(program, memory_limit=2**20)
    size = trees.size([(batch.inputs, batch.targets) for batch in recording.batches])
    assert size <= 2**19 < size * 40 / recording.steps
    assert recording.notes[0].startswith(f"The recording ends after {recording.steps} steps: the batches seen")
    assert len(recording.printed) == recording.steps
    assert (recording.observed.losses == parity.record(program).observed.losses[: recording.steps]).all()
    with pytest.raises(UnsupportedError, match="the first batch takes more than half the memory limit of 65,536"):
        parity.record(program, memory_limit=2**16)
