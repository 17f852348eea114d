"""The benchmark's folder: everything is rendered first and only then moved into place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from parity.report import atomic_folder as _folder
from parity.report.render.numbers import Json

PAGE, DATA = "bench.html", "bench.json"


def check_writable(folder: str | Path) -> None:
    """Make sure, before any work starts, that ``folder`` can be written to.

    Raises:
        OutputError: if it cannot.
    """
    _folder.check_writable(folder, [PAGE, DATA])


def write(document: Json, changes: Sequence[Json], remarks: Sequence[str], folder: str | Path) -> list[Path]:
    """Write bench.html and bench.json into ``folder``, all or nothing; return their paths.

    Raises:
        OutputError: if the folder cannot be written.
    """
    from parity.bench import html

    page, data = html.render(document, changes, remarks), json.dumps(document, indent=1, allow_nan=False) + "\n"
    return _folder.write_files(folder, {PAGE: page.encode(), DATA: data.encode()})
