"""Drawing ahead in another process: the same drawings, and none lost where that process fails."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from parity.report.render import charts, drawing_process, drawings, html, numbers
from tests.helpers.sample_report import Document


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(drawings, "_kept", {})
    yield
    assert drawings._awaited == []


def _all(program: dict[str, Any]) -> dict[str, str]:
    return {name: charts.svg(spec) for name, spec in charts.specs(program).items()}


def test_drawn_ahead_is_what_would_be_drawn_here(
    documents: dict[str, Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = json.loads(json.dumps(numbers.encode(documents["holding"]["programs"][0])))
    here, script = _all(program), html.javascript()
    monkeypatch.setattr(drawings, "_kept", {})
    with drawing_process.drawing_ahead() as draw:
        draw(program)
        monkeypatch.setattr(charts, "_svg", lambda spec: pytest.fail("drawn here, not ahead"))
        monkeypatch.setattr(charts, "_specs", lambda *_: pytest.fail("built here, not ahead"))
        assert _all(program) == here
        assert html.javascript() == script


def test_what_was_not_asked_for_is_drawn_here(documents: dict[str, Document]) -> None:
    with drawing_process.drawing_ahead():
        assert "<svg" in _all(documents["holding"]["programs"][1])["loss"]


def test_a_dead_process_loses_nothing(documents: dict[str, Document]) -> None:
    program = documents["holding"]["programs"][0]
    with drawing_process.drawing_ahead() as draw:
        draw(program)
        [process] = multiprocessing.active_children()
        process.kill()
        process.join()
        draw(program)
        draw(program)
        assert "<svg" in _all(program)["loss"]


def test_no_process_is_left_behind() -> None:
    seen = []

    def fail() -> None:
        with drawing_process.drawing_ahead():
            seen.extend(multiprocessing.active_children())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [process.is_alive() for process in seen] == [False]


def test_documents_may_come_faster_than_they_are_drawn(documents: dict[str, Document]) -> None:
    """Both pipes were full at once, and both processes waited for each other."""
    with drawing_process.drawing_ahead() as draw:
        for _ in range(3):
            draw(documents["holding"]["programs"][0])
        assert "<svg" in _all(documents["holding"]["programs"][0])["loss"]
