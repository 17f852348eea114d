"""Peak memory and the caches, as the system tells them."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from parity.bench import caches, memory, roofline

CPU = jax.devices("cpu")[0]
MIB = 1 << 20


def test_what_a_call_takes_at_most_is_counted_and_what_was_there_is_not() -> None:
    kept = np.ones(32 * MIB, np.uint8)
    for taken in (0, 64 * MIB):
        before = memory.begin(CPU)
        np.ones(taken, np.uint8).sum()
        found = memory.added(before)
        assert found is not None
        assert taken - memory.resolution() <= found <= taken + memory.resolution() + MIB
    assert kept.any()


def test_where_nobody_tells_there_is_no_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_RESET_FILE", str(tmp_path / "none" / "file"))
    assert memory.added(memory.begin(CPU)) is None
    monkeypatch.undo()
    monkeypatch.setattr(memory, "_STATUS_FILE", str(tmp_path / "none"))
    assert memory.added(memory.begin(CPU)) is None


def test_the_last_level_counts_each_cache_once(tmp_path: Path) -> None:
    levels = [(1, "Data", "32K"), (1, "Instruction", "999M"), (2, "Unified", "1M"), (3, "Unified", "32768K")]
    for core in range(8):
        for index, (level, kind, size) in enumerate(levels):
            place = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            place.mkdir(parents=True)
            shared = f"{core // 4 * 4}-{core // 4 * 4 + 3}" if level == 3 else str(core)
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
                (place / name).write_text(f"{text}\n")
    (tmp_path / "cpu0" / "cache" / "index9").mkdir()
    assert caches.last_level(tmp_path) == 2 * 32 * MIB
    assert caches.last_level(tmp_path / "none") is None


@pytest.mark.parametrize(("known", "touched", "read"), [(MIB, 2 * MIB, 256 * MIB), (200 * MIB, 400 * MIB, 400 * MIB)])
def test_more_than_the_caches_hold_is_touched_and_read(
    known: int, touched: int, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "last_level", lambda: known)
    assert roofline.read_bytes() == read
    if known == MIB:
        fill = caches.Filler(CPU)
        fill()
        fill()
        assert (fill.cache, fill.touched) == (known, touched)
        [array] = fill._arrays
        assert array.nbytes == touched
        assert (np.asarray(array) == 2).all()
