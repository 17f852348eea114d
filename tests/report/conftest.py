"""Sample documents and their rendered files, made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parity.report.write import render
from tests.helpers import large_report as large
from tests.helpers import sample_report as sample

MAKERS: dict[str, Callable[[], sample.Document]] = {
    "holding": sample.holding,
    "failing": sample.failing,
    "diverging": sample.diverging,
    "hostile": sample.hostile,
    "large": large.large,
}


@pytest.fixture(scope="session")
def documents() -> dict[str, sample.Document]:
    return {name: make() for name, make in MAKERS.items()}


@pytest.fixture(scope="session")
def rendered(documents: dict[str, sample.Document]) -> dict[str, dict[str, bytes]]:
    return {name: render(document) for name, document in documents.items()}
