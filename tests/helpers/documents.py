"""The project's Markdown documents taken apart: sentences, links, and programs beside what they print.

``python -m tests.helpers.documents README.md docs/plans.md`` runs the programs and writes what they print into the
documents, where the words that they print have changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END = "-- end of a block --"
_COMMAND = "parity check "


def prose(text: str) -> str:
    """Return the text without code blocks, tables and the addresses of links."""
    text = _CODE.sub("\n\n", text)
    text = re.sub(r"^\|.*$", "\n", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of the prose; a blank line, a heading or an item of a list ends one too."""
    paragraphs = re.split(r"\n\s*\n|^#+ |^\s*(?:[-*]|\d+\.) ", prose(text), flags=re.MULTILINE)
    return [one for each in paragraphs for one in re.split(r"(?<=[.!?])[)*_`]*\s+", " ".join(each.split())) if one]


def links(text: str) -> list[str]:
    """Return the addresses of links within the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", _CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


class Example(NamedTuple):
    """A program in a document.

    Attributes:
        source: Python, or the command ``parity check``.
        shown: the text block that follows it before the next program; ``None`` where there is none.
        span: where the shown text is in the document.
    """

    source: str
    shown: str | None
    span: tuple[int, int] | None

    @property
    def is_command(self) -> bool:
        """Return whether it is a command, of whose output the document shows the beginning."""
        return self.source.startswith(_COMMAND)


def examples(text: str) -> list[Example]:
    """Return the programs of a document in their order."""
    found: list[Example] = []
    open_ = False
    for block in _CODE.finditer(text):
        language, content = block.groups()
        if language == "python" or (content.startswith(_COMMAND) and content.count("\n") == 1):
            found.append(Example(content, None, None))
            open_ = True
        elif language == "text" and open_:
            found[-1] = found[-1]._replace(shown=content, span=block.span(2))
            open_ = False
        else:
            open_ = False
    return found


def outputs(some: list[Example], folder: Path) -> list[str]:
    """Return what each program prints: the Python ones run as one program, with the line program as ``train.py``.

    Raises:
        AssertionError: one of them fails, or warns.
    """
    (folder / "train.py").write_text((ROOT / "parity" / "programs" / "line.py").read_text(encoding="utf-8"))
    parts = [each.source for each in some if not each.is_command]
    printed = iter(_run(["-W", "error", "-c", f"print({_END!r})\n".join([*parts, ""])], folder).split(f"{_END}\n"))
    return [
        _run(["-m", "parity", *each.source.split()[1:], "-q"], folder) if each.is_command else next(printed)
        for each in some
    ]


def _run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown_anew(example: Example, printed: str) -> str:
    """Return what a document should show: all of it, or of a command as many lines and on to the end of a sentence."""
    lines = [line.rstrip() for line in printed.splitlines()]
    if example.is_command:
        least = (example.shown or "").count("\n")
        ends = [number for number, line in enumerate(lines, 1) if number >= least and line.endswith(".")]
        lines = lines[: ends[0]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    for name in sys.argv[1:]:
        path = Path(name)
        text = path.read_text(encoding="utf-8")
        some = examples(text)
        with tempfile.TemporaryDirectory() as folder:
            printed = outputs(some, Path(folder))
        for each, output in reversed(list(zip(some, printed, strict=True))):
            if each.span is not None:
                text = text[: each.span[0]] + shown_anew(each, output) + text[each.span[1] :]
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
