"""The report's folder: everything is rendered first and only then moved into place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from parity._errors import OutputError
from parity.report import atomic_folder as _folder
from parity.report.render import numbers
from parity.report.render.numbers import Json

PAGE, SUMMARY, DATA, CHARTS = "report.html", "report.md", "report.json", "charts"
_SLUG = re.compile(r"[a-z0-9_-]+")


def check_writable(folder: str | Path) -> None:
    """Make sure, before any work starts, that the report can be written to ``folder``; nothing is left behind.

    Raises:
        OutputError: if the folder cannot be made or written, or holds a folder where a file belongs.
    """
    _folder.check_writable(folder, [PAGE, SUMMARY, DATA, f"{CHARTS}/any.svg"])


def write(document: Json, folder: str | Path, files: Mapping[str, bytes] | None = None) -> list[Path]:
    """Write report.html, report.md, report.json, the charts as SVG and ``files`` into ``folder``.

    A folder that exists already is overwritten file by file, and what else it holds stays. On any failure the folder
    is as it was before.

    Args:
        document: the report as ``schema.json`` describes it; NumPy values and non-finite floats are encoded here.
        folder: where to write; made, with its parents, if it does not exist.
        files: more files to write_files beside the report: relative names, with ``/`` between folders, to contents.

    Returns:
        The paths written, in the order page, Markdown, JSON, charts, ``files``.

    Raises:
        OutputError: if the folder cannot be written, or a name would lead out of it.
    """
    contents = render(document)
    for name, content in (files or {}).items():
        if name in contents:
            raise OutputError(f"the report has a file of its own called {name!r}; give the extra file another name")
        contents[_relative(name)] = content
    return _folder.write_files(folder, contents)


def render(document: Json) -> dict[str, bytes]:
    """Render the report's own files: relative names to contents.

    Raises:
        OutputError: if the programs' names cannot be file names.
    """
    # The chart libraries take a second to import and start, which checking a folder or printing a table never needs.
    from parity.report.render import charts, html, markdown

    _check_names([program["name"] for program in document["programs"]])
    data = json.dumps(numbers.encode(document), indent=1, allow_nan=False)
    # What is rendered is what report.json holds, so that no number can be on the page and not in the file.
    document = json.loads(data)
    contents = {PAGE: html.render(document), SUMMARY: markdown.render(document), DATA: data + "\n"}
    for program in document["programs"]:
        for chart, spec in charts.specs(program).items():
            contents[f"{CHARTS}/{program['name']}-{chart}.svg"] = charts.svg(spec)
    return {name: text.encode() for name, text in contents.items()}


def _check_names(names: list[str]) -> None:
    for name in names:
        if not _SLUG.fullmatch(name):
            raise OutputError(f"a program's name becomes a file name: expected letters a-z, 0-9, _ and -, got {name!r}")
        if names.count(name) > 1:
            raise OutputError(f"two programs are called {name!r}; every program in a report needs its own name")


def _relative(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise OutputError(f"expected the name of a file inside the report's folder, got {name!r}")
    return str(path)
